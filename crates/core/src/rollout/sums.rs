//! Sums over the devices that have measured enough, kept along as reports come.

use super::bounds::{distance, independent_share};
use super::gate::Gates;
use super::sample::{Pair, Pairs, Sample};
use crate::outputs::{Histogram, OutputStats};
use crate::rungs::{Clumping, Noise};

/// Logarithms are summed in units of 2^-32. Integers add up to the same in any order and can be
/// taken out again, so that a controller that was started anew reads what the one before read.
const UNIT: f64 = (1_u64 << 32) as f64;

fn fixed(x: f64) -> i128 {
    (x * UNIT).round() as i128
}

fn float(x: i128) -> f64 {
    x as f64 / UNIT
}

/// Everything that gates ask for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Sums {
    /// Changes of the 95th percentile of latency.
    pub(super) latency: Logs,
    /// Changes of the energy of an inference.
    pub(super) energy: Logs,
    /// Requests that fail.
    pub(super) errors: Rates,
    /// Deaths of runners.
    pub(super) traps: Rates,
    /// Outputs that are not finite.
    pub(super) nonfinite: Rates,
    /// Answers that are those before, to another input.
    pub(super) constant: Rates,
    /// How far the winning classes have moved.
    pub(super) classes: Shifts,
    /// How far confidence has moved.
    pub(super) confidence: Shifts,
    /// Answers in which both versions differ.
    pub(super) disagreement: Share,
}

/// Logarithms of the ratios after/before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Logs {
    /// Devices with the figure before and after.
    pub(super) devices: i128,
    /// Inferences after of these.
    pub(super) inferences: i128,
    /// Windows after of these.
    pub(super) windows: i128,
    sum: i128,
    squares: i128,
    noise_before: i128,
    noise_after: i128,
}

/// Rates before and after, each device against its own past: with the weights of Mantel and
/// Haenszel, `n m / (n + m)` for `n` tries before and `m` after, so that neither busy devices nor
/// those that failed before shift the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Rates {
    /// Devices with enough tries before and after.
    pub(super) devices: i128,
    /// Tries after of these.
    pub(super) tries: i128,
    weights: i128,
    before: i128,
    after: i128,
    over_before: i128,
    over_after: i128,
}

/// Distances of histograms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Shifts {
    /// Devices with enough answers before and after.
    pub(super) devices: i128,
    /// Answers after of these.
    pub(super) answers: i128,
    found: i128,
    bias: i128,
    inverse: i128,
    after: i128,
}

/// A share of what was compared after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Share {
    /// Devices that compared.
    pub(super) devices: i128,
    /// Answers compared.
    pub(super) tries: i128,
    /// Of these, those that count.
    pub(super) hits: i128,
}

impl Sums {
    /// Counts a device in (`sign` 1) or out (-1). Each rung is held against the same rung before.
    pub(super) fn count(&mut self, gates: &Gates, pairs: &Pairs, sign: i128) {
        let least = gates.min_inferences;
        let mut device = Self::default();
        let (mut latency, mut energy) = (Ratio::default(), Ratio::default());
        let (mut classes, mut confidence) = (Shift::default(), Shift::default());
        for Pair { before, after } in pairs.values() {
            device.disagreement.rung(&after.outputs);
            if before.inferences < least || after.inferences < least {
                continue;
            }
            device.rates(least, before, after);
            latency.rung(before, after, |s| {
                let p95 = s.latency_us_p95.map(|us| f64::from(us.max(1)));
                (p95, s.latency_noise)
            });
            energy.rung(before, after, |s| {
                let energy = s.energy_nj.map(|nj| nj.max(1) as f64);
                (energy, s.energy_noise)
            });
            let share = |s: &Sample| independent_share(&s.outputs.classes, s.outputs.turns);
            let (n, m) = (share(before), share(after));
            let (was, is) = (&before.outputs, &after.outputs);
            classes.rung(least, (&was.classes, n), (&is.classes, m));
            confidence.rung(least, (&was.confidence, n), (&is.confidence, m));
        }
        self.latency.device(&latency, sign);
        self.energy.device(&energy, sign);
        self.errors.device(&device.errors, sign);
        self.traps.device(&device.traps, sign);
        self.nonfinite.device(&device.nonfinite, sign);
        self.constant.device(&device.constant, sign);
        self.classes.device(&classes, sign);
        self.confidence.device(&confidence, sign);
        self.disagreement.device(&device.disagreement, sign);
    }

