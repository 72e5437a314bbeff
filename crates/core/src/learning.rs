//! What a device's own reports teach about its latency and energy.
//!
//! The prior is a roofline; every telemetry window corrects it through a scalar Kalman filter
//! on the logarithm, after the slowdown filter of ALERT (Wan et al., USENIX ATC 2020), which
//! works on the plain ratio.

use crate::energy::{EnergyScope, Provenance};
use crate::manifest::VariantManifest;
use crate::names::{ModelName, VariantName, VersionName};
use crate::profile::DeviceProfile;
use crate::selection::Prediction;
use crate::sketch::LatencySketch;
use crate::telemetry::TelemetryWindow;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Variance of one window's median around the truth, in log space (about 5 %).
const MEASUREMENT_VARIANCE: f64 = 0.0025;
/// Variance by which the truth may drift from window to window.
const DRIFT_VARIANCE: f64 = 0.0004;
/// Variance of the first value.
const FIRST_VARIANCE: f64 = 0.01;
/// A prediction is never surer than this standard deviation of the logarithm.
const MIN_LOG_SIGMA: f64 = 0.03;

/// What figures are of.
pub type LearnedKey = (ModelName, VersionName, VariantName);

/// Figures per model, version and variant of one device.
pub type LearnedMap = BTreeMap<LearnedKey, Learned>;

/// A log-space Kalman filter of one figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Filter {
    mean: f64,
    variance: f64,
}

impl Filter {
    fn updated(old: Option<Self>, value: f64, measurement_variance: f64) -> Self {
        let measured = value.ln();
        let Some(old) = old else {
            return Self {
                mean: measured,
                variance: FIRST_VARIANCE,
            };
        };
        let predicted = old.variance + DRIFT_VARIANCE;
        let gain = predicted / (predicted + measurement_variance);
        Self {
            mean: old.mean + gain * (measured - old.mean),
            variance: (1.0 - gain) * predicted,
        }
    }

    fn prediction(self, spread: f64, provenance: Provenance, samples: u64) -> Prediction {
        let log_sigma = (self.variance + spread * spread).sqrt().max(MIN_LOG_SIGMA);
        Prediction {
            value: self.mean.exp(),
            log_sigma,
            provenance,
            samples,
        }
    }
}

/// What is known of one variant on one device.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Learned {
    /// Inferences that succeeded.
    pub inferences: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Traps and deaths of the runner.
    pub traps: u64,
    /// Outputs with a NaN or infinity.
    pub nonfinite: u64,
    /// Latencies of the newest window that had any.
    pub recent: LatencySketch,
    /// Sum of the energies of all windows with a known provenance, in microjoules.
    pub energy_uj: u64,
    /// Inferences behind `energy_uj`.
    pub energy_inferences: u64,
    /// Variance of `energy_uj`.
    pub energy_variance_uj2: f64,
    /// The weakest provenance that went into `energy_uj`.
    pub energy_provenance: Provenance,
    /// Scope of the newest figure.
    pub energy_scope: EnergyScope,
    latency: Option<Filter>,
    energy: Option<Filter>,
}

impl Learned {
    /// Takes in one window. The caller sees to it that each window comes once.
    pub fn observe(&mut self, window: &TelemetryWindow) {
        self.inferences = self.inferences.saturating_add(window.inferences);
        self.errors = self.errors.saturating_add(window.errors);
        self.traps = self.traps.saturating_add(window.traps);
        self.nonfinite = self.nonfinite.saturating_add(window.nonfinite);
        if let Some(median) = window.latency.quantile(0.5) {
            let value = f64::from(median.max(1));
            self.latency = Some(Filter::updated(self.latency, value, MEASUREMENT_VARIANCE));
            self.recent = window.latency.clone();
        }
        if window.inferences > 0 && window.energy_provenance != Provenance::Unknown {
            self.observe_energy(window);
        }
    }

