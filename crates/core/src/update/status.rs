//! What a device tells of its agent.

use super::release::AgentVersion;
use serde::{Deserialize, Serialize};

/// Where a device stands with the newest order for its agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdatePhase {
    /// The program is being fetched and looked at.
    Fetching,
    /// It is on the disk and waits for a good moment.
    Staged,
    /// It runs, and has not shown yet that it works.
    Trying,
    /// It runs, or ran, and works.
    Confirmed,
    /// It did not work: the program before runs again.
    FellBack,
    /// It was not tried.
    Refused,
    /// Somebody installed another program on the device, and that runs.
    Replaced,
}

/// The agent of a device: which one runs, and what became of the newest order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Version that runs: that of its release, or what the installed program says of itself.
    pub running: String,
    /// What runs is the program that is installed on the device, and no release.
    pub installed: bool,
    /// Number of the newest order; 0 when there was none.
    pub order: u64,
    /// Release that it asks for; the installed program when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<AgentVersion>,
    /// Where it stands; missing without an order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<UpdatePhase>,
    /// Why, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}
