//! Gates: every device that moved is compared with its own past.
//!
//! For latency and energy the logarithms of the devices' ratios after/before are averaged; their
//! mean is taken as normal, with the spread of the devices but at least [`LEAST_SPREAD`], which is
//! what a figure of one device is uncertain by. For errors and traps the rate of all devices after
//! is held against the rate before with the score bounds of Wilson (JASA 22, 1927), one-sided.
//! A gate **passes** when the bound of [`Z_PASS`] (95 %) is within the limit, **fails** when the
//! opposite bound of [`Z_FAIL`] (99 %, stricter because it is looked at after every report) is
//! beyond it, and is **inconclusive** otherwise, and with too few devices or inferences.

use super::measured::{Counts, Logs, Sums};
use crate::mutants::{self, Mutant};
use serde::{Deserialize, Serialize};

/// One-sided 95 % of a standard normal distribution.
pub const Z_PASS: f64 = 1.645;
/// One-sided 99 %.
pub const Z_FAIL: f64 = 2.326;
/// Standard deviation of the logarithm of one device's ratio that is always reckoned with: a
/// quantile of a sketch is off by up to 5 %.
pub const LEAST_SPREAD: f64 = 0.05;

/// Limits that a wave must keep before the next one begins. A missing limit does not limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gates {
    /// The 95th percentile of latency may rise by so many percent.
    pub latency_p95_percent: Option<u32>,
    /// Energy per inference may rise by so many percent.
    pub energy_percent: Option<u32>,
    /// Of a thousand requests so many more may fail.
    pub errors_permille: Option<u32>,
    /// In a million inferences a runner may die so many times more.
    pub traps_per_million: Option<u32>,
    /// Devices with figures from before and after that a verdict needs.
    pub min_devices: u32,
    /// Inferences under each version that a device needs to be one of them.
    pub min_inferences: u64,
}

impl Default for Gates {
    fn default() -> Self {
        Self {
            latency_p95_percent: None,
            energy_percent: None,
            errors_permille: None,
            traps_per_million: None,
            min_devices: 1,
            min_inferences: 20,
        }
    }
}

/// What a device measured under one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Sample {
    /// Inferences that succeeded.
    pub inferences: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Deaths of the runner.
    pub traps: u64,
    /// 95th percentile of latency in microseconds.
    pub latency_us_p95: Option<u32>,
    /// Mean energy of an inference in nanojoules.
    pub energy_nj: Option<u64>,
}

/// A device's figures under the version before and under the new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pair {
    /// Before.
    pub before: Sample,
    /// After.
    pub after: Sample,
}

/// What a gate looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// 95th percentile of latency.
    LatencyP95,
    /// Energy per inference.
    Energy,
    /// Share of requests that fail.
    Errors,
    /// Deaths of runners per inference.
    Traps,
}

/// What a gate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The limit is kept.
    Pass,
    /// Nothing can be said yet.
    Inconclusive,
    /// The limit is exceeded.
    Fail,
}

/// A gate with the figures of its verdict. Changes are in percent of the figure before; of errors
/// and traps in points of the rate, in the unit of the limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// What was looked at.
    pub metric: Metric,
    /// What came of it.
    pub verdict: Verdict,
    /// Change as measured.
    pub change: f64,
    /// Lower bound at 99 %.
    pub low: f64,
    /// Upper bound at 95 %.
    pub high: f64,
    /// The limit.
    pub limit: f64,
    /// Devices behind it.
    pub devices: usize,
    /// Inferences behind it under the new version.
    pub inferences: u64,
}

