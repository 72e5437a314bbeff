//! Which variant serves a device best, and why the others do not.
//!
//! `candidate` filters and predicts one variant, `choose` compares those that are left,
//! `verdict` holds the words of the answer.

mod candidate;
mod choose;
#[cfg(test)]
mod properties;
mod verdict;

pub use verdict::{Candidate, Choice, ChoiceReason, Expected, Misfit, Prediction, Selection};

use crate::assignment::Ladder;
use crate::learning::LearnedMap;
use crate::manifest::{VariantManifest, VersionManifest};
use crate::names::{DeviceName, ModelName, VariantName, VersionName};
use crate::policy::Policy;
use crate::profile::{Conditions, DeviceProfile, PowerState};
use std::collections::BTreeMap;

/// Share of the available RAM that a model may plan for.
pub const RAM_SHARE: f64 = 0.8;
/// Probability with which the latency objective must be met.
pub const SLO_PROBABILITY: f64 = 0.95;
/// RAM of a runner besides the guest's memory and its native code, in bytes.
pub const RUNNER_BASE_BYTES: u64 = 4 << 20;
/// A variant that serves already is kept unless another one gains at least this many points.
pub const UPGRADE_POINTS: f64 = 0.5;
/// ... or saves at least this share of energy or time where that is the objective.
pub const UPGRADE_SAVING: f64 = 0.1;

/// Variants that failed on a device, with what happened.
pub type FailedVariants = BTreeMap<(ModelName, VersionName, VariantName), String>;

/// Everything a selection looks at of one device.
#[derive(Debug, Clone, Copy)]
pub struct DeviceView<'a> {
    /// Name.
    pub name: &'a DeviceName,
    /// What it is.
    pub profile: &'a DeviceProfile,
    /// How it is.
    pub conditions: &'a Conditions,
    /// What was learned from its own reports.
    pub learned: &'a LearnedMap,
    /// What failed on it.
    pub failed: &'a FailedVariants,
    /// What serves now, when it is of the same version.
    pub current: Option<&'a Ladder>,
}

/// Selects a variant of a version for every power state of a device.
///
/// Pure: the same arguments give the same answer.
pub fn select(device: &DeviceView<'_>, manifest: &VersionManifest, policy: &Policy) -> Selection {
    let candidates: Vec<_> = manifest
        .variants
        .iter()
        .map(|variant| candidate::examine(device, manifest, variant, policy))
        .collect();
    let choices = PowerState::ALL
        .into_iter()
        .filter_map(|state| choose::choose(state, &candidates, policy, device.current))
        .collect();
    Selection {
        device: device.name.clone(),
        model: manifest.model.clone(),
        version: manifest.version.clone(),
        candidates,
        choices,
    }
}

/// What a variant of a version is expected to do on a device, whether it fits there or not.
pub fn expect(
    device: &DeviceView<'_>,
    manifest: &VersionManifest,
    variant: &VariantManifest,
) -> Expected {
    candidate::expect(device, manifest, variant)
}
