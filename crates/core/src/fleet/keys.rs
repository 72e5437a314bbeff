//! Keys of the store: one letter for the kind, a slash, and the name. The driver keeps records
//! of its own beside them, under other letters: `t` join tokens, `j` and `J` its journal.

use crate::names::{DeploymentName, DeviceName, ModelName, RolloutName, VersionName};
use crate::update::AgentVersion;

pub(super) const DEVICES: &[u8] = b"d/";
pub(super) const LEARNED: &[u8] = b"l/";
pub(super) const RUNGS: &[u8] = b"g/";
pub(super) const DEPLOYMENTS: &[u8] = b"p/";
pub(super) const ROLLOUTS: &[u8] = b"r/";
pub(super) const PLANNED: &[u8] = b"q/";
pub(super) const PROGRESS: &[u8] = b"s/";
pub(super) const MEASURED: &[u8] = b"m/";
pub(super) const VERSIONS: &[u8] = b"v/";
pub(super) const AGENTS: &[u8] = b"a/";
/// The term of the controller that acts.
pub(super) const LEADER: &[u8] = b"L";
pub(super) const EVENTS: &[u8] = b"e/";

fn key(prefix: &[u8], name: &str) -> Vec<u8> {
    [prefix, name.as_bytes()].concat()
}

pub(super) fn device(name: &DeviceName) -> Vec<u8> {
    key(DEVICES, name.as_str())
}

pub(super) fn learned(name: &DeviceName) -> Vec<u8> {
    key(LEARNED, name.as_str())
}

pub(super) fn rungs(name: &DeviceName) -> Vec<u8> {
    key(RUNGS, name.as_str())
}

pub(super) fn deployment(name: &DeploymentName) -> Vec<u8> {
    key(DEPLOYMENTS, name.as_str())
}

pub(super) fn rollout(name: &RolloutName) -> Vec<u8> {
    key(ROLLOUTS, name.as_str())
}

/// What a rollout plans for a device. Names hold no slash, so that the pair is unambiguous.
pub(super) fn planned(rollout: &RolloutName, device: &DeviceName) -> Vec<u8> {
    key(PLANNED, &format!("{rollout}/{device}"))
}

/// Where a device stands in a rollout.
pub(super) fn progress(rollout: &RolloutName, device: &DeviceName) -> Vec<u8> {
    key(PROGRESS, &format!("{rollout}/{device}"))
}

/// What a device measured before and after in a rollout.
pub(super) fn measured(rollout: &RolloutName, device: &DeviceName) -> Vec<u8> {
    key(MEASURED, &format!("{rollout}/{device}"))
}

/// The pair of a key of [`planned`], [`progress`] or [`measured`].
pub(super) fn rollout_and_device(key: &[u8]) -> Option<(RolloutName, DeviceName)> {
    let (rollout, device) = std::str::from_utf8(key.get(2..)?).ok()?.split_once('/')?;
    Some((
        RolloutName::new(rollout).ok()?,
        DeviceName::new(device).ok()?,
    ))
}

/// Names hold no slash, so that the pair is unambiguous.
pub(super) fn version(model: &ModelName, version: &VersionName) -> Vec<u8> {
    key(VERSIONS, &format!("{model}/{version}"))
}

pub(super) fn agent(version: &AgentVersion) -> Vec<u8> {
    key(AGENTS, &version.to_string())
}

/// Big-endian, so that the order of keys is the order of events.
pub(super) fn event(number: u64) -> Vec<u8> {
    [EVENTS, &number.to_be_bytes()].concat()
}
