//! Who moves first: a fault that comes from the hardware shall show in the first wave, not in the
//! wave in which that hardware's turn comes by its name.

use super::plan::PlannedDevice;
use super::spec::WaveSize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Cuts devices, which come in the order of their names, into waves: the first of every class of
/// hardware before the second of any. Within a wave they stand in the order of their names.
///
/// Percentages round up, so that the first wave of a small fleet is never empty.
pub(super) fn into_waves(
    devices: Vec<PlannedDevice>,
    sizes: &[WaveSize],
) -> Vec<Vec<PlannedDevice>> {
    let total = devices.len();
    let mut rest = by_risk(devices).into_iter();
    let mut waves = Vec::new();
    let mut moved = 0;
    for size in sizes {
        let upto = match *size {
            WaveSize::Percent(p) => (total * usize::from(p)).div_ceil(100),
            WaveSize::Count(n) => moved + n as usize,
        };
        let wave: Vec<_> = rest.by_ref().take(upto.saturating_sub(moved)).collect();
        moved += wave.len();
        waves.push(wave);
    }
    waves.push(rest.collect());
    waves.retain(|w| !w.is_empty());
    for wave in &mut waves {
        wave.sort_by(|a, b| a.device.cmp(&b.device));
    }
    waves
}

/// By how many devices of the same class come before by name.
fn by_risk(devices: Vec<PlannedDevice>) -> Vec<PlannedDevice> {
    let mut seen: BTreeMap<Arc<str>, usize> = BTreeMap::new();
    let ranked = devices.into_iter().map(|device| {
        let before = match seen.get_mut(&device.hardware) {
            Some(count) => count,
            None => seen.entry(Arc::clone(&device.hardware)).or_default(),
        };
        *before += 1;
        (*before, device)
    });
    let mut ranked: Vec<_> = ranked.collect();
    // Stable: devices of one rank stay in the order of their names.
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, device)| device).collect()
}
