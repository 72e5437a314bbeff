//! Energy counters of CPU packages, through powercap.

use super::source::{MAX_POWER_W, Reading, Source, meter};
use crate::config::Roots;
use crate::probe::{entries, number, read};
use sandpiper_core::energy::EnergyScope;
use sandpiper_core::energy::counter::{Advance, CounterWalk};
use sandpiper_core::energy::ledger::Meter;
use std::path::PathBuf;

/// Counters in microjoules, one for each package.
#[derive(Debug)]
pub(super) struct Packages {
    counters: Vec<(PathBuf, CounterWalk)>,
    last_us: Option<u64>,
}

/// Packages only: their sub-domains are parts of them, `psys` contains them, and the `mmio`
/// domains are the same counters again.
pub(super) fn find(roots: &Roots) -> Option<Packages> {
    let mut counters = Vec::new();
    for dir in entries(&roots.powercap) {
        let file = dir.file_name().unwrap_or_default().to_string_lossy();
        let package = read(&dir.join("name")).is_some_and(|n| n.starts_with("package-"));
        let path = dir.join("energy_uj");
        if file.contains("mmio") || !package || number::<u64>(&path).is_none() {
            continue;
        }
        let range = number(&dir.join("max_energy_range_uj"));
        counters.push((path, CounterWalk::new(range, MAX_POWER_W)));
    }
    (!counters.is_empty()).then_some(Packages {
        counters,
        last_us: None,
    })
}

impl Source for Packages {
    fn name(&self) -> String {
        "rapl:package".to_owned()
    }

    fn meter(&self) -> Meter {
        meter(EnergyScope::Package, 0.05)
    }

    fn read(&mut self, at_us: u64) -> Reading {
        let before = self.last_us.replace(at_us);
        let mut sum = Some(0);
        for (path, walk) in &mut self.counters {
            // Every counter is read even after a gap, so that all walks go on together.
            let step = number::<u64>(path).map(|value| walk.advance(at_us, value));
            sum = match (sum, step) {
                (Some(sum), Some(Advance::Energy(uj))) => Some(sum + uj),
                _ => None,
            };
        }
        match (sum, before) {
            (Some(energy_uj), Some(before)) => Reading::Interval {
                elapsed_us: at_us.saturating_sub(before),
                energy_uj,
            },
            _ => Reading::Gap,
        }
    }
}
