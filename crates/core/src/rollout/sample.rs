//! What a device measured under one version, as gates look at it.

use super::gate::LEAST_SPREAD;
use crate::learning::{LearnedMap, Noise};
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

    /// Variance of the logarithm of a ratio of two such figures. Windows are taken to differ as
    /// much under both versions; where there are few, what is known beforehand counts as two.
    pub(super) fn variance_of_ratio(before: Self, after: Self) -> f64 {
        const KNOWN: f64 = 2.0;
        let squares = KNOWN * LEAST_SPREAD.powi(2) + before.squares() + after.squares();
        let each = squares / (KNOWN + before.freedom() + after.freedom());
        let inverse = |noise: Self| 1.0 / f64::from(noise.windows.max(1));
        each * (inverse(before) + inverse(after))
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
            all.outputs.merge(&one.outputs);
        }
        all.latency_us_p95 = latency.quantile(0.95);
        all.energy_nj = (metered > 0).then(|| (energy_uj * 1e3 / metered as f64) as u64);
        (all.inferences > 0).then_some(all)
    }
}
