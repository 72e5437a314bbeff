//! Meters: RAPL through powercap, and power sensors through hwmon.

use crate::config::Roots;
use crate::probe::{entries, number, read};
use sandpiper_core::energy::EnergyScope;
use sandpiper_core::energy::counter::{Advance, CounterWalk};
use std::path::PathBuf;
use std::time::Instant;

/// Most power that a package of a small computer or server can draw, in watts: more is a broken
/// reading.
const MAX_POWER_W: f64 = 1000.0;

/// A meter that can be read now.
#[derive(Debug)]
pub(super) struct Meter {
    name: String,
    scope: EnergyScope,
    gain_error: f64,
    begin: Instant,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Counters in microjoules, one per package.
    Counters(Vec<(PathBuf, CounterWalk)>),
    /// A sensor in microwatts, integrated by the trapezoid rule.
    Power {
        path: PathBuf,
        last: Option<(Instant, f64)>,
    },
}

/// The preferred meter: board-level sensors before the CPU package.
pub(super) fn find(roots: &Roots) -> Option<Meter> {
    hwmon(roots).or_else(|| rapl(roots))
}

fn hwmon(roots: &Roots) -> Option<Meter> {
    for dir in entries(&roots.sysfs.join("class/hwmon")) {
        let Some(chip) = read(&dir.join("name")) else {
            continue;
        };
        // Gain errors of the chips' data sheets with their usual shunts.
        let gain_error = match chip.as_str() {
            "ina226" | "ina231" => 0.01,
            "ina219" | "ina220" => 0.02,
            _ => continue,
        };
        let path = dir.join("power1_input");
        if number::<f64>(&path).is_some() {
            return Some(Meter {
                name: format!("hwmon:{chip}"),
                scope: EnergyScope::Board,
                gain_error,
                begin: Instant::now(),
                kind: Kind::Power { path, last: None },
            });
        }
    }
    None
}

/// Packages only: their sub-domains are parts of them, `psys` contains them, and the `mmio`
/// domains are the same counters again.
fn rapl(roots: &Roots) -> Option<Meter> {
    let mut counters = Vec::new();
    for dir in entries(&roots.powercap) {
        let file = dir
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default();
        let package = read(&dir.join("name")).is_some_and(|n| n.starts_with("package-"));
        let path = dir.join("energy_uj");
        if file.contains("mmio") || !package || number::<u64>(&path).is_none() {
            continue;
        }
        let range = number(&dir.join("max_energy_range_uj"));
        counters.push((path, CounterWalk::new(range, MAX_POWER_W)));
    }
    (!counters.is_empty()).then(|| Meter {
        name: "rapl:package".into(),
        scope: EnergyScope::Package,
        gain_error: 0.05,
        begin: Instant::now(),
        kind: Kind::Counters(counters),
    })
}

impl Meter {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn scope(&self) -> EnergyScope {
        self.scope
    }

    pub(super) fn gain_error(&self) -> f64 {
        self.gain_error
    }

    /// Microjoules since the reading before; `None` for the first and over a gap.
    pub(super) fn advance(&mut self, now: Instant) -> Option<f64> {
        match &mut self.kind {
            Kind::Counters(counters) => {
                let at = now.saturating_duration_since(self.begin).as_micros();
                let at = u64::try_from(at).unwrap_or(u64::MAX);
                let mut sum = Some(0.0);
                for (path, walk) in counters {
                    // Every counter is read even after a gap, so that all walks go on together.
                    let step = number::<u64>(path).map(|value| walk.advance(at, value));
                    sum = match (sum, step) {
                        (Some(sum), Some(Advance::Energy(uj))) => Some(sum + uj as f64),
                        _ => None,
                    };
                }
                sum
            }
            Kind::Power { path, last } => {
                let Some(uw) = number::<f64>(path).filter(|w| *w >= 0.0 && *w <= MAX_POWER_W * 1e6)
                else {
                    *last = None;
                    return None;
                };
                let (before, then) = last.replace((now, uw))?;
                Some((uw + then) / 2.0 * now.saturating_duration_since(before).as_secs_f64())
            }
        }
    }
}
