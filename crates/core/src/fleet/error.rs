//! Why the fleet refuses what somebody asks of it.

use crate::rollout::PlanError;

/// Why something is refused. Nothing has changed when one is returned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no such thing.
    #[error("there is no {kind} `{name}`")]
    NotFound {
        /// Kind of thing.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// It exists, or something stands in the way.
    #[error("{0}")]
    Conflict(String),
    /// The request contradicts the rules.
    #[error("{0}")]
    Invalid(String),
    /// The caller may not do this.
    #[error("{0}")]
    Denied(String),
    /// The rollout cannot be planned.
    #[error("the rollout cannot be planned: {0}")]
    Plan(#[from] PlanError),
    /// A bound is reached.
    #[error("{0}")]
    Full(String),
}

impl Refused {
    /// That there is no such thing.
    pub fn not_found(kind: &'static str, name: impl std::fmt::Display) -> Self {
        Self::NotFound {
            kind,
            name: name.to_string(),
        }
    }
}