impl std::fmt::Display for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (what, unit) = match self.metric {
            Metric::LatencyP95 => ("p95 latency", "%"),
            Metric::Energy => ("energy per inference", "%"),
            Metric::Errors => ("errors", " per thousand"),
            Metric::Traps => ("traps", " per million"),
        };
        let verdict = match self.verdict {
            Verdict::Pass => "pass",
            Verdict::Inconclusive => "inconclusive",
            Verdict::Fail => "fail",
        };
        let Self {
            change,
            low,
            high,
            limit,
            devices,
            inferences,
            ..
        } = self;
        match *devices {
            0 => write!(
                f,
                "{what}: {verdict}, no device was measured before and after"
            ),
            _ => write!(
                f,
                "{what}: {verdict}, {change:+.1}{unit} ({low:+.1} to {high:+.1}), limit {limit:+.1}, \
                 {devices} devices, {inferences} inferences"
            ),
        }
    }
}

impl Gates {
    /// What every gate says of all these devices together.
    pub(super) fn read(&self, sums: &Sums) -> Vec<Reading> {
        let ratio = |metric, percent: Option<u32>, logs: &Logs| {
            let percent = f64::from(percent?);
            Some(self.ratio(metric, percent, logs))
        };
        let rate = |metric, limit: Option<u32>, unit, of: fn(&Counts) -> i128| {
            let limit = f64::from(limit?);
            Some(self.rate(metric, limit, unit, sums, of))
        };
        [
            ratio(Metric::LatencyP95, self.latency_p95_percent, &sums.latency),
            ratio(Metric::Energy, self.energy_percent, &sums.energy),
            rate(Metric::Errors, self.errors_permille, 1e3, |c| c.errors),
            rate(Metric::Traps, self.traps_per_million, 1e6, |c| c.traps),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn verdict(&self, devices: usize, low: f64, high: f64, limit: f64) -> Verdict {
        let enough = devices >= self.min_devices.max(1) as usize;
        if mutants::is(Mutant::GatesPass) || enough && high <= limit {
            Verdict::Pass
        } else if enough && low > limit {
            Verdict::Fail
        } else {
            Verdict::Inconclusive
        }
    }

    fn ratio(&self, metric: Metric, limit: f64, logs: &Logs) -> Reading {
        let mean = logs.mean();
        let devices = usize::try_from(logs.devices).unwrap_or(0);
        let error = logs.spread().max(LEAST_SPREAD) / (devices.max(1) as f64).sqrt();
        let percent = |log: f64| (log.exp() - 1.0) * 100.0;
        let (low, high) = (
            percent(mean - Z_FAIL * error),
            percent(mean + Z_PASS * error),
        );
        Reading {
            metric,
            verdict: self.verdict(devices, low, high, limit),
            change: percent(mean),
            low,
            high,
            limit,
            devices,
            inferences: u64::try_from(logs.inferences).unwrap_or(u64::MAX),
        }
    }

    fn rate(
        &self,
        metric: Metric,
        limit: f64,
        unit: f64,
        sums: &Sums,
        of: fn(&Counts) -> i128,
    ) -> Reading {
        // A request succeeds or fails; a death takes one with it.
        let tries = |c: &Counts| (c.inferences + of(c)) as f64;
        let (before, after) = (tries(&sums.before), tries(&sums.after));
        let was = of(&sums.before) as f64 / before.max(1.0);
        let is = of(&sums.after) as f64 / after.max(1.0);
        let (low, _) = wilson(is, after, Z_FAIL);
        let (_, high) = wilson(is, after, Z_PASS);
        let points = |rate: f64| (rate - was) * unit;
        let (low, high) = (points(low), points(high));
        let devices = usize::try_from(sums.devices).unwrap_or(0);
        Reading {
            metric,
            verdict: self.verdict(devices, low, high, limit),
            change: points(is),
            low,
            high,
            limit,
            devices,
            inferences: u64::try_from(sums.after.inferences).unwrap_or(u64::MAX),
        }
    }
}

/// Score bounds of a rate that was seen in so many tries.
fn wilson(rate: f64, tries: f64, z: f64) -> (f64, f64) {
    if tries <= 0.0 {
        return (0.0, 1.0);
    }
    let z2 = z * z / tries;
    let middle = rate + z2 / 2.0;
    let half = z * (rate * (1.0 - rate) / tries + z2 / (4.0 * tries)).sqrt();
    let bound = |x: f64| (x / (1.0 + z2)).clamp(0.0, 1.0);
    (bound(middle - half), bound(middle + half))
}

/// What all gates together say: the worst of them.
pub(super) fn overall(readings: &[Reading]) -> Verdict {
    let worst = readings.iter().map(|r| r.verdict).max();
    worst.unwrap_or(Verdict::Pass)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(latency: (u32, u32), energy: (u64, u64), traps: u64) -> Pair {
        let sample = |us, nj, traps| Sample {
            inferences: 1_000,
            errors: 0,
            traps,
            latency_us_p95: Some(us),
            energy_nj: Some(nj),
        };
        Pair {
            before: sample(latency.0, energy.0, 0),
            after: sample(latency.1, energy.1, traps),
        }
    }

    fn gates() -> Gates {
        Gates {
            latency_p95_percent: Some(10),
            energy_percent: Some(10),
            traps_per_million: Some(1_000),
            ..Gates::default()
        }
    }

    fn read(gates: &Gates, pairs: &[Pair]) -> Vec<Reading> {
        let mut sums = Sums::default();
        pairs.iter().for_each(|pair| sums.count(gates, pair, 1));
        gates.read(&sums)
    }

    fn verdicts(pairs: &[Pair]) -> Vec<Verdict> {
        read(&gates(), pairs).iter().map(|r| r.verdict).collect()
    }

    #[test]
    fn one_canary_is_enough_for_a_clear_case() {
        use Verdict::{Fail, Inconclusive, Pass};
        let same = pair((1_000, 1_000), (500, 500), 0);
        assert_eq!(verdicts(&[same])[..2], [Pass, Pass]);
        let slow = pair((1_000, 1_300), (500, 500), 0);
        assert_eq!(verdicts(&[slow])[..2], [Fail, Pass]);
        let hungry = pair((1_000, 1_000), (500, 650), 0);
        assert_eq!(verdicts(&[hungry])[..2], [Pass, Fail]);
        // A thousand inferences without a death do not prove that one in a thousand is rare.
        assert_eq!(verdicts(&[same])[2], Inconclusive);
        assert_eq!(verdicts(&[same; 5])[2], Pass);
        let dies = pair((1_000, 1_000), (500, 500), 12);
        assert_eq!(verdicts(&[dies])[2], Fail);
    }

    #[test]
    fn too_little_data_is_inconclusive() {
        let mut few = pair((1_000, 3_000), (500, 500), 0);
        few.after.inferences = 19;
        let readings = read(&gates(), &[few]);
        assert_eq!(overall(&readings), Verdict::Inconclusive);
        assert!(
            readings[0].to_string().contains("no device"),
            "{}",
            readings[0]
        );
        assert_eq!(overall(&read(&gates(), &[])), Verdict::Inconclusive);
        let none = read(&Gates::default(), &[few]);
        assert_eq!((none.len(), overall(&none)), (0, Verdict::Pass));
    }

    #[test]
    fn devices_that_disagree_are_inconclusive() {
        let pairs = [
            pair((1_000, 1_600), (5, 5), 0),
            pair((1_000, 800), (5, 5), 0),
        ];
        assert_eq!(verdicts(&pairs)[0], Verdict::Inconclusive);
    }

    #[test]
    fn wilson_is_right_at_known_points() {
        // 10 of 100 at 95 % two-sided, z = 1.96: 0.0552 to 0.1744.
        let (low, high) = wilson(0.1, 100.0, 1.96);
        assert!((low - 0.0552).abs() < 1e-4 && (high - 0.1744).abs() < 1e-4);
        assert_eq!(wilson(0.0, 0.0, 1.96), (0.0, 1.0));
    }
}