    fn observe_energy(&mut self, window: &TelemetryWindow) {
        self.energy_provenance = match self.energy_inferences {
            0 => window.energy_provenance,
            _ => self.energy_provenance.max(window.energy_provenance),
        };
        self.energy_scope = window.energy_scope;
        self.energy_uj = self.energy_uj.saturating_add(window.energy_uj);
        self.energy_inferences = self.energy_inferences.saturating_add(window.inferences);
        // The error of a board model or the gain of a meter is the same in every window, so
        // standard errors add up; it does not average out over time.
        let error = self.energy_variance_uj2.sqrt() + window.energy_variance_uj2.max(0.0).sqrt();
        self.energy_variance_uj2 = error * error;
        let total = window.energy_uj as f64;
        if total > 0.0 {
            // Relative variance of the window's energy is its variance in log space.
            let relative = window.energy_variance_uj2 / (total * total);
            let noise = relative.clamp(MEASUREMENT_VARIANCE, 1.0);
            let each = total / window.inferences as f64;
            self.energy = Some(Filter::updated(self.energy, each, noise));
        }
    }

    /// Predicted latency in microseconds. The spread of single inferences around the median,
    /// as the newest window shows it, is part of the uncertainty.
    pub fn latency(&self) -> Option<Prediction> {
        let spread = self.measured_latency_us().map_or(0.0, |(p50, p95)| {
            // The 95th percentile of a normal distribution lies 1.645 sigma above the median.
            (f64::from(p95.max(1)) / f64::from(p50.max(1)))
                .ln()
                .max(0.0)
                / 1.645
        });
        Some(
            self.latency?
                .prediction(spread, Provenance::Measured, self.inferences),
        )
    }

    /// Predicted energy of one inference in microjoules.
    pub fn energy(&self) -> Option<Prediction> {
        let filter = self.energy?;
        Some(filter.prediction(0.0, self.energy_provenance, self.energy_inferences))
    }

    /// Median and 95th percentile of the newest window, in microseconds.
    pub fn measured_latency_us(&self) -> Option<(u32, u32)> {
        Some((self.recent.quantile(0.5)?, self.recent.quantile(0.95)?))
    }

    /// Mean energy of one inference in microjoules.
    pub fn measured_energy_uj(&self) -> Option<f64> {
        (self.energy_inferences > 0).then(|| self.energy_uj as f64 / self.energy_inferences as f64)
    }

    /// Standard error of [`Self::measured_energy_uj`].
    pub fn energy_standard_error_uj(&self) -> Option<f64> {
        (self.energy_inferences > 0)
            .then(|| self.energy_variance_uj2.sqrt() / self.energy_inferences as f64)
    }
}

/// Roofline: the larger of the time to compute and the time to read the weights, plus the fixed
/// cost of a call. In microseconds; `None` before the device has measured its speed, and for a
/// module that does not tell what it computes.
pub fn prior_latency_us(profile: &DeviceProfile, variant: &VariantManifest) -> Option<f64> {
    let speed = profile
        .speed
        .as_ref()
        .filter(|_| !variant.macs.is_empty())?;
    let mut compute_s = 0.0;
    for (dtype, macs) in &variant.macs {
        compute_s += *macs as f64 / speed.macs_per_s.get(dtype).filter(|r| **r > 0.0)?;
    }
    let weights = variant.weights.map_or(0, |w| w.size_bytes) as f64;
    let memory_s = if speed.bytes_per_s > 0.0 {
        weights / speed.bytes_per_s
    } else {
        0.0
    };
    Some(compute_s.max(memory_s) * 1e6 + speed.overhead_us)
}

/// Energy of one inference that keeps one core busy for this long, by the published model of
/// the board. `None` for an unknown board.
pub fn prior_energy_uj(profile: &DeviceProfile, latency_us: f64) -> Option<f64> {
    let model = crate::energy::board::BoardModel::of(&profile.board)?;
    Some(model.marginal_uj(latency_us / 1e6, profile.cores))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_follows_a_step_and_grows_sure() {
        let mut filter = None;
        for value in std::iter::repeat_n(100.0, 5).chain(std::iter::repeat_n(200.0, 40)) {
            filter = Some(Filter::updated(filter, value, MEASUREMENT_VARIANCE));
        }
        let prediction = filter.map(|f| f.prediction(0.0, Provenance::Measured, 45));
        let prediction = prediction.expect("the filter has seen values");
        assert!((prediction.value - 200.0).abs() < 2.0, "{prediction:?}");
        assert!(prediction.log_sigma < 0.05, "{prediction:?}");
    }
}
