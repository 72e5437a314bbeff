//! Records as the store keeps them.

use sandpiper_core::assignment::{AssignedModel, Generation};
use sandpiper_core::digest::Digest;
use sandpiper_core::learning::{Learned, LearnedMap};
use sandpiper_core::names::{DeviceName, ModelName, VariantName, VersionName};
use sandpiper_core::policy::{Deployment, Labels};
use sandpiper_core::profile::DeviceProfile;
use sandpiper_core::selection::FailedVariants;
use sandpiper_core::signed::Signed;
use sandpiper_core::telemetry::Observation;
use sandpiper_core::time::Millis;
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
    /// What it said it is.
    pub profile: Option<DeviceProfile>,
    /// What it last reported.
    pub observation: Option<Observation>,
    /// When it last spoke.
    pub last_seen: Option<Millis>,
    /// Generation of its assignment.
    pub generation: Generation,
    /// Its assignment as signed.
    pub assignment: Option<Signed>,
    /// What the assignment says.
    pub models: BTreeMap<ModelName, AssignedModel>,
    /// What it held before the assignment of each model.
    pub previous: BTreeMap<ModelName, AssignedModel>,
    /// Inferences of each model since it was assigned its version.
    pub served: BTreeMap<ModelName, u64>,
    /// Variants that failed here and why.
    pub failed: Vec<(ModelName, VersionName, VariantName, String)>,
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
            profile: None,
            observation: None,
            last_seen: None,
            generation: Generation::default(),
            assignment: None,
            models: BTreeMap::new(),
            previous: BTreeMap::new(),
            served: BTreeMap::new(),
            failed: Vec::new(),
            acknowledged: Vec::new(),
        }
    }

    /// Failed variants as the selection wants them.
    pub fn failed_variants(&self) -> FailedVariants {
        let each = self.failed.iter();
        each.map(|(m, v, n, why)| ((m.clone(), v.clone(), n.clone()), why.clone()))
            .collect()
    }
}

/// A deployment and the version it stands at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeploymentRecord {
    /// As applied.
    pub deployment: Deployment,
    /// The version that the last promoted rollout brought.
    pub version: Option<VersionName>,
}

/// A join token. Its secret is not kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Short public name.
    pub id: String,
    /// Hash of the secret.
    pub secret: Digest,
    /// Labels of the device that uses it.
    pub labels: Labels,
    /// For people.
    pub description: String,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created_at: Millis,
    /// Until when it is good.
    pub expires_at: Millis,
    /// The device that used it.
    pub used_by: Option<DeviceName>,
    /// Whether an operator took it back.
    pub revoked: bool,
}

/// What a device's windows taught, in a form with text keys only.
pub(super) type LearnedRows = Vec<(ModelName, VersionName, VariantName, Learned)>;

pub(super) fn learned_rows(map: &LearnedMap) -> LearnedRows {
    map.iter()
        .map(|((m, v, n), l)| (m.clone(), v.clone(), n.clone(), l.clone()))
        .collect()
}

pub(super) fn learned_map(rows: LearnedRows) -> LearnedMap {
    rows.into_iter()
        .map(|(m, v, n, l)| ((m, v, n), l))
        .collect()
}
