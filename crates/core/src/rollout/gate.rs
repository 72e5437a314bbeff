//! Gates: every device that moved is compared with its own past.
//!
//! | metric | what is estimated | its bounds |
//! |---|---|---|
//! | latency, energy | mean over devices of the logarithm of after/before | normal, with the spread of the devices, but at least that of each device's windows, and [`LEAST_SPREAD`] of each device on top |
//! | errors, traps, NaN, constant answers | rise of the rate, each device weighed against its own past | bounds of both rates together (Newcombe) |
//! | classes, confidence | mean over devices of the total variation distance of the histograms before and after | less what chance raises it by; McDiarmid's variance |
//! | disagreement | share of compared answers in which both versions differ | Wilson's above, Chernoff's below |
//!
//! A gate **passes** when its upper bound of 95 % is within the limit, **fails** when its lower
//! bound, which holds with 99 % at all looks together ([`at_every_look`]), is beyond it, and is
//! **inconclusive** otherwise, and with too few devices or inferences.

use super::bounds::{Z_FAIL, Z_PASS, at_every_look, chernoff_low, rise, wilson};
use super::sums::{Logs, Rates, Share, Shifts, Sums};
use crate::mutants::{self, Mutant};
use serde::{Deserialize, Serialize};

/// Standard deviation of the logarithm of one device's ratio that is always reckoned with: a
/// quantile of a sketch is off by up to 5 %.
pub const LEAST_SPREAD: f64 = 0.05;

/// Of a thousand outputs so many more may hold NaN or infinity unless something else is said.
const NONFINITE_PERMILLE: u32 = 50;
/// Of a thousand answers so many more may repeat the one before unless something else is said.
const CONSTANT_PERMILLE: u32 = 500;

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
    /// Of a thousand outputs so many more may hold NaN or infinity.
    pub nonfinite_permille: Option<u32>,
    /// Of a thousand answers to a new input so many more may be those to the input before.
    pub constant_permille: Option<u32>,
    /// So many percent of the answers may win another class than before.
    pub classes_percent: Option<u32>,
    /// The confidence of so many percent of the answers may be another one than before.
    pub confidence_percent: Option<u32>,
    /// In so many percent of the answers the version before may have another one to the same
    /// input. Needs devices that can run both side by side.
    pub disagreement_percent: Option<u32>,
    /// Devices with figures from before and after that a verdict needs.
    pub min_devices: u32,
    /// Inferences under each version that a device needs to be one of them.
    pub min_inferences: u64,
}

impl Default for Gates {
    /// Gates always ask for what no version may do, whatever else they ask for.
    fn default() -> Self {
        Self {
            latency_p95_percent: None,
            energy_percent: None,
            errors_permille: None,
            traps_per_million: None,
            nonfinite_permille: Some(NONFINITE_PERMILLE),
            constant_permille: Some(CONSTANT_PERMILLE),
            classes_percent: None,
            confidence_percent: None,
            disagreement_percent: None,
            min_devices: 1,
            min_inferences: 20,
        }
    }
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
    /// Share of outputs with a NaN or infinity.
    Nonfinite,
    /// Share of answers that do not depend on the input.
    Constant,
    /// Distance of the distributions of the winning class.
    Classes,
    /// Distance of the distributions of confidence.
    Confidence,
    /// Share of answers that differ from those of the version before.
    Disagreement,
}

impl Metric {
    /// What is looked at, and the unit of change and limit.
    pub fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::LatencyP95 => ("p95 latency", "%"),
            Self::Energy => ("energy per inference", "%"),
            Self::Errors => ("errors", " per thousand"),
            Self::Traps => ("traps", " per million"),
            Self::Nonfinite => ("NaN or infinite outputs", " per thousand"),
            Self::Constant => ("constant outputs", " per thousand"),
            Self::Classes => ("shift of classes", "%"),
            Self::Confidence => ("shift of confidence", "%"),
            Self::Disagreement => ("disagreement", "%"),
        }
    }
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

