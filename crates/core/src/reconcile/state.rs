//! Persisted state, events and effects of the agent's machine.

use crate::assignment::{Assignment, Generation, Ladder};
use crate::digest::{ArtefactRef, Digest};
use crate::manifest::VersionManifest;
use crate::names::{DeploymentName, DeviceName, ModelName, VariantName, VersionName};
use crate::profile::PowerState;
use crate::telemetry::{FailureKind, ModelFailure};
use crate::window::Schedule;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Most failed codes remembered per model; the oldest is forgotten first.
pub const MAX_FAILED: usize = 32;

/// A version that a device holds or shall hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SlotVersion {
    /// The deployment that asked for it.
    pub deployment: DeploymentName,
    /// Its manifest, so that the device needs nobody to run it.
    pub manifest: VersionManifest,
    /// Its rungs.
    pub ladder: Ladder,
    /// Latency objective in microseconds.
    pub latency_slo_us: Option<u32>,
    /// When it may be fetched and switched to; at any time when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Arc<Schedule>>,
}

impl SlotVersion {
    /// Name of the version.
    pub fn version(&self) -> &VersionName {
        &self.manifest.version
    }
}

/// Code that failed on this device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedCode {
    /// Digest of the native code.
    pub code: Digest,
    /// The version it belonged to.
    pub version: VersionName,
    /// What happened.
    pub failure: ModelFailure,
}

/// One model on a device.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ModelSlot {
    /// What serves.
    pub active: Option<SlotVersion>,
    /// What served before, to go back to.
    pub previous: Option<SlotVersion>,
    /// What is being fetched or tested.
    pub pending: Option<SlotVersion>,
    /// Code never to try again, oldest first, at most [`MAX_FAILED`].
    pub failed: Vec<FailedCode>,
    /// Why the assigned version does not serve, once it has failed.
    pub failure: Option<ModelFailure>,
    /// The version over which the agent hung last, and how often in a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hung: Option<(VersionName, u32)>,
}

/// Everything a device must remember over a power loss.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DeviceState {
    /// Random number made at `join`.
    pub installation: u64,
    /// Generation of the newest assignment accepted.
    pub generation: Generation,
    /// That assignment.
    pub assignment: Option<Assignment>,
    /// The assigned models.
    pub models: BTreeMap<ModelName, ModelSlot>,
}

/// What happened to the device.
#[derive(Debug, Clone, PartialEq)]
pub enum DeviceEvent {
    /// An assignment arrived. The driver has verified its signature and the manifests'.
    Assigned(Assignment, Vec<VersionManifest>),
    /// An artefact is on the disk, verified. Also the answer for one that was there already.
    Fetched(ArtefactRef),
    /// An artefact could not be fetched or kept. Not for a connection that is merely down: the
    /// driver waits for that by itself.
    FetchFailed {
        /// The artefact.
        artefact: ArtefactRef,
        /// `Fetch` is tried again, anything else is final.
        kind: FailureKind,
        /// In words.
        message: String,
    },
    /// A runner has loaded its variant, passed the self-test if one was asked for, and can serve.
    RunnerReady {
        /// Model.
        model: ModelName,
        /// Version.
        version: VersionName,
        /// Variant.
        variant: VariantName,
    },
    /// A runner could not load its variant or did not pass the self-test.
    RunnerFailed {
        /// Model.
        model: ModelName,
        /// Version.
        version: VersionName,
        /// Variant.
        variant: VariantName,
        /// `Load` or `SelfTest`.
        kind: FailureKind,
        /// In words.
        message: String,
    },
    /// A runner that was ready died: trap, limit, deadline or signal.
    RunnerDied {
        /// Model.
        model: ModelName,
        /// Version.
        version: VersionName,
        /// Variant.
        variant: VariantName,
        /// In words.
        message: String,
    },
    /// The agent that ran before this one hung while it had to do with a runner, and was ended by
    /// its watchdog. Comes before everything else of a start.
    Hung {
        /// Model.
        model: ModelName,
        /// Version.
        version: VersionName,
        /// Variant.
        variant: VariantName,
        /// How long that agent had lived until it hung.
        lived: Duration,
    },
    /// The power state, after hysteresis.
    PowerState(PowerState),
    /// Time passed, or the agent has just started.
    Tick,
}

/// Why an assignment is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is for another device.
    #[error("the assignment is for device {0}")]
    OtherDevice(DeviceName),
    /// It is older than what was accepted.
    #[error("generation {got} is older than {have}, which this device has accepted")]
    Older {
        /// Generation accepted.
        have: u64,
        /// Generation refused.
        got: u64,
    },
    /// Another assignment of the same generation was accepted.
    #[error("another assignment of generation {0} was accepted before")]
    Conflict(u64),
    /// A version is named but its manifest was not sent.
    #[error("the manifest of version {version} of {model} was not sent")]
    NoManifest {
        /// Model.
        model: ModelName,
        /// Version.
        version: VersionName,
    },
    /// The device holds the version with other content. Versions never change.
    #[error(
        "version {version} of {model} is not what this device holds under that name: publish it under a new name"
    )]
    Changed {
        /// Model.
        model: ModelName,
        /// Version.
        version: VersionName,
    },
    /// A rung names no variant of the version.
    #[error("{model} {version} has no variant {variant}")]
    NoVariant {
        /// Model.
        model: ModelName,
        /// Version.
        version: VersionName,
        /// Variant.
        variant: VariantName,
    },
    /// A variant has no code that this device can load.
    #[error("variant {variant} of {model} {version} has no code that this device can load")]
    NoCode {
        /// Model.
        model: ModelName,
        /// Version.
        version: VersionName,
        /// Variant.
        variant: VariantName,
    },
    /// The assignment contradicts itself.
    #[error("the assignment is malformed: {0}")]
    Malformed(String),
}

/// What the driver does, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceEffect {
    /// Write [`DeviceState`] so that it survives a power loss, before anything that follows.
    Persist,
    /// Have these artefacts on the disk and answer for each one.
    Fetch {
        /// Model.
        model: ModelName,
        /// Version.
        version: VersionName,
        /// Everything the version's ladder needs and that has not been answered for.
        artefacts: Vec<ArtefactRef>,
    },
    /// Let downloads of these end where they are; what arrived stays for the next attempt. Nobody
    /// waits for an answer.
    StopFetch {
        /// What to leave alone.
        artefacts: Vec<ArtefactRef>,
    },
    /// Start a runner next to those that run, and answer with ready or failed.
    StartRunner {
        /// Model.
        model: ModelName,
        /// Version.
        version: VersionName,
        /// Variant.
        variant: VariantName,
        /// Compare the golden outputs before it counts as ready.
        self_test: bool,
    },
    /// Send requests of the model to this runner from now on, atomically.
    Switch {
        /// Model.
        model: ModelName,
        /// Version.
        version: VersionName,
        /// Variant.
        variant: VariantName,
    },
    /// Stop a runner once its requests in flight have been answered.
    StopRunner {
        /// Model.
        model: ModelName,
        /// Version.
        version: VersionName,
        /// Variant.
        variant: VariantName,
    },
    /// Tell the controller that the observed state changed.
    Report,
    /// Delete artefacts that are not live.
    Collect,
    /// The assignment was not accepted; tell the controller and the log.
    Refuse(Refusal),
}
