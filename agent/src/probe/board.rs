//! Board, system on chip, temperature and throttling.

use super::{entries, number, read};
use crate::config::Roots;

/// Name of the board: the device tree's, else the DMI product's, else `unknown`.
pub(super) fn board(roots: &Roots) -> String {
    let places = [
        roots.procfs.join("device-tree/model"),
        roots.sysfs.join("firmware/devicetree/base/model"),
        roots.sysfs.join("class/dmi/id/product_name"),
    ];
    let found = places
        .iter()
        .find_map(|p| read(p).filter(|t| !t.is_empty()));
    found.unwrap_or_else(|| "unknown".into())
}

/// System on chip: the last `compatible` entry of the device tree without its maker.
pub(super) fn soc(roots: &Roots) -> String {
    let places = [
        roots.procfs.join("device-tree/compatible"),
        roots.sysfs.join("firmware/devicetree/base/compatible"),
    ];
    let text = places.iter().find_map(|p| read(p)).unwrap_or_default();
    let last = text
        .split('\0')
        .rfind(|e| !e.is_empty())
        .unwrap_or_default();
    last.rsplit(',').next().unwrap_or_default().to_owned()
}

/// Hottest thermal zone in thousandths of a degree Celsius. Values that no board survives are a
/// broken sensor and do not count.
pub(super) fn temperature_mc(roots: &Roots) -> Option<i32> {
    let zones = entries(&roots.sysfs.join("class/thermal"));
    let temps = zones.iter().filter_map(|z| number::<i32>(&z.join("temp")));
    temps.filter(|t| (-60_000..=150_000).contains(t)).max()
}

/// Whether the clock is held back now: bits 0 (undervoltage), 1 (capped), 2 (throttled) and 3
/// (soft limit) of the Raspberry Pi firmware's word; the upper bits are history.
pub(super) fn throttled(roots: &Roots) -> bool {
    let path = roots
        .sysfs
        .join("devices/platform/soc/soc:firmware/get_throttled");
    let word = read(&path).and_then(|t| u32::from_str_radix(t.trim_start_matches("0x"), 16).ok());
    word.is_some_and(|w| w & 0xf != 0)
}