/// A gate with the figures of its verdict. Changes of latency and energy are in percent of the
/// figure before; those of rates in points, in the unit of the limit; shifts and disagreement in
/// percent of the answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// What was looked at.
    pub metric: Metric,
    /// What came of it.
    pub verdict: Verdict,
    /// Change as measured.
    pub change: f64,
    /// Lower bound: at 99 %, at all looks together.
    pub low: f64,
    /// Upper bound at 95 %.
    pub high: f64,
    /// The limit.
    pub limit: f64,
    /// Devices behind it.
    pub devices: usize,
    /// Inferences behind it under the new version; of disagreement those that were compared.
    pub inferences: u64,
}

impl std::fmt::Display for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (what, unit) = self.metric.words();
        let verdict = match self.verdict {
            Verdict::Pass => "pass",
            Verdict::Inconclusive => "inconclusive",
            Verdict::Fail => "fail",
        };
        let (nobody, counted) = match self.metric {
            Metric::Disagreement => ("could run both versions side by side", "compared"),
            _ => ("was measured before and after", "inferences"),
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
            0 => write!(f, "{what}: {verdict}, no device {nobody}"),
            _ => write!(
                f,
                "{what}: {verdict}, {change:+.1}{unit} ({low:+.1} to {high:+.1}), limit {limit:+.1}, \
                 {devices} devices, {inferences} {counted}"
            ),
        }
    }
}

/// What was found, before the limit is asked.
struct Found {
    change: f64,
    low: f64,
    high: f64,
    devices: i128,
    inferences: i128,
}

impl Gates {
    /// The limits, by what they limit.
    fn limits(&self) -> [(Metric, Option<u32>); 9] {
        [
            (Metric::LatencyP95, self.latency_p95_percent),
            (Metric::Energy, self.energy_percent),
            (Metric::Errors, self.errors_permille),
            (Metric::Traps, self.traps_per_million),
            (Metric::Nonfinite, self.nonfinite_permille),
            (Metric::Constant, self.constant_permille),
            (Metric::Classes, self.classes_percent),
            (Metric::Confidence, self.confidence_percent),
            (Metric::Disagreement, self.disagreement_percent),
        ]
    }

    /// What every gate says of all these devices together.
    pub(super) fn read(&self, sums: &Sums) -> Vec<Reading> {
        let limits = self.limits().into_iter();
        let readings = limits.filter_map(|(metric, limit)| {
            let limit = f64::from(limit?);
            let found = match metric {
                Metric::LatencyP95 => self.ratio(&sums.latency),
                Metric::Energy => self.ratio(&sums.energy),
                Metric::Errors => self.rate(1e3, &sums.errors),
                Metric::Traps => self.rate(1e6, &sums.traps),
                Metric::Nonfinite => self.rate(1e3, &sums.nonfinite),
                Metric::Constant => self.rate(1e3, &sums.constant),
                Metric::Classes => self.shift(&sums.classes),
                Metric::Confidence => self.shift(&sums.confidence),
                Metric::Disagreement => self.share(&sums.disagreement),
            };
            Some(self.judge(metric, limit, &found))
        });
        readings.collect()
    }

    fn judge(&self, metric: Metric, limit: f64, found: &Found) -> Reading {
        let devices = usize::try_from(found.devices).unwrap_or(0);
        let inferences = u64::try_from(found.inferences).unwrap_or(u64::MAX);
        let enough =
            devices >= self.min_devices.max(1) as usize && inferences >= self.min_inferences.max(1);
        let verdict = if mutants::is(Mutant::GatesPass) || enough && found.high <= limit {
            Verdict::Pass
        } else if enough && found.low > limit {
            Verdict::Fail
        } else {
            Verdict::Inconclusive
        };
        Reading {
            metric,
            verdict,
            change: found.change,
            low: found.low,
            high: found.high,
            limit,
            devices,
            inferences,
        }
    }

