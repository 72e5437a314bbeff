//! What operators may ask of a rollout, and when.

use super::state::RolloutState;
use crate::names::VersionName;
use serde::{Deserialize, Serialize};

/// What an operator does with a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SteerVerb {
    /// Hold it.
    Pause,
    /// Let it go on.
    Resume,
    /// Let the wave that waits for it begin.
    Approve {
        /// Why, in the operator's words.
        why: Option<String>,
    },
    /// Let the present wave pass whatever its gates say.
    Promote {
        /// All waves that are left too, at once.
        full: bool,
    },
    /// Stop it and go back.
    Abort,
    /// Plan and start it once more, after it was taken back or superseded.
    Retry,
    /// Go back to a version from before, though it was promoted.
    Undo {
        /// To this one; missing: to the one that was replaced.
        to: Option<VersionName>,
    },
}

impl SteerVerb {
    /// Whether this can be done in a state, and if not, which can.
    ///
    /// # Errors
    /// What it takes, in words that follow "only".
    pub fn fits(&self, state: &RolloutState) -> Result<(), &'static str> {
        use RolloutState::{
            AwaitingApproval, Paused, Planned, Promoted, RolledBack, Running, Superseded,
        };
        let (fits, only) = match self {
            Self::Pause => (
                matches!(state, Running { .. }),
                "a running one can be paused",
            ),
            Self::Resume => (
                matches!(state, Paused { .. }),
                "a paused one can be resumed",
            ),
            Self::Approve { .. } => (
                matches!(state, AwaitingApproval { .. }),
                "one that waits for it can be approved",
            ),
            Self::Promote { full: false } => (
                matches!(state, Running { .. } | Paused { .. }),
                "a running or paused one can be promoted",
            ),
            Self::Promote { full: true } => (
                matches!(
                    state,
                    Running { .. } | Paused { .. } | AwaitingApproval { .. }
                ),
                "one that is under way can be promoted",
            ),
            Self::Retry => (
                matches!(state, RolledBack { .. } | Superseded),
                "one that was rolled back or superseded can be tried again",
            ),
            Self::Abort => (
                matches!(
                    state,
                    Planned | AwaitingApproval { .. } | Running { .. } | Paused { .. }
                ),
                "one that is under way can be aborted (`undo` takes a promoted one back)",
            ),
            Self::Undo { .. } => (
                matches!(state, Promoted),
                "a promoted one can be undone (`abort` stops one that is under way)",
            ),
        };
        if fits { Ok(()) } else { Err(only) }
    }
}
