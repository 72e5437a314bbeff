//! What devices of a rollout measured, summed up as it comes, so that asking the gates takes the
//! same time for ten devices and for a million.

use super::gate::{Gates, Pair, Sample};
use crate::names::DeviceName;
use std::collections::BTreeMap;

/// Logarithms are summed in units of 2^-32. Integers add up to the same in any order and can be
/// taken out again, so that a controller that was started anew reads what the one before read.
const UNIT: f64 = (1_u64 << 32) as f64;

/// What every device that has moved measured before and after.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    gates: Option<Gates>,
    pairs: BTreeMap<DeviceName, Pair>,
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
    pub fn restored(gates: Option<Gates>, pairs: BTreeMap<DeviceName, Pair>) -> Self {
        let mut all = Self::new(gates);
        for (device, pair) in pairs {
            all.insert(&device, pair);
        }
        all
    }

    /// Takes the newest figures of a device; `false` when they are those that were there.
    pub(super) fn insert(&mut self, device: &DeviceName, pair: Pair) -> bool {
        let old = self.pairs.insert(device.clone(), pair);
        if let Some(gates) = &self.gates {
            old.inspect(|old| self.sums.count(gates, old, -1));
            self.sums.count(gates, &pair, 1);
        }
        old != Some(pair)
    }

    /// What a device measured.
    pub fn get(&self, device: &DeviceName) -> Option<&Pair> {
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

/// Sums over the devices with enough inferences before and after.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Sums {
    /// Such devices.
    pub(super) devices: i128,
    /// Their counts before.
    pub(super) before: Counts,
    /// And after.
    pub(super) after: Counts,
    /// Changes of the 95th percentile of latency.
    pub(super) latency: Logs,
    /// Changes of the energy of an inference.
    pub(super) energy: Logs,
}

/// Counts of all devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    pub(super) inferences: i128,
    pub(super) errors: i128,
    pub(super) traps: i128,
}

/// Logarithms of the ratios after/before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Logs {
    /// Devices with the figure before and after.
    pub(super) devices: i128,
    /// Inferences after of these.
    pub(super) inferences: i128,
    sum: i128,
    squares: i128,
}

impl Sums {
    /// Counts a device in (`sign` 1) or out (-1).
    pub(super) fn count(&mut self, gates: &Gates, pair: &Pair, sign: i128) {
        let least = gates.min_inferences;
        if pair.before.inferences < least || pair.after.inferences < least {
            return;
        }
        self.devices += sign;
        self.before.count(&pair.before, sign);
        self.after.count(&pair.after, sign);
        let after = i128::from(pair.after.inferences);
        let latency = |s: &Sample| s.latency_us_p95.map(|us| f64::from(us.max(1)));
        let energy = |s: &Sample| s.energy_nj.map(|nj| nj.max(1) as f64);
        let ratio =
            |of: &dyn Fn(&Sample) -> Option<f64>| Some(of(&pair.after)? / of(&pair.before)?);
        self.latency.count(ratio(&latency), after, sign);
        self.energy.count(ratio(&energy), after, sign);
    }
}

impl Counts {
    fn count(&mut self, sample: &Sample, sign: i128) {
        self.inferences += sign * i128::from(sample.inferences);
        self.errors += sign * i128::from(sample.errors);
        self.traps += sign * i128::from(sample.traps);
    }
}

impl Logs {
    fn count(&mut self, ratio: Option<f64>, inferences: i128, sign: i128) {
        let Some(ratio) = ratio else { return };
        // A ratio of two u64 has a logarithm below 45, so that squares of a million devices stay
        // below 2^96.
        let log = (ratio.ln() * UNIT).round() as i128;
        self.devices += sign;
        self.inferences += sign * inferences;
        self.sum += sign * log;
        self.squares += sign * log * log;
    }

    /// Mean of the logarithms; 0 of none.
    pub(super) fn mean(&self) -> f64 {
        self.sum as f64 / self.devices.max(1) as f64 / UNIT
    }

    /// Standard deviation over the devices; 0 of fewer than two.
    pub(super) fn spread(&self) -> f64 {
        let n = self.devices;
        // Exact: the difference of the two products loses nothing.
        let squares = n * self.squares - self.sum * self.sum;
        let of = (n * (n - 1)).max(1);
        (squares as f64 / of as f64).sqrt() / UNIT
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pair() -> impl Strategy<Value = Pair> {
        let sample = (
            0..200_u64,
            0..9_u64,
            0..3_u64,
            prop::option::of(any::<u32>()),
            prop::option::of(any::<u64>()),
        );
        let sample =
            sample.prop_map(
                |(inferences, errors, traps, latency_us_p95, energy_nj)| Sample {
                    inferences,
                    errors,
                    traps,
                    latency_us_p95,
                    energy_nj,
                },
            );
        (sample.clone(), sample).prop_map(|(before, after)| Pair { before, after })
    }

    proptest! {
        #[test]
        fn the_sums_are_those_of_the_newest_figures(
            reports in prop::collection::vec((0_usize..6, pair()), 0..40),
        ) {
            let gates = Gates::default();
            let mut kept = Measured::new(Some(gates.clone()));
            for (device, pair) in &reports {
                kept.insert(&DeviceName::new(format!("pi-{device}")).unwrap(), *pair);
            }
            let mut walked = Sums::default();
            for device in kept.devices() {
                walked.count(&gates, kept.get(device).unwrap(), 1);
            }
            prop_assert_eq!(&walked, kept.sums());
        }

        #[test]
        fn mean_and_spread_are_those_of_the_textbook(
            ratios in prop::collection::vec(1e-3..1e3_f64, 1..30),
        ) {
            let mut logs = Logs::default();
            ratios.iter().for_each(|r| logs.count(Some(*r), 1, 1));
            let n = ratios.len() as f64;
            let mean = ratios.iter().map(|r| r.ln()).sum::<f64>() / n;
            let squares = ratios.iter().map(|r| (r.ln() - mean).powi(2)).sum::<f64>();
            let spread = (squares / (n - 1.0).max(1.0)).sqrt();
            prop_assert!((logs.mean() - mean).abs() < 1e-8, "{} {mean}", logs.mean());
            prop_assert!((logs.spread() - spread).abs() < 1e-7, "{} {spread}", logs.spread());
        }
    }
}
