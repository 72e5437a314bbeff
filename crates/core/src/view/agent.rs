//! Releases of the agent, and orders for them.

use crate::names::{ActorName, DeviceName};
use crate::target::Arch;
use crate::time::Millis;
use crate::update::{AgentRelease, AgentVersion};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A release of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentReleaseDoc {
    /// Version.
    pub version: AgentVersion,
    /// Who published it.
    pub publisher: ActorName,
    /// When, by the publisher's clock.
    pub published_at: Millis,
    /// The oldest version that a device may be brought to once it has run this one.
    pub oldest: Option<AgentVersion>,
    /// Size of the program for each architecture, in bytes.
    pub size_bytes: BTreeMap<Arch, u64>,
    /// Devices that it was ordered for last.
    pub ordered: u64,
    /// Devices that run it.
    pub running: u64,
}

impl AgentReleaseDoc {
    /// The document of a release.
    pub fn of(release: &AgentRelease, ordered: u64, running: u64) -> Self {
        let sizes = release.binaries.iter();
        Self {
            version: release.version.clone(),
            publisher: release.publisher.clone(),
            published_at: release.published_at,
            oldest: release.oldest.clone(),
            size_bytes: sizes.map(|(arch, a)| (*arch, a.size_bytes)).collect(),
            ordered,
            running,
        }
    }
}

/// What became of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentOrdersDoc {
    /// The release; the installed program when missing.
    pub version: Option<AgentVersion>,
    /// Devices that were ordered.
    pub ordered: Vec<DeviceName>,
    /// Devices that were chosen and cannot run it.
    pub passed_by: Vec<PassedByDoc>,
}

/// A device that an order passed by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedByDoc {
    /// The device.
    pub device: DeviceName,
    /// Why, as the end of a sentence about it.
    pub why: String,
}
