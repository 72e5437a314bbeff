//! What a device measured on each rung of its ladder under each version: what gates compare.
//!
//! A device that goes down its ladder serves a smaller variant, and answers faster, for less and less
//! surely. Held against what it did on another rung, it would hide a worse version or accuse a
//! good one, so that figures are kept by power state and never mixed.
//!
//! | module | what it is |
//! |---|---|
//! | `noise` | how a figure differs from window to window |
//! | `clumping` | how far failures come in clumps |

mod clumping;
mod noise;

pub use clumping::Clumping;
pub use noise::Noise;

use crate::energy::Provenance;
use crate::names::{ModelName, VersionName};
use crate::outputs::OutputStats;
use crate::profile::PowerState;
use crate::sketch::LatencySketch;
use crate::telemetry::TelemetryWindow;
use clumping::Clumps;
use noise::Windows;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Latencies that a window needs for its 95th percentile to count as one observation.
const LATENCIES_OF_A_WINDOW: u64 = 20;

/// What figures are of.
pub type RungKey = (ModelName, VersionName, PowerState);

/// Figures of one device by model, version and power state.
pub type RungMap = BTreeMap<RungKey, Rung>;

/// What a device measured under one version on one rung.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Rung {
    /// Inferences that succeeded.
    pub inferences: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Traps and deaths of the runner.
    pub traps: u64,
    /// Outputs with a NaN or infinity.
    pub nonfinite: u64,
    /// What the outputs were like.
    pub outputs: OutputStats,
    latencies: LatencySketch,
    latency_windows: Windows,
    energy_uj: u64,
    energy_inferences: u64,
    energy_windows: Windows,
    clumps: Clumps,
}

impl Rung {
    /// Takes in one window. The caller sees to it that each window comes once.
    pub fn observe(&mut self, window: &TelemetryWindow) {
        self.inferences = self.inferences.saturating_add(window.inferences);
        self.errors = self.errors.saturating_add(window.errors);
        self.traps = self.traps.saturating_add(window.traps);
        self.nonfinite = self.nonfinite.saturating_add(window.nonfinite);
        self.outputs.merge(&window.outputs);
        self.clumps.observe(window);
        self.latencies.merge(&window.latency);
        if window.latency.count() >= LATENCIES_OF_A_WINDOW
            && let Some(p95) = window.latency.quantile(0.95)
        {
            self.latency_windows.observe(f64::from(p95.max(1)));
        }
        if window.inferences > 0 && window.energy_provenance != Provenance::Unknown {
            self.energy_uj = self.energy_uj.saturating_add(window.energy_uj);
            self.energy_inferences = self.energy_inferences.saturating_add(window.inferences);
            if window.energy_uj > 0 {
                let each = window.energy_uj as f64 / window.inferences as f64;
                self.energy_windows.observe(each);
            }
        }
    }

    /// 95th percentile of latency in microseconds.
    pub fn latency_us_p95(&self) -> Option<u32> {
        self.latencies.quantile(0.95)
    }

    /// How that differs from window to window.
    pub fn latency_noise(&self) -> Noise {
        self.latency_windows.noise()
    }

    /// Mean energy of an inference in nanojoules.
    pub fn energy_nj(&self) -> Option<u64> {
        let (energy_uj, inferences) = (self.energy_uj as f64, self.energy_inferences);
        (inferences > 0).then(|| (energy_uj * 1e3 / inferences as f64) as u64)
    }

    /// How that differs from window to window.
    pub fn energy_noise(&self) -> Noise {
        self.energy_windows.noise()
    }

    /// How far failures come in clumps.
    pub fn clumping(&self) -> Clumping {
        let (n, outputs) = (self.inferences, &self.outputs);
        self.clumps.clumping(
            (self.errors, n.saturating_add(self.errors)),
            (self.traps, n.saturating_add(self.traps)),
            (self.nonfinite, n),
            (outputs.repeated, outputs.followed),
        )
    }
}
