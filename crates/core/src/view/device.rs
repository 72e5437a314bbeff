//! Devices and what was learned of the models on them.

use crate::assignment::Generation;
use crate::energy::{EnergyScope, Provenance};
use crate::learning::Learned;
use crate::names::{DeviceName, ModelName, VariantName, VersionName};
use crate::policy::Labels;
use crate::profile::{Conditions, DeviceProfile};
use crate::telemetry::ModelStatus;
use crate::time::Millis;
use crate::update::{AgentOrder, AgentStatus};
use serde::{Deserialize, Serialize};

/// One device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceDoc {
    /// Name.
    pub name: DeviceName,
    /// Labels.
    pub labels: Labels,
    /// A live stream is open.
    pub connected: bool,
    /// Its certificate is on the deny-list.
    pub revoked: bool,
    /// Two cards use its identity: neither is heard until an operator releases it.
    #[serde(default)]
    pub quarantined: bool,
    /// When it was enrolled.
    pub enrolled_at: Millis,
    /// When it was last heard of.
    pub last_seen: Option<Millis>,
    /// What it is; `None` before it first attached.
    pub profile: Option<DeviceProfile>,
    /// How it is.
    pub conditions: Option<Conditions>,
    /// Generation assigned.
    pub generation: Generation,
    /// Generation that the device has accepted.
    pub observed_generation: Generation,
    /// Its agent and what became of the newest order; nothing from an agent that cannot update
    /// itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentStatus>,
    /// What its agent was ordered to be last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_order: Option<AgentOrder>,
    /// The models on it.
    pub models: Vec<DeviceModelDoc>,
}

/// A model on a device: its state, and what the variant that serves was measured at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceModelDoc {
    /// As the device reported it.
    pub status: ModelStatus,
    /// Accuracy of the variant that serves, 0..=1.
    pub accuracy: Option<f64>,
    /// Figures of the variant that serves; `None` before it reported any.
    pub learned: Option<LearnedDoc>,
}

/// What a device reported of one variant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LearnedDoc {
    /// Model.
    pub model: ModelName,
    /// Version.
    pub version: VersionName,
    /// Variant.
    pub variant: VariantName,
    /// Inferences that succeeded.
    pub inferences: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Traps and deaths of the runner.
    pub traps: u64,
    /// Outputs with a NaN or infinity.
    pub nonfinite: u64,
    /// Median latency of the newest window in microseconds.
    pub latency_us_p50: Option<u32>,
    /// 95th percentile of the newest window in microseconds.
    pub latency_us_p95: Option<u32>,
    /// Mean marginal energy of one inference in microjoules.
    pub energy_uj: Option<f64>,
    /// Standard error of `energy_uj`.
    pub energy_standard_error_uj: Option<f64>,
    /// Provenance of `energy_uj`.
    pub energy_provenance: Provenance,
    /// Scope of `energy_uj`.
    pub energy_scope: EnergyScope,
}

impl LearnedDoc {
    /// The document of what was learned of a variant.
    pub fn of(
        model: &ModelName,
        version: &VersionName,
        variant: &VariantName,
        learned: &Learned,
    ) -> Self {
        let latency = learned.measured_latency_us();
        Self {
            model: model.clone(),
            version: version.clone(),
            variant: variant.clone(),
            inferences: learned.inferences,
            errors: learned.errors,
            traps: learned.traps,
            nonfinite: learned.nonfinite,
            latency_us_p50: latency.map(|(p50, _)| p50),
            latency_us_p95: latency.map(|(_, p95)| p95),
            energy_uj: learned.measured_energy_uj(),
            energy_standard_error_uj: learned.energy_standard_error_uj(),
            // Nothing is known as long as nothing was counted.
            energy_provenance: match learned.energy_inferences {
                0 => Provenance::Unknown,
                _ => learned.energy_provenance,
            },
            energy_scope: learned.energy_scope,
        }
    }
}
