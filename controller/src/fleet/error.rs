//! Why the fleet refuses a job.

use crate::catalogue::PublishError;
use sandpiper_core::fleet::Refused;

/// Why a job is refused. Nothing has changed when one is returned.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The fleet refuses it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The version is not accepted.
    #[error("the version is not published")]
    Publish(#[from] PublishError),
    /// A certificate cannot be issued.
    #[error("the certificate request is not accepted")]
    Pki(#[from] sandpiper_transport::pki::PkiError),
    /// Randomness is missing.
    #[error("no secret can be made")]
    Key(#[from] sandpiper_transport::signing::KeyError),
    /// A value has no JSON form.
    #[error("a record cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    /// The controller is stopping.
    #[error("the controller is stopping: try again when it is back")]
    Stopping,
}
