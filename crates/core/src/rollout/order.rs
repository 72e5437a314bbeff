//! Who moves first: a fault that comes from the hardware shall show in the first wave, not in the
//! wave in which that hardware's turn comes by its name.

use super::plan::PlannedDevice;
use super::spec::{MAX_WAVES, WaveSize};
use crate::policy::{Labels, Selector};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Cuts devices, which come in the order of their names, into waves: the first of every class of
/// hardware before the second of any. Within a wave they stand in the order of their names.
///
/// Percentages round up, so that the first wave of a small fleet is never empty.
///
/// # Errors
/// The selector of a wave that matches no device that is left: mistyped, it would leave out just
/// those that were to move first.
pub(super) fn into_waves(
    devices: Vec<Chosen>,
    sizes: &[WaveSize],
) -> Result<Vec<Vec<PlannedDevice>>, Selector> {
    let total = devices.len();
    let mut rest = VecDeque::from(by_risk(devices));
    let mut waves = Vec::new();
    for (index, size) in sizes.iter().enumerate() {
        let moved = total - rest.len();
        match size {
            WaveSize::Percent(p) => {
                let upto = (total * usize::from(*p)).div_ceil(100);
                waves.push(take(&mut rest, upto.saturating_sub(moved)));
            }
            WaveSize::Count(n) => waves.push(take(&mut rest, *n as usize)),
            WaveSize::Double(first) => {
                // A request without a first is refused before.
                let mut next = (*first).max(1) as usize;
                while !rest.is_empty() {
                    waves.push(take(&mut rest, next));
                    next = next.saturating_mul(2);
                }
            }
            WaveSize::Selector(selector) => {
                let (these, others): (Vec<Chosen>, _) =
                    rest.into_iter().partition(|c| c.waves & 1 << index > 0);
                if these.is_empty() {
                    return Err(selector.clone());
                }
                rest = others.into();
                waves.push(these.into_iter().map(|c| c.planned).collect());
            }
        }
    }
    waves.push(rest.into_iter().map(|c| c.planned).collect());
    waves.retain(|w| !w.is_empty());
    for wave in &mut waves {
        wave.sort_by(|a, b| a.device.cmp(&b.device));
    }
    Ok(waves)
}

fn take(rest: &mut VecDeque<Chosen>, count: usize) -> Vec<PlannedDevice> {
    let count = count.min(rest.len());
    rest.drain(..count).map(|chosen| chosen.planned).collect()
}

/// A device that fits, with the waves whose selectors match its labels, a bit for each.
pub(super) struct Chosen {
    pub(super) planned: PlannedDevice,
    pub(super) waves: u64,
}

/// The waves whose selectors match these labels. At most [`MAX_WAVES`] are looked at, since a
/// request of more is refused.
pub(super) fn selected_by(sizes: &[WaveSize], labels: &Labels) -> u64 {
    let matching = sizes.iter().take(MAX_WAVES).enumerate();
    matching.fold(0, |all, (index, size)| match size {
        WaveSize::Selector(selector) if selector.matches(labels) => all | 1 << index,
        WaveSize::Selector(_) | WaveSize::Percent(_) | WaveSize::Count(_) | WaveSize::Double(_) => {
            all
        }
    })
}

/// By how many devices of the same class come before by name.
fn by_risk(devices: Vec<Chosen>) -> Vec<Chosen> {
    let mut seen: BTreeMap<Arc<str>, usize> = BTreeMap::new();
    let ranked = devices.into_iter().map(|device| {
        let hardware = &device.planned.hardware;
        let before = match seen.get_mut(hardware) {
            Some(count) => count,
            None => seen.entry(Arc::clone(hardware)).or_default(),
        };
        *before += 1;
        (*before, device)
    });
    let mut ranked: Vec<_> = ranked.collect();
    // Stable: devices of one rank stay in the order of their names.
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, device)| device).collect()
}
