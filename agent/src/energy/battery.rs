//! What a battery gives, while it drains: on its charger it says nothing of the device.

use super::source::{MAX_POWER_W, Reading, Source, meter, plausible};
use crate::config::Roots;
use crate::probe::{entries, is_battery, number, read};
use sandpiper_core::energy::EnergyScope;
use sandpiper_core::energy::ledger::Meter;
use std::path::{Path, PathBuf};

/// A battery.
#[derive(Debug)]
pub(super) struct Battery {
    dir: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// `power_now` in microwatts.
    Power,
    /// `current_now` in microamperes times `voltage_now` in microvolts.
    Product,
    /// `energy_now` in microwatt-hours, or `charge_now` in microampere-hours.
    Counter { file: &'static str, walk: Walk },
}

/// Follows a falling counter with coarse steps. Time counts from one step to the next, so that
/// no interval holds a part of a step.
#[derive(Debug, Default)]
struct Walk {
    last: Option<(u64, u64)>,
    /// When the step of `last` was seen; none before the first step.
    stepped: bool,
}

impl Walk {
    /// The time and the units that went, once the counter steps.
    fn advance(&mut self, at_us: u64, value: u64) -> Option<(u64, u64)> {
        let (before_us, before) = *self.last.get_or_insert((at_us, value));
        if value == before {
            return None;
        }
        let whole = self.stepped && value < before;
        self.last = Some((at_us, value));
        self.stepped = value < before;
        whole.then(|| (at_us.saturating_sub(before_us), before - value))
    }
}

/// The first battery that tells power, or energy in steps. A share in percent is too coarse.
pub(super) fn find(roots: &Roots) -> Option<Battery> {
    let all = entries(&roots.sysfs.join("class/power_supply"));
    all.into_iter().find_map(of)
}

fn of(dir: PathBuf) -> Option<Battery> {
    let tells = |file: &str| number::<i64>(&dir.join(file)).is_some();
    let counter = |file| Kind::Counter {
        file,
        walk: Walk::default(),
    };
    let kind = if !is_battery(&dir) {
        return None;
    } else if tells("power_now") {
        Kind::Power
    } else if tells("current_now") && tells("voltage_now") {
        Kind::Product
    } else if tells("energy_now") {
        counter("energy_now")
    } else if tells("charge_now") && tells("voltage_now") {
        counter("charge_now")
    } else {
        return None;
    };
    Some(Battery { dir, kind })
}

/// Size of a current or power: its sign is not the same on all drivers, so the status tells the
/// direction.
fn size(dir: &Path, file: &str) -> Option<f64> {
    number::<f64>(&dir.join(file)).map(f64::abs)
}

impl Battery {
    fn watts(&self) -> Option<f64> {
        match self.kind {
            Kind::Power => Some(size(&self.dir, "power_now")? / 1e6),
            _ => Some(size(&self.dir, "current_now")? * size(&self.dir, "voltage_now")? / 1e12),
        }
    }
}

impl Source for Battery {
    fn name(&self) -> String {
        let name = self.dir.file_name().unwrap_or_default().to_string_lossy();
        format!("battery:{name}")
    }

    fn meter(&self) -> Meter {
        // Fuel gauges are as inexact as the coarsest meters of boards.
        meter(EnergyScope::Battery, 0.1)
    }

    fn read(&mut self, at_us: u64) -> Reading {
        let drains = read(&self.dir.join("status")).is_some_and(|s| s == "Discharging");
        let volts = size(&self.dir, "voltage_now").map(|uv| uv / 1e6);
        match &mut self.kind {
            Kind::Counter { walk, .. } if !drains => {
                *walk = Walk::default();
                Reading::Gap
            }
            _ if !drains => Reading::Gap,
            Kind::Power | Kind::Product => self.watts().map_or(Reading::Gap, plausible),
            Kind::Counter { file, walk } => {
                let factor = match *file {
                    "energy_now" => Some(3600.0),
                    _ => volts.map(|v| v * 3600.0),
                };
                let value = number::<u64>(&self.dir.join(*file));
                let Some((value, factor)) = value.zip(factor) else {
                    *walk = Walk::default();
                    return Reading::Gap;
                };
                let Some((elapsed_us, units)) = walk.advance(at_us, value) else {
                    return Reading::Wait;
                };
                let energy_uj = units as f64 * factor;
                if energy_uj > MAX_POWER_W * elapsed_us as f64 {
                    return Reading::Gap; // The gauge corrected itself.
                }
                Reading::Interval {
                    elapsed_us,
                    energy_uj: energy_uj.round() as u64,
                }
            }
        }
    }
}