    /// Adds the rates of one rung of a device.
    fn rates(&mut self, least: u64, was: &Sample, is: &Sample) {
        // A request succeeds or fails; a death takes one with it.
        let failed = |s: &Sample, n: u64| (n, s.inferences.saturating_add(n));
        let of_outputs = |s: &Sample| (s.nonfinite.min(s.inferences), s.inferences);
        let repeated = |s: &Sample| (s.outputs.repeated, s.outputs.followed);
        let errors = |s: &Sample| failed(s, s.errors);
        let traps = |s: &Sample| failed(s, s.traps);
        let rate = |rates: &mut Rates, tries: &dyn Fn(&Sample) -> (u64, u64), of| {
            let (before, after) = (tries(was), tries(is));
            let clumping = ((was.clumping, before.0), (is.clumping, after.0));
            let clumps = Clumping::of_both(clumping.0, clumping.1, of);
            rates.rung(least, before, after, clumps);
        };
        rate(&mut self.errors, &errors, |c| c.errors_permille);
        rate(&mut self.traps, &traps, |c| c.traps_permille);
        rate(&mut self.nonfinite, &of_outputs, |c| c.nonfinite_permille);
        rate(&mut self.constant, &repeated, |c| c.repeated_permille);
    }
}

/// The ratio of one device: the mean over its rungs of the logarithms, each weighed by the windows
/// behind it, `n m / (n + m)` for `n` before and `m` after.
#[derive(Debug, Clone, Copy, Default)]
struct Ratio {
    weights: f64,
    sum: f64,
    noise: (f64, f64),
    inferences: u64,
    windows: u32,
}

impl Ratio {
    fn rung(&mut self, was: &Sample, is: &Sample, of: impl Fn(&Sample) -> (Option<f64>, Noise)) {
        let ((before, noise_before), (after, noise_after)) = (of(was), of(is));
        let Some((before, after)) = before.zip(after) else {
            return;
        };
        let windows = |noise: Noise| f64::from(noise.windows.max(1));
        let (n, m) = (windows(noise_before), windows(noise_after));
        let weight = n * m / (n + m);
        let noise = Noise::variances(noise_before, noise_after);
        self.weights += weight;
        self.sum += weight * (after / before).ln();
        self.noise.0 += weight * weight * noise.0;
        self.noise.1 += weight * weight * noise.1;
        self.inferences = self.inferences.saturating_add(is.inferences);
        self.windows = self.windows.saturating_add(noise_after.windows.max(1));
    }
}

impl Logs {
    fn device(&mut self, ratio: &Ratio, sign: i128) {
        if ratio.weights <= 0.0 {
            return;
        }
        // A ratio of two u64 has a logarithm below 45, so that squares of a million devices stay
        // below 2^96.
        let log = fixed(ratio.sum / ratio.weights);
        let squared = ratio.weights * ratio.weights;
        self.devices += sign;
        self.inferences += sign * i128::from(ratio.inferences);
        self.windows += sign * i128::from(ratio.windows);
        self.sum += sign * log;
        self.squares += sign * log * log;
        self.noise_before += sign * fixed(ratio.noise.0 / squared);
        self.noise_after += sign * fixed(ratio.noise.1 / squared);
    }

    /// Mean of the logarithms; 0 of none.
    pub(super) fn mean(&self) -> f64 {
        float(self.sum) / self.devices.max(1) as f64
    }

    /// Standard deviation over the devices; 0 of fewer than two.
    pub(super) fn spread(&self) -> f64 {
        let n = self.devices;
        // Exact: the difference of the two products loses nothing.
        let squares = n * self.squares - self.sum * self.sum;
        let of = (n * (n - 1)).max(1);
        (squares as f64 / of as f64).sqrt() / UNIT
    }

    /// What both sides add to the variance of the mean: together as much as the devices differ, but
    /// each at least as much as the devices' own windows do.
    pub(super) fn variances(&self) -> (f64, f64) {
        let n = self.devices.max(1) as f64;
        let (before, after) = (float(self.noise_before), float(self.noise_after));
        let (before, after) = (before / (n * n), after / (n * n));
        (before, after.max(self.spread().powi(2) / n - before))
    }
}

impl Rates {
    /// `clumps`: tries that an independent one stands for, before and after.
    fn rung(&mut self, least: u64, before: (u64, u64), after: (u64, u64), clumps: (f64, f64)) {
        if before.1 < least.max(1) || after.1 < least.max(1) {
            return;
        }
        let (n, m) = (before.1 as f64, after.1 as f64);
        let weight = n * m / (n + m);
        self.devices = 1;
        self.tries += i128::from(after.1);
        // A weight is below the tries of a device, so that no sum of a million comes near 2^127.
        self.weights += fixed(weight);
        self.before += fixed(weight * before.0 as f64 / n);
        self.after += fixed(weight * after.0 as f64 / m);
        self.over_before += fixed(weight * weight * clumps.0 / n);
        self.over_after += fixed(weight * weight * clumps.1 / m);
    }

    fn device(&mut self, of: &Self, sign: i128) {
        self.devices += sign * of.devices;
        self.tries += sign * of.tries;
        self.weights += sign * of.weights;
        self.before += sign * of.before;
        self.after += sign * of.after;
        self.over_before += sign * of.over_before;
        self.over_after += sign * of.over_after;
    }