    fn ratio(&self, logs: &Logs) -> Found {
        let (mean, devices) = (logs.mean(), logs.devices.max(1) as f64);
        let z = at_every_look(logs.windows as f64, f64::from(self.min_devices));
        // What a sketch is off by, and what was before, is the same at every look.
        let (before, after) = logs.variances();
        let (fixed, moving) = (LEAST_SPREAD.powi(2) / devices + before, after);
        let percent = |log: f64| (log.exp() - 1.0) * 100.0;
        Found {
            change: percent(mean),
            low: percent(mean - (Z_FAIL * Z_FAIL * fixed + z * z * moving).sqrt()),
            high: percent(mean + Z_PASS * (fixed + moving).sqrt()),
            devices: logs.devices,
            inferences: logs.inferences,
        }
    }

    fn rate(&self, unit: f64, rates: &Rates) -> Found {
        let (before, after) = rates.rates();
        let (low, high) = rise(before, after, at_every_look(after.1, self.first()));
        Found {
            change: (after.0 - before.0) * unit,
            low: low * unit,
            high: high * unit,
            devices: rates.devices,
            inferences: rates.tries,
        }
    }

    fn shift(&self, shifts: &Shifts) -> Found {
        let (found, bias, deviation) = shifts.mean();
        let z = at_every_look(shifts.independent(), self.first());
        Found {
            change: found * 100.0,
            low: (found - bias - z * deviation).max(0.0) * 100.0,
            high: (found + Z_PASS * deviation).min(1.0) * 100.0,
            devices: shifts.devices,
            inferences: shifts.answers,
        }
    }

    fn share(&self, share: &Share) -> Found {
        let (rate, tries) = (share.rate(), share.tries as f64);
        let low = chernoff_low(rate, tries, at_every_look(tries, self.first()));
        let (_, high) = wilson(rate, tries, Z_PASS);
        Found {
            change: rate * 100.0,
            low: low * 100.0,
            high: high * 100.0,
            devices: share.devices,
            inferences: share.tries,
        }
    }

    /// What a rate has behind it at the first look.
    fn first(&self) -> f64 {
        self.min_inferences.max(1) as f64
    }
}

/// What all gates together say: the worst of them.
pub(super) fn overall(readings: &[Reading]) -> Verdict {
    let worst = readings.iter().map(|r| r.verdict).max();
    worst.unwrap_or(Verdict::Pass)
}

#[cfg(test)]
mod tests {
    use super::super::sample::{Pair, Pairs, Sample};
    use super::*;
    use crate::outputs::{Histogram, OutputStats};
    use crate::profile::PowerState;
    use crate::rungs::Noise;

    fn pair(latency: (u32, u32), energy: (u64, u64), traps: u64) -> Pair {
        let noise = Noise {
            windows: 10,
            spread_ppm: 20_000,
        };
        let sample = |us, nj, traps| Sample {
            inferences: 1_000,
            traps,
            latency_us_p95: Some(us),
            latency_noise: noise,
            energy_nj: Some(nj),
            energy_noise: noise,
            ..Sample::default()
        };
        Pair {
            before: sample(latency.0, energy.0, 0),
            after: sample(latency.1, energy.1, traps),
        }
    }

    fn none() -> Gates {
        Gates {
            nonfinite_permille: None,
            constant_permille: None,
            ..Gates::default()
        }
    }

    fn gates() -> Gates {
        Gates {
            latency_p95_percent: Some(10),
            energy_percent: Some(10),
            traps_per_million: Some(1_000),
            ..none()
        }
    }

    fn read(gates: &Gates, pairs: &[Pair]) -> Vec<Reading> {
        let mut sums = Sums::default();
        for pair in pairs {
            sums.count(gates, &[(PowerState::Mains, pair.clone())].into(), 1);
        }
        gates.read(&sums)
    }

