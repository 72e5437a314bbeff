//! What a device reports of the models it serves.

use crate::assignment::Generation;
use crate::digest::Digest;
use crate::energy::{EnergyScope, Provenance};
use crate::names::{DeploymentName, ModelName, VariantName, VersionName};
use crate::outputs::OutputStats;
use crate::profile::{Conditions, DeviceProfile, PowerState};
use crate::sketch::LatencySketch;
use crate::time::Millis;
use crate::update::AgentStatus;
use serde::{Deserialize, Serialize};

/// Counts of one model and variant over a span of time. Identified by (`boot`, `sequence`):
/// a window that arrives twice counts once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TelemetryWindow {
    /// Random number of the agent's installation (made at `join`), so that a device that was
    /// wiped cannot collide with its past.
    pub boot: u64,
    /// Rising by one per window of the device.
    pub sequence: u64,
    /// Generation of the assignment under which all of it was served: what was served before
    /// proves nothing about a newer one, though the version be the same.
    #[serde(default)]
    pub generation: Generation,
    /// Begin, by the device's clock.
    pub from: Millis,
    /// End.
    pub to: Millis,
    /// Deployment.
    pub deployment: DeploymentName,
    /// Model.
    pub model: ModelName,
    /// Version.
    pub version: VersionName,
    /// Variant.
    pub variant: VariantName,
    /// Digest of the native code that ran: success is proved by it.
    pub code: Digest,
    /// Power state whose rung served.
    pub power_state: PowerState,
    /// Inferences that succeeded (items, not batches).
    pub inferences: u64,
    /// Requests that failed for a reason of the model or runner.
    pub errors: u64,
    /// Requests refused because of bad input.
    pub rejected: u64,
    /// Traps and deaths of the runner.
    pub traps: u64,
    /// Outputs with a NaN or infinity.
    pub nonfinite: u64,
    /// What the outputs were like.
    #[serde(default)]
    pub outputs: OutputStats,
    /// Latency of a batch of one in the runner, in microseconds.
    pub latency: LatencySketch,
    /// Marginal energy of all inferences of the window, in microjoules.
    pub energy_uj: u64,
    /// Variance of `energy_uj`, in square microjoules.
    pub energy_variance_uj2: f64,
    /// Provenance of `energy_uj`.
    pub energy_provenance: Provenance,
    /// Scope of `energy_uj`.
    pub energy_scope: EnergyScope,
}

/// Where the device stands with one assigned model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelPhase {
    /// Artefacts are being fetched.
    Fetching,
    /// Artefacts are missing, and its download window is shut.
    AwaitingDownload,
    /// Everything is there, and its switch window is shut.
    AwaitingSwitch,
    /// There are windows, and nobody has told the device what time it is.
    AwaitingClock,
    /// The new runner is loaded and self-tested.
    Testing,
    /// Serving the assigned version.
    Serving,
    /// The assigned version failed; an earlier one serves, or none.
    Failed,
}

/// Observed state of one model on a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelStatus {
    /// Deployment.
    pub deployment: DeploymentName,
    /// Model.
    pub model: ModelName,
    /// Version that the newest assignment asks for.
    pub wanted: VersionName,
    /// Phase of the wanted version.
    pub phase: ModelPhase,
    /// What serves now, if anything.
    pub serving: Option<Serving>,
    /// Why the phase is `Failed`.
    pub failure: Option<ModelFailure>,
    /// Bytes fetched of those the wanted version needs.
    pub fetched_bytes: u64,
    /// Bytes the wanted version needs.
    pub needed_bytes: u64,
}

/// What serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serving {
    /// Version.
    pub version: VersionName,
    /// Variant.
    pub variant: VariantName,
    /// Digest of the native code.
    pub code: Digest,
    /// Power state whose rung this is.
    pub power_state: PowerState,
}

/// Why an assigned version does not serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFailure {
    /// The variant that failed.
    pub variant: VariantName,
    /// Kind.
    pub kind: FailureKind,
    /// In words, for people.
    pub message: String,
}

/// Kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// An artefact could not be fetched or did not verify.
    Fetch,
    /// No space, or the disk fails.
    Disk,
    /// Signature, device, generation or target are not right.
    Refused,
    /// The runner did not load the module.
    Load,
    /// The self-test gave other outputs, or none.
    SelfTest,
    /// The runner trapped, died or overran its deadline more often than the budget allows.
    Crash,
}

/// Everything a device tells of its state, sent on change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// Generation of the assignment the device has accepted.
    pub generation: Generation,
    /// Conditions.
    pub conditions: Conditions,
    /// Models by deployment order.
    pub models: Vec<ModelStatus>,
    /// Why the newest assignment was refused or cannot be kept, if so; the one before it stays in
    /// force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Its agent; nothing from one that cannot update itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentStatus>,
}

/// First words of a device on its stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Hello {
    /// Random number of this start of the agent; two at once betray a cloned card.
    pub boot_id: u64,
    /// What the device is.
    pub profile: DeviceProfile,
    /// How it is and what it serves.
    pub observation: Observation,
}
