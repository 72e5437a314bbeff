//! The signed desired state of one device.

use crate::names::{DeploymentName, DeviceName, ModelName, VariantName, VersionName};
use crate::profile::PowerState;
use crate::signed::Signed;
use crate::update::AgentOrder;
use crate::window::Schedule;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Rises with every change of a device's desired state; a device refuses to go back.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Generation(pub u64);

/// The ordered variants that a device holds for one deployment, one rung per power state.
/// The `Mains` rung is always present; a missing rung means the next richer one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ladder {
    /// Variant per power state.
    pub rungs: BTreeMap<PowerState, VariantName>,
    /// Battery percentage below which the `low` rung is taken.
    pub low_percent: u8,
    /// Battery percentage below which the `critical` rung is taken.
    pub critical_percent: u8,
}

/// A model that a device shall run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedModel {
    /// The deployment that asks for it.
    pub deployment: DeploymentName,
    /// The model.
    pub model: ModelName,
    /// The version.
    pub version: VersionName,
    /// The ladder.
    pub ladder: Arc<Ladder>,
    /// Latency objective of the deployment, for the runner's deadline and reports.
    pub latency_slo_us: Option<u32>,
    /// When the device may fetch and switch; at any time when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Arc<Schedule>>,
}

/// Everything one device shall run. Two models of one name cannot be assigned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The only device it is for.
    pub device: DeviceName,
    /// Rising number.
    pub generation: Generation,
    /// The models by name.
    pub models: BTreeMap<ModelName, AssignedModel>,
    /// What its agent shall be; whatever it is when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentOrder>,
}

/// An assignment on its way: signed, with the signed versions it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignmentBundle {
    /// The signed [`Assignment`].
    pub assignment: Signed,
    /// The signed [`crate::manifest::VersionManifest`] of every version it names.
    pub versions: Vec<Signed>,
    /// The signed [`crate::update::AgentRelease`] of the agent that it names.
    pub agent: Option<Signed>,
}