    fn verdicts(pairs: &[Pair]) -> Vec<Verdict> {
        read(&gates(), pairs).iter().map(|r| r.verdict).collect()
    }

    #[test]
    fn one_canary_is_enough_for_a_clear_case() {
        use Verdict::{Fail, Inconclusive, Pass};
        let same = pair((1_000, 1_000), (500, 500), 0);
        assert_eq!(verdicts(std::slice::from_ref(&same))[..2], [Pass, Pass]);
        let slow = pair((1_000, 1_300), (500, 500), 0);
        assert_eq!(verdicts(&[slow])[..2], [Fail, Pass]);
        let hungry = pair((1_000, 1_000), (500, 650), 0);
        assert_eq!(verdicts(&[hungry])[..2], [Pass, Fail]);
        // A thousand inferences without a death do not prove that one in a thousand is rare.
        assert_eq!(verdicts(std::slice::from_ref(&same))[2], Inconclusive);
        assert_eq!(verdicts(&vec![same; 5])[2], Pass);
        let dies = pair((1_000, 1_000), (500, 500), 12);
        assert_eq!(verdicts(&[dies])[2], Fail);
    }

    #[test]
    fn too_little_data_is_inconclusive() {
        let mut few = pair((1_000, 3_000), (500, 500), 0);
        few.after.inferences = 19;
        let readings = read(&gates(), std::slice::from_ref(&few));
        assert_eq!(overall(&readings), Verdict::Inconclusive);
        assert!(
            readings[0].to_string().contains("no device"),
            "{}",
            readings[0]
        );
        assert_eq!(overall(&read(&gates(), &[])), Verdict::Inconclusive);
        let none = read(&none(), &[few]);
        assert_eq!((none.len(), overall(&none)), (0, Verdict::Pass));
    }

    #[test]
    fn each_rung_is_held_against_the_same_rung_before() {
        use PowerState::{Low, Mains};
        use Verdict::{Fail, Inconclusive, Pass};
        let shares = |pair: Pair, before, after| Pair {
            before: Sample {
                inferences: before,
                ..pair.before
            },
            after: Sample {
                inferences: after,
                ..pair.after
            },
        };
        // Was on the mains, and is now on a low battery, where a variant of a third serves: together
        // 4,000 uJ before and 2,000 after.
        let moved = |rise: u64| {
            let large = pair((3_000, 3_000), (3_000, 3_000 * rise / 100), 0);
            let small = pair((1_000, 1_000), (1_000, 1_000 * rise / 100), 0);
            let rungs = [
                (Mains, shares(large, 1_000, 500)),
                (Low, shares(small, 100, 5_000)),
            ];
            Pairs::from(rungs)
        };
        let verdict = |rungs: Pairs| {
            let mut sums = Sums::default();
            (0..5).for_each(|_| sums.count(&gates(), &rungs, 1));
            gates().read(&sums)[1].clone()
        };
        let hungrier = verdict(moved(140));
        assert_eq!(
            (hungrier.verdict, hungrier.devices),
            (Fail, 5),
            "{hungrier}"
        );
        assert!((hungrier.change - 40.0).abs() < 0.1, "{hungrier}");
        assert_eq!(verdict(moved(100)).verdict, Pass);
        // Of two rungs without one in common nothing can be said.
        let mut apart = moved(140);
        apart.remove(&Mains);
        apart
            .entry(Low)
            .and_modify(|p| p.before = Sample::default());
        assert_eq!(verdict(apart).verdict, Inconclusive);
    }

    #[test]
    fn devices_that_disagree_are_inconclusive() {
        let pairs = [
            pair((1_000, 1_600), (5, 5), 0),
            pair((1_000, 800), (5, 5), 0),
        ];
        assert_eq!(verdicts(&pairs)[0], Verdict::Inconclusive);
    }

