//! Why the fleet refuses a job.

use crate::catalogue::PublishError;
use sandpiper_core::rollout::PlanError;

/// Why a job is refused. Nothing has changed when one is returned.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
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
    /// The version is not accepted.
    #[error("the version is not published")]
    Publish(#[from] PublishError),
    /// A certificate cannot be issued.
    #[error("the certificate request is not accepted")]
    Pki(#[from] sandpiper_transport::pki::PkiError),
    /// Randomness is missing.
    #[error("no secret can be made")]
    Key(#[from] sandpiper_transport::signing::KeyError),
    /// A bound is reached.
    #[error("{0}")]
    Full(String),
    /// A value has no JSON form.
    #[error("a record cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    /// The controller is stopping.
    #[error("the controller is stopping: try again when it is back")]
    Stopping,
}

impl FleetError {
    pub(crate) fn not_found(kind: &'static str, name: impl std::fmt::Display) -> Self {
        Self::NotFound {
            kind,
            name: name.to_string(),
        }
    }
}