    /// The rates before and after, each with the tries that a plain rate as uncertain would have
    /// (Kish, Survey Sampling, 1965): for one device, its own.
    pub(super) fn rates(&self) -> ((f64, f64), (f64, f64)) {
        let weights = float(self.weights);
        let of = |rate: i128, over: i128| match self.devices {
            0 => (0.0, 0.0),
            _ => (float(rate) / weights, weights * weights / float(over)),
        };
        (
            of(self.before, self.over_before),
            of(self.after, self.over_after),
        )
    }
}

/// Distances of one device: the mean over its rungs, each weighed by its answers after.
#[derive(Debug, Clone, Copy, Default)]
struct Shift {
    answers: u64,
    found: f64,
    bias: f64,
    inverse: f64,
    after: f64,
}

impl Shift {
    fn rung(&mut self, least: u64, before: (&Histogram, f64), after: (&Histogram, f64)) {
        if before.0.total() < least || after.0.total() < least {
            return;
        }
        if let Some(of) = distance(before, after) {
            let weight = after.0.total() as f64;
            self.answers = self.answers.saturating_add(after.0.total());
            self.found += weight * of.found;
            self.bias += weight * of.bias;
            self.inverse += weight * weight * of.inverse;
            self.after += of.after;
        }
    }
}

impl Shifts {
    fn device(&mut self, of: &Shift, sign: i128) {
        if of.answers == 0 {
            return;
        }
        let answers = of.answers as f64;
        self.devices += sign;
        self.answers += sign * i128::from(of.answers);
        self.found += sign * fixed(of.found / answers);
        self.bias += sign * fixed(of.bias / answers);
        self.inverse += sign * fixed(of.inverse / (answers * answers));
        self.after += sign * fixed(of.after);
    }

    /// Mean distance, by how much chance raises it on average at most, and a bound of its standard
    /// deviation.
    pub(super) fn mean(&self) -> (f64, f64, f64) {
        let n = self.devices.max(1) as f64;
        let deviation = float(self.inverse).sqrt() / 2.0 / n;
        (float(self.found) / n, float(self.bias) / n, deviation)
    }

    /// Independent answers after.
    pub(super) fn independent(&self) -> f64 {
        float(self.after)
    }
}

impl Share {
    fn rung(&mut self, outputs: &OutputStats) {
        let (tries, agreed) = (outputs.compared, outputs.agreed.min(outputs.compared));
        if tries > 0 {
            self.devices = 1;
            self.tries += i128::from(tries);
            self.hits += i128::from(tries - agreed);
        }
    }

    fn device(&mut self, of: &Self, sign: i128) {
        self.devices += sign * of.devices;
        self.tries += sign * of.tries;
        self.hits += sign * of.hits;
    }

    /// The share; 0 of nothing.
    pub(super) fn rate(&self) -> f64 {
        self.hits as f64 / self.tries.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn mean_and_spread_are_those_of_the_textbook(
            ratios in prop::collection::vec(1e-3..1e3_f64, 1..30),
        ) {
            let mut logs = Logs::default();
            for ratio in &ratios {
                let one = Ratio { weights: 0.5, sum: 0.5 * ratio.ln(), ..Ratio::default() };
                logs.device(&one, 1);
            }
            let n = ratios.len() as f64;
            let mean = ratios.iter().map(|r| r.ln()).sum::<f64>() / n;
            let squares = ratios.iter().map(|r| (r.ln() - mean).powi(2)).sum::<f64>();
            let spread = (squares / (n - 1.0).max(1.0)).sqrt();
            prop_assert!((logs.mean() - mean).abs() < 1e-8, "{} {mean}", logs.mean());
            prop_assert!((logs.spread() - spread).abs() < 1e-7, "{} {spread}", logs.spread());
        }
    }

    #[test]
    fn each_device_is_held_against_its_own_past() {
        // One that fails often was busy before and rests now, the other one the reverse: pooled, the
        // rate would fall from 5 % to 0.1 %, though on neither anything has changed.
        let mut rates = Rates::default();
        rates.rung(1, (5_000, 100_000), (5, 100), (1.0, 1.0));
        rates.rung(1, (0, 1_000), (0, 10_000), (1.0, 1.0));
        let (before, after) = rates.rates();
        assert!((before.0 - after.0).abs() < 1e-9, "{before:?} {after:?}");
        let mut one = Rates::default();
        one.rung(1, (5, 50), (1, 200), (1.0, 1.0));
        let ((was, n), (is, m)) = one.rates();
        let near = |a: f64, b: f64| (a - b).abs() < 1e-6 * b;
        assert!(near(was, 0.1) && near(n, 50.0) && near(is, 0.005) && near(m, 200.0));
    }
}
