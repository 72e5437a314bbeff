//! What happened, for people and for audit.

use crate::time::Millis;
use serde::{Deserialize, Serialize};

/// How much attention an event needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Business as usual.
    Info,
    /// Somebody should look.
    Warning,
}

/// One event. `subject` is `kind/name`, for example `rollout/activity-2`, `device/pi-07`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at: Millis,
    /// Attention.
    pub severity: Severity,
    /// What it is about.
    pub subject: String,
    /// Who caused it: an operator's name, a device's name, or `controller`.
    pub actor: String,
    /// Short machine-readable reason, for example `WaveFailed`.
    pub reason: String,
    /// In words.
    pub message: String,
}
