//! Keys of the store: one letter for the kind, a slash, and the name.

use sandpiper_core::names::{DeploymentName, DeviceName, ModelName, RolloutName, VersionName};

pub(super) const DEVICES: &[u8] = b"d/";
pub(super) const LEARNED: &[u8] = b"l/";
pub(super) const DEPLOYMENTS: &[u8] = b"p/";
pub(super) const ROLLOUTS: &[u8] = b"r/";
pub(super) const TOKENS: &[u8] = b"t/";
pub(super) const VERSIONS: &[u8] = b"v/";
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

pub(super) fn deployment(name: &DeploymentName) -> Vec<u8> {
    key(DEPLOYMENTS, name.as_str())
}

pub(super) fn rollout(name: &RolloutName) -> Vec<u8> {
    key(ROLLOUTS, name.as_str())
}

pub(super) fn token(id: &str) -> Vec<u8> {
    key(TOKENS, id)
}

/// Names hold no slash, so that the pair is unambiguous.
pub(super) fn version(model: &ModelName, version: &VersionName) -> Vec<u8> {
    key(VERSIONS, &format!("{model}/{version}"))
}

/// Big-endian, so that the order of keys is the order of events.
pub(super) fn event(number: u64) -> Vec<u8> {
    [EVENTS, &number.to_be_bytes()].concat()
}
