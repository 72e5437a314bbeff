//! What a device measured under one version, as gates look at it.

use super::gate::LEAST_SPREAD;
use crate::learning::{Clumping, LearnedMap, Noise};
use crate::names::{ModelName, VersionName};
use crate::outputs::OutputStats;
use crate::sketch::LatencySketch;
use serde::{Deserialize, Serialize};

/// What a device measured under one version.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// Inferences that succeeded.
    pub inferences: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Deaths of the runner.
    pub traps: u64,
    /// Outputs with a NaN or infinity.
    pub nonfinite: u64,
    /// 95th percentile of latency in microseconds.
    pub latency_us_p95: Option<u32>,
    /// How that differs from window to window.
    pub latency_noise: Noise,
    /// Mean energy of an inference in nanojoules.
    pub energy_nj: Option<u64>,
    /// How that differs from window to window.
    pub energy_noise: Noise,
    /// How far failures came in clumps.
    pub clumping: Clumping,
    /// What the outputs were like.
    pub outputs: OutputStats,
}

/// A device's figures under the version before and under the new one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pair {
    /// Before.
    pub before: Sample,
    /// After.
    pub after: Sample,
}

impl Noise {
    fn freedom(self) -> f64 {
        f64::from(self.windows.saturating_sub(1))
    }

    fn squares(self) -> f64 {
        (f64::from(self.spread_ppm) * 1e-6).powi(2) * self.freedom()
    }

    /// What both sides add to the variance of the logarithm of the ratio of two such figures.
    /// Windows are taken to differ as much under both versions; where there are few, what is known
    /// beforehand counts as two.
    pub(super) fn variances(before: Self, after: Self) -> (f64, f64) {
        const KNOWN: f64 = 2.0;
        let squares = KNOWN * LEAST_SPREAD.powi(2) + before.squares() + after.squares();
        let each = squares / (KNOWN + before.freedom() + after.freedom());
        let inverse = |noise: Self| 1.0 / f64::from(noise.windows.max(1));
        (each * inverse(before), each * inverse(after))
    }

    fn merged(self, other: Self) -> Self {
        let freedom = (self.freedom() + other.freedom()).max(1.0);
        let spread = ((self.squares() + other.squares()) / freedom).sqrt();
        Self {
            windows: self.windows.saturating_add(other.windows),
            spread_ppm: (spread * 1e6) as u32,
        }
    }
}

impl Clumping {
    fn merged(self, other: Self) -> Self {
        let (n, m) = (f64::from(self.windows), f64::from(other.windows));
        let mean =
            |a: u32, b: u32| ((f64::from(a) * n + f64::from(b) * m) / (n + m).max(1.0)) as u32;
        Self {
            windows: self.windows.saturating_add(other.windows),
            errors_permille: mean(self.errors_permille, other.errors_permille),
            traps_permille: mean(self.traps_permille, other.traps_permille),
            nonfinite_permille: mean(self.nonfinite_permille, other.nonfinite_permille),
            repeated_permille: mean(self.repeated_permille, other.repeated_permille),
        }
    }

    /// Tries that an independent one stands for under each version, which had so many hits: that of
    /// a rate which differs from window to window in proportion to itself, as much under both.
    pub(super) fn of_both(
        before: (Self, u64),
        after: (Self, u64),
        of: fn(&Self) -> u32,
    ) -> (f64, f64) {
        let each = |(clumping, hits): (Self, u64)| (f64::from(clumping.windows), hits as f64);
        let excess = |side: (Self, u64)| (f64::from(of(&side.0)) / 1e3 - 1.0) * each(side).0;
        let hits = each(before).1 + each(after).1;
        let squared = ((excess(before) + excess(after)) / hits.max(1.0)).max(0.0);
        let tries = |side: (Self, u64)| 1.0 + squared * each(side).1 / each(side).0.max(1.0);
        (tries(before), tries(after))
    }
}

impl Sample {
    /// Figures of all variants of a version together; `None` before the first inference.
    pub fn of(learned: &LearnedMap, model: &ModelName, version: &VersionName) -> Option<Self> {
        let of_version = learned
            .iter()
            .filter(|((m, v, _), _)| m == model && v == version);
        let mut all = Self::default();
        let (mut latency, mut energy_uj, mut metered) = (LatencySketch::default(), 0.0, 0);
        for (_, one) in of_version {
            all.inferences = all.inferences.saturating_add(one.inferences);
            all.errors = all.errors.saturating_add(one.errors);
            all.traps = all.traps.saturating_add(one.traps);
            all.nonfinite = all.nonfinite.saturating_add(one.nonfinite);
            latency.merge(&one.latencies);
            all.latency_noise = all.latency_noise.merged(one.latency_noise());
            energy_uj += one.energy_uj as f64;
            metered += one.energy_inferences;
            all.energy_noise = all.energy_noise.merged(one.energy_noise());
            all.clumping = all.clumping.merged(one.clumping());
            all.outputs.merge(&one.outputs);
        }
        all.latency_us_p95 = latency.quantile(0.95);
        all.energy_nj = (metered > 0).then(|| (energy_uj * 1e3 / metered as f64) as u64);
        (all.inferences > 0).then_some(all)
    }
}
