//! How far failures come in clumps.

use crate::telemetry::TelemetryWindow;
use serde::{Deserialize, Serialize};

/// How much more than chance failures come in clumps: variance over that of independent ones, in
/// thousandths, by what is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Clumping {
    /// Windows behind it.
    pub windows: u32,
    /// Of requests that fail.
    pub errors_permille: u32,
    /// Of deaths of the runner.
    pub traps_permille: u32,
    /// Of outputs that are not finite.
    pub nonfinite_permille: u32,
    /// Of answers that repeat the one before.
    pub repeated_permille: u32,
}

/// Sums over windows of the squared hits by the tries: with the totals, Pearson's statistic of
/// equal rates, whose mean by its freedom is the dispersion (McCullagh and Nelder, Generalized
/// Linear Models, 1989, section 4.5).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Clumps {
    windows: u32,
    errors: f64,
    traps: f64,
    nonfinite: f64,
    repeated: f64,
}

impl Clumps {
    pub(super) fn observe(&mut self, window: &TelemetryWindow) {
        let n = window.inferences as f64;
        let part = |hits: u64, tries: f64| (hits as f64).powi(2) / tries.max(1.0);
        self.windows = self.windows.saturating_add(1);
        self.errors += part(window.errors, n + window.errors as f64);
        self.traps += part(window.traps, n + window.traps as f64);
        self.nonfinite += part(window.nonfinite, n);
        self.repeated += part(window.outputs.repeated, window.outputs.followed as f64);
    }

    /// By the totals of the same windows: hits and tries of each.
    pub(super) fn clumping(
        self,
        errors: (u64, u64),
        traps: (u64, u64),
        nonfinite: (u64, u64),
        repeated: (u64, u64),
    ) -> Clumping {
        Clumping {
            windows: self.windows,
            errors_permille: self.permille(self.errors, errors),
            traps_permille: self.permille(self.traps, traps),
            nonfinite_permille: self.permille(self.nonfinite, nonfinite),
            repeated_permille: self.permille(self.repeated, repeated),
        }
    }

    fn permille(self, squares: f64, (hits, tries): (u64, u64)) -> u32 {
        let (hits, tries) = (hits as f64, tries as f64);
        let chance = hits * (1.0 - hits / tries.max(1.0)) / tries.max(1.0);
        if self.windows < 2 || chance <= 0.0 {
            return 1_000;
        }
        let found = (squares - hits * hits / tries) / chance;
        (found.max(0.0) / f64::from(self.windows - 1) * 1e3).min(1e6) as u32
    }
}
