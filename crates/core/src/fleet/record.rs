//! Records as the store keeps them.

use crate::assignment::{AssignedModel, Assignment, Generation};
use crate::manifest::VersionManifest;
use crate::names::{DeviceName, ModelName, VariantName, VersionName};
use crate::policy::{Deployment, Labels};
use crate::profile::DeviceProfile;
use crate::rollout::Move;
use crate::selection::FailedVariants;
use crate::signed::Signed;
use crate::telemetry::Observation;
use crate::time::Millis;
use crate::update::{AgentOrder, AgentRelease};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Installations of one device whose last window is remembered: a reinstalled device gets a
/// new number, and of the oldest no window will come any more.
pub(super) const MAX_INSTALLATIONS: usize = 8;

/// A device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceRecord {
    /// Its name, the one in its certificate.
    pub name: DeviceName,
    /// Labels.
    pub labels: Labels,
    /// When it joined.
    pub enrolled_at: Millis,
    /// Who revoked it, if somebody did.
    pub revoked_by: Option<String>,
    /// Since when it is in quarantine, because two cards use its identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantined: Option<Millis>,
    /// What it said it is.
    pub profile: Option<DeviceProfile>,
    /// What it last reported.
    pub observation: Option<Observation>,
    /// When it last spoke.
    pub last_seen: Option<Millis>,
    /// Generation of its assignment.
    pub generation: Generation,
    /// What the assignment says.
    pub models: BTreeMap<ModelName, AssignedModel>,
    /// What it held before the assignment of each model.
    pub previous: BTreeMap<ModelName, AssignedModel>,
    /// Generation that brought each model its present version.
    #[serde(default)]
    pub since: BTreeMap<ModelName, Generation>,
    /// What its agent shall be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentOrder>,
    /// Inferences of each model since then.
    pub served: BTreeMap<ModelName, u64>,
    /// Variants that failed here and why.
    pub failed: Vec<(ModelName, VersionName, VariantName, String)>,
    /// How it moved last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<Move>,
    /// Last stored window of each installation, in order of their first window.
    pub acknowledged: Vec<(u64, u64)>,
}

impl DeviceRecord {
    /// A device that has just joined.
    pub fn new(name: DeviceName, labels: Labels, now: Millis) -> Self {
        Self {
            name,
            labels,
            enrolled_at: now,
            revoked_by: None,
            quarantined: None,
            profile: None,
            observation: None,
            last_seen: None,
            generation: Generation::default(),
            models: BTreeMap::new(),
            previous: BTreeMap::new(),
            since: BTreeMap::new(),
            agent: None,
            served: BTreeMap::new(),
            failed: Vec::new(),
            moved: None,
            acknowledged: Vec::new(),
        }
    }

    /// Its desired state. It changes only together with its generation.
    pub fn assignment(&self) -> Assignment {
        Assignment {
            device: self.name.clone(),
            generation: self.generation,
            models: self.models.clone(),
            agent: self.agent.clone(),
        }
    }

    /// A model gets a version with the next generation: what it serves is counted from there.
    pub(super) fn begin(&mut self, model: ModelName) {
        let next = Generation(self.generation.0 + 1);
        self.since.insert(model.clone(), next);
        self.served.insert(model, 0);
    }

    /// Failed variants as the selection wants them.
    pub fn failed_variants(&self) -> FailedVariants {
        let each = self.failed.iter();
        each.map(|(m, v, n, why)| ((m.clone(), v.clone(), n.clone()), why.clone()))
            .collect()
    }
}

/// A version as published.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// What the publisher signed; devices get exactly this.
    pub signed: Signed,
    /// What it says.
    pub manifest: VersionManifest,
}

/// A release of the agent as published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedAgent {
    /// What the publisher signed; devices get exactly this.
    pub signed: Signed,
    /// What it says.
    pub release: AgentRelease,
}

/// A deployment and the version it stands at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeploymentRecord {
    /// As applied.
    pub deployment: Deployment,
    /// The version that the last promoted rollout brought.
    pub version: Option<VersionName>,
}

/// What a device's windows taught, by version and by variant or rung `K`, in a form with text keys
/// only.
pub(super) type Rows<K, T> = Vec<(ModelName, VersionName, K, T)>;

pub(super) fn rows<K: Clone, T: Clone>(
    map: &BTreeMap<(ModelName, VersionName, K), T>,
) -> Rows<K, T> {
    map.iter()
        .map(|((m, v, k), t)| (m.clone(), v.clone(), k.clone(), t.clone()))
        .collect()
}

pub(super) fn from_rows<K: Ord, T>(rows: Rows<K, T>) -> BTreeMap<(ModelName, VersionName, K), T> {
    rows.into_iter()
        .map(|(m, v, k, t)| ((m, v, k), t))
        .collect()
}
