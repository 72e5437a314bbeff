//! What is known of a rollout: its state and that of each device.

use super::devices::Devices;
use super::measured::Measured;
use super::plan::RolloutPlan;
use crate::time::Millis;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Where a rollout stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum RolloutState {
    /// Made, not started.
    Planned,
    /// A wave moves.
    Running {
        /// Index of the wave.
        wave: usize,
        /// When it began.
        since: Millis,
    },
    /// A wave may not begin before an operator has approved it.
    AwaitingApproval {
        /// Index of the wave.
        wave: usize,
        /// Since when.
        since: Millis,
    },
    /// Held by an operator, or by gates that have too little to go by.
    Paused {
        /// Who.
        by: String,
        /// Index of the wave it resumes with.
        wave: usize,
        /// Time the wave had run before, in milliseconds.
        ran_ms: u64,
        /// Why, unless an operator did it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
    },
    /// Every wave has succeeded.
    Promoted,
    /// Devices go back, in reverse order of the waves.
    RollingBack {
        /// Why.
        why: String,
        /// Since when.
        since: Millis,
    },
    /// All devices that could be reached are back.
    RolledBack {
        /// Why.
        why: String,
    },
    /// A newer rollout of the same deployment took over.
    Superseded,
}

impl RolloutState {
    /// Whether nothing will change any more.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Promoted | Self::RolledBack { .. } | Self::Superseded => true,
            Self::Planned
            | Self::AwaitingApproval { .. }
            | Self::Running { .. }
            | Self::Paused { .. }
            | Self::RollingBack { .. } => false,
        }
    }

    /// One word, for tables.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::AwaitingApproval { .. } => "awaiting-approval",
            Self::Running { .. } => "running",
            Self::Paused { .. } => "paused",
            Self::Promoted => "promoted",
            Self::RollingBack { .. } => "rolling-back",
            Self::RolledBack { .. } => "rolled-back",
            Self::Superseded => "superseded",
        }
    }
}

/// Where a device stands in a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum DeviceRollout {
    /// Its wave has not come.
    Waiting,
    /// Its wave has come, and it is told nothing while its download window is shut.
    Held {
        /// Since when.
        since: Millis,
        /// When the window opens; missing when it does not while the device is waited for.
        until: Option<Millis>,
    },
    /// The new version is assigned; bytes are on their way.
    Assigned {
        /// Since when.
        since: Millis,
    },
    /// The new version is assigned, and the device waits by itself.
    Parked {
        /// Since when.
        since: Millis,
        /// What for.
        wait: Wait,
        /// When that ends, by its windows.
        until: Option<Millis>,
        /// How long it had worked before, in milliseconds.
        worked_ms: u64,
    },
    /// Everything is on the device: the version is loaded and tested.
    Switching {
        /// Since when.
        since: Millis,
        /// How long it had worked before, in milliseconds.
        worked_ms: u64,
    },
    /// Seen serving the new version.
    Serving {
        /// Since when.
        since: Millis,
        /// Inferences reported under the new code.
        #[serde(default)]
        inferences: u64,
    },
    /// Served inferences under the new code past the bake time.
    Succeeded,
    /// Reported that the new version does not work.
    Failed {
        /// In words.
        message: String,
    },
    /// The earlier version is assigned again.
    GoingBack,
    /// Seen with the earlier version (or with nothing, if there was none).
    Back,
    /// Removed from the fleet.
    Gone,
}

/// What a device waits for that was told to move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// Its download window.
    Download,
    /// Its switch window; everything is there.
    Switch,
    /// Somebody to tell it the time: its own clock is not trusted.
    Clock,
}

impl DeviceRollout {
    /// Whether it was told to move and was not seen serving since.
    pub fn is_in_flight(&self) -> bool {
        matches!(
            self,
            Self::Assigned { .. } | Self::Parked { .. } | Self::Switching { .. }
        )
    }

    /// Whether it was never told anything.
    pub fn is_untouched(&self) -> bool {
        matches!(self, Self::Waiting | Self::Held { .. })
    }

    /// One word, for tables.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Held { .. } => "held",
            Self::Assigned { .. } => "assigned",
            Self::Parked { .. } => "parked",
            Self::Switching { .. } => "switching",
            Self::Serving { .. } => "serving",
            Self::Succeeded => "succeeded",
            Self::Failed { .. } => "failed",
            Self::GoingBack => "going-back",
            Self::Back => "back",
            Self::Gone => "gone",
        }
    }
}

/// A rollout in execution: what the controller keeps on disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Rollout {
    /// The plan it executes.
    pub plan: RolloutPlan,
    /// Where it stands.
    pub state: RolloutState,
    /// Every planned device.
    pub devices: Devices,
    /// What devices measured before and after.
    pub measured: Measured,
    /// The wave whose gates an operator has waived.
    pub waived: Option<usize>,
    /// The first of the waves that an operator let follow at once: from it on, all waves up to
    /// the last move as one.
    pub merged_from: Option<usize>,
    /// Waves, counted from 0, that an operator has approved.
    pub approved: BTreeSet<usize>,
    /// When it was last resumed: phases of devices begin anew then.
    pub resumed_at: Option<Millis>,
    /// When it was made.
    pub created_at: Millis,
    /// Who made it.
    pub actor: String,
}

impl Rollout {
    /// A rollout of this plan that has not begun.
    pub fn new(plan: RolloutPlan, actor: &str, now: Millis) -> Self {
        Self {
            devices: Devices::new(&plan),
            measured: Measured::new(plan.spec.gates.clone()),
            plan,
            state: RolloutState::Planned,
            waived: None,
            merged_from: None,
            approved: BTreeSet::new(),
            resumed_at: None,
            created_at: now,
            actor: actor.to_owned(),
        }
    }
}
