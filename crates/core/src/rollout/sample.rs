//! What a device measured under one version on one rung of its ladder, as gates look at it.

use super::gate::LEAST_SPREAD;
use crate::names::{ModelName, VersionName};
use crate::outputs::OutputStats;
use crate::profile::PowerState;
use crate::rungs::{Clumping, Noise, Rung, RungMap};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a device measured under one version on one rung.
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

/// A device's figures under the version before and under the new one, by rung.
pub type Pairs = BTreeMap<PowerState, Pair>;

/// A device's figures on one rung under the version before and under the new one.
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
}

impl Clumping {
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

impl From<&Rung> for Sample {
    fn from(rung: &Rung) -> Self {
        Self {
            inferences: rung.inferences,
            errors: rung.errors,
            traps: rung.traps,
            nonfinite: rung.nonfinite,
            latency_us_p95: rung.latency_us_p95(),
            latency_noise: rung.latency_noise(),
            energy_nj: rung.energy_nj(),
            energy_noise: rung.energy_noise(),
            clumping: rung.clumping(),
            outputs: rung.outputs.clone(),
        }
    }
}

/// What a device measured under two versions, on each rung that it was on under the second; `None`
/// before the first inference of either.
pub fn pairs(
    rungs: &RungMap,
    model: &ModelName,
    [before, after]: [&VersionName; 2],
) -> Option<Pairs> {
    let of = |version: &VersionName| -> BTreeMap<PowerState, Sample> {
        let of_version = rungs
            .iter()
            .filter(|((m, v, _), rung)| m == model && v == version && rung.inferences > 0);
        of_version
            .map(|((_, _, state), rung)| (*state, rung.into()))
            .collect()
    };
    let (mut before, after) = (of(before), of(after));
    if before.is_empty() || after.is_empty() {
        return None;
    }
    let pair = |(state, after)| {
        let before = before.remove(&state).unwrap_or_default();
        (state, Pair { before, after })
    };
    Some(after.into_iter().map(pair).collect())
}