    /// A version whose answers were like this, after one like `before`.
    fn answered(before: OutputStats, after: OutputStats, nonfinite: u64) -> Pair {
        let sample = |outputs, nonfinite| Sample {
            inferences: 1_000,
            nonfinite,
            outputs,
            ..Sample::default()
        };
        Pair {
            before: sample(before, 0),
            after: sample(after, nonfinite),
        }
    }

    fn classes(shares: &[u32]) -> OutputStats {
        let mut histogram = Histogram::default();
        for (class, share) in shares.iter().enumerate() {
            (0..*share).for_each(|_| histogram.record(class));
        }
        OutputStats {
            followed: histogram.total(),
            turns: histogram.total() / 2,
            confidence: histogram.clone(),
            classes: histogram,
            ..OutputStats::default()
        }
    }

    fn reading(gates: &Gates, pair: Pair, metric: Metric) -> Reading {
        let all = read(gates, &[pair]);
        let found = all.into_iter().find(|r| r.metric == metric);
        found.expect("the gate is asked")
    }

    #[test]
    fn outputs_that_are_nan_or_constant_fail_by_default() {
        let gates = Gates::default();
        let good = || classes(&[500, 500]);
        let sound = read(&gates, &[answered(good(), good(), 0)]);
        assert_eq!((sound.len(), overall(&sound)), (2, Verdict::Pass));
        let nan = reading(&gates, answered(good(), good(), 120), Metric::Nonfinite);
        assert_eq!(nan.verdict, Verdict::Fail, "{nan}");
        let constant = OutputStats {
            repeated: 1_000,
            ..classes(&[1_000])
        };
        let stuck = reading(
            &gates,
            answered(good(), constant.clone(), 0),
            Metric::Constant,
        );
        assert_eq!(stuck.verdict, Verdict::Fail, "{stuck}");
        // One that never did anything else does no worse.
        let as_ever = reading(
            &gates,
            answered(constant.clone(), constant, 0),
            Metric::Constant,
        );
        assert_eq!(as_ever.verdict, Verdict::Pass, "{as_ever}");
    }

    #[test]
    fn classes_that_shift_are_seen_and_those_of_a_long_run_are_not_believed() {
        let gates = Gates {
            classes_percent: Some(20),
            confidence_percent: Some(20),
            ..none()
        };
        let before = || classes(&[400, 300, 300]);
        let same = answered(before(), classes(&[380, 320, 300]), 0);
        assert_eq!(overall(&read(&gates, &[same])), Verdict::Pass);
        let moved = reading(
            &gates,
            answered(before(), classes(&[950, 50]), 0),
            Metric::Classes,
        );
        assert_eq!(moved.verdict, Verdict::Fail, "{moved}");
        let sleeping = OutputStats {
            turns: 3,
            ..classes(&[950, 50])
        };
        let one_run = reading(&gates, answered(before(), sleeping, 0), Metric::Classes);
        assert_eq!(one_run.verdict, Verdict::Inconclusive, "{one_run}");
    }

    #[test]
    fn versions_that_disagree_are_told_apart_once_enough_was_compared() {
        let gates = Gates {
            disagreement_percent: Some(10),
            ..none()
        };
        let compared = |compared, agreed| {
            let outputs = OutputStats {
                compared,
                agreed,
                ..OutputStats::default()
            };
            reading(
                &gates,
                answered(OutputStats::default(), outputs, 0),
                Metric::Disagreement,
            )
        };
        let cases = [
            (19, 0, Verdict::Inconclusive),
            (40, 20, Verdict::Fail),
            (40, 39, Verdict::Inconclusive),
            (200, 190, Verdict::Pass),
        ];
        for (tries, agreed, verdict) in cases {
            let found = compared(tries, agreed);
            assert_eq!(found.verdict, verdict, "{found}");
        }
        let nobody = compared(0, 0).to_string();
        assert_eq!(
            nobody,
            "disagreement: inconclusive, no device could run both versions side by side"
        );
    }
}
