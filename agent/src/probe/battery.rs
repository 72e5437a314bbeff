//! The battery, from `/sys/class/power_supply`.

use super::{entries, number, read};
use crate::config::Roots;
use sandpiper_core::profile::Power;
use std::path::Path;

/// Where the power comes from. The first battery with a readable charge counts; a peripheral's
/// own battery (scope `Device`) does not.
pub fn power(roots: &Roots) -> Power {
    let supplies = entries(&roots.sysfs.join("class/power_supply"));
    supplies
        .iter()
        .find_map(|dir| battery(dir))
        .unwrap_or(Power::Mains)
}

/// Whether this power supply is a battery that feeds the device.
pub(crate) fn is_battery(dir: &Path) -> bool {
    let holds = |file: &str, text: &str| read(&dir.join(file)).as_deref() == Some(text);
    holds("type", "Battery") && !holds("scope", "Device")
}

fn battery(dir: &Path) -> Option<Power> {
    if !is_battery(dir) {
        return None;
    }
    let percent = number::<u64>(&dir.join("capacity"))
        .or_else(|| share(dir))?
        .min(100);
    // The sign of a current is not the same on all drivers; the status is. A fuel gauge that does
    // not know (`Unknown`) counts as draining: the careful reading.
    let status = read(&dir.join("status")).unwrap_or_default();
    Some(Power::Battery {
        percent: u8::try_from(percent).unwrap_or(100),
        charging: matches!(status.as_str(), "Charging" | "Full" | "Not charging"),
        remaining_uj: remaining_uj(dir),
    })
}

fn share(dir: &Path) -> Option<u64> {
    let of = |now: &str, full: &str| {
        let now = number::<u64>(&dir.join(now))?;
        let full = number::<u64>(&dir.join(full)).filter(|f| *f > 0)?;
        Some(now.saturating_mul(100) / full)
    };
    of("energy_now", "energy_full").or_else(|| of("charge_now", "charge_full"))
}

/// Energy left: `energy_now` is in µWh; `charge_now` (µAh) times `voltage_now` (µV) otherwise.
fn remaining_uj(dir: &Path) -> Option<u64> {
    if let Some(uwh) = number::<u64>(&dir.join("energy_now")) {
        return uwh.checked_mul(3600);
    }
    let uah = number::<u64>(&dir.join("charge_now"))?;
    let uv = number::<u64>(&dir.join("voltage_now"))?;
    let uj = u128::from(uah) * u128::from(uv) * 3600 / 1_000_000;
    u64::try_from(uj).ok()
}
