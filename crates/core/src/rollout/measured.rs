//! What devices of a rollout measured, summed up as it comes, so that asking the gates takes the
//! same time for ten devices and for a million.

use super::gate::Gates;
use super::sample::Pairs;
use super::sums::Sums;
use crate::names::DeviceName;
use std::collections::BTreeMap;

/// What every device that has moved measured before and after.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    gates: Option<Gates>,
    pairs: BTreeMap<DeviceName, Pairs>,
    sums: Sums,
}

impl Measured {
    /// Nothing measured yet, for these gates.
    pub(super) fn new(gates: Option<Gates>) -> Self {
        Self {
            gates,
            pairs: BTreeMap::new(),
            sums: Sums::default(),
        }
    }

    /// What was measured for these gates.
    pub fn restored(gates: Option<Gates>, pairs: BTreeMap<DeviceName, Pairs>) -> Self {
        let mut all = Self::new(gates);
        for (device, pairs) in pairs {
            all.insert(&device, pairs);
        }
        all
    }

    /// Takes the newest figures of a device; `false` when they are those that were there.
    pub(super) fn insert(&mut self, device: &DeviceName, pairs: Pairs) -> bool {
        if self.pairs.get(device) == Some(&pairs) {
            return false;
        }
        if let Some(gates) = &self.gates {
            if let Some(old) = self.pairs.get(device) {
                self.sums.count(gates, old, -1);
            }
            self.sums.count(gates, &pairs, 1);
        }
        self.pairs.insert(device.clone(), pairs);
        true
    }

    /// What a device measured.
    pub fn get(&self, device: &DeviceName) -> Option<&Pairs> {
        self.pairs.get(device)
    }

    /// Devices that have measured, by name.
    pub fn devices(&self) -> impl Iterator<Item = &DeviceName> {
        self.pairs.keys()
    }

    /// How many have measured.
    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// All of it together.
    pub(super) fn sums(&self) -> &Sums {
        &self.sums
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::sample::{Pair, Sample};
    use super::*;
    use crate::outputs::{Histogram, OutputStats};
    use crate::profile::PowerState;
    use crate::rungs::{Clumping, Noise};
    use proptest::prelude::*;

    fn outputs() -> impl Strategy<Value = OutputStats> {
        let classes = prop::collection::vec(0_usize..40, 0..60);
        (classes, 0..60_u64, 0..50_u64).prop_map(|(classes, turns, compared)| {
            let mut histogram = Histogram::default();
            classes.iter().for_each(|class| histogram.record(*class));
            OutputStats {
                followed: 2 * compared,
                repeated: compared,
                turns,
                confidence: histogram.clone(),
                classes: histogram,
                compared,
                agreed: compared / 2,
            }
        })
    }

    fn pairs() -> impl Strategy<Value = Pairs> {
        let sample = (
            0..200_u64,
            (0..9_u64, 0..3_u64, 0..5_u64),
            prop::option::of(any::<u32>()),
            prop::option::of(any::<u64>()),
            (0..30_u32, 0..400_000_u32),
            outputs(),
        );
        let sample = sample.prop_map(
            |(
                inferences,
                (errors, traps, nonfinite),
                latency_us_p95,
                energy_nj,
                noise,
                outputs,
            )| {
                let noise = Noise {
                    windows: noise.0,
                    spread_ppm: noise.1,
                };
                Sample {
                    inferences,
                    errors,
                    traps,
                    nonfinite,
                    latency_us_p95,
                    latency_noise: noise,
                    energy_nj,
                    energy_noise: noise,
                    clumping: Clumping::default(),
                    outputs,
                }
            },
        );
        let state =
            prop::sample::select(vec![PowerState::Mains, PowerState::High, PowerState::Low]);
        let pair = prop::array::uniform2(sample).prop_map(|[before, after]| Pair { before, after });
        prop::collection::btree_map(state, pair, 1..4)
    }

    proptest! {
        #[test]
        fn the_sums_are_those_of_the_newest_figures(
            reports in prop::collection::vec((0_usize..6, pairs()), 0..40),
        ) {
            let gates = Gates::default();
            let mut kept = Measured::new(Some(gates.clone()));
            for (device, pairs) in &reports {
                let name = DeviceName::new(format!("pi-{device}")).unwrap();
                kept.insert(&name, pairs.clone());
            }
            let mut walked = Sums::default();
            for device in kept.devices() {
                walked.count(&gates, kept.get(device).unwrap(), 1);
            }
            prop_assert_eq!(&walked, kept.sums());
        }
    }
}
