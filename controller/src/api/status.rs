//! What errors look like to a caller.

use crate::catalogue::BlobError;
use crate::fleet::FleetError;
use sandpiper_core::fleet::Refused;
use tonic::Status;

/// The error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

pub(super) fn of_fleet(error: &FleetError) -> Status {
    let text = chain(error);
    match error {
        FleetError::Refused(refused) => match refused {
            Refused::NotFound { .. } => Status::not_found(text),
            Refused::Conflict(_) => Status::failed_precondition(text),
            Refused::Denied(_) => Status::permission_denied(text),
            Refused::Full(_) => Status::resource_exhausted(text),
            Refused::Invalid(_) | Refused::Plan(_) => Status::invalid_argument(text),
        },
        FleetError::Stopping => Status::unavailable(text),
        FleetError::Key(_) | FleetError::Json(_) => Status::internal(text),
        FleetError::Publish(_) | FleetError::Pki(_) => Status::invalid_argument(text),
    }
}

pub(super) fn of_blob(error: &BlobError) -> Status {
    let text = chain(error);
    match error {
        BlobError::Absent(_) => Status::not_found(text),
        BlobError::Length { .. } | BlobError::Digest(_) => Status::invalid_argument(text),
        BlobError::Damaged(_) => Status::data_loss(text),
        BlobError::Io { .. } | BlobError::Fs(_) => {
            // The path is for the log of the controller, not for the caller.
            tracing::error!("{text}");
            Status::internal("the controller cannot read or write the artefact: see its log")
        }
    }
}

/// A blocking job that panicked or was cancelled.
pub(super) fn of_join(error: &tokio::task::JoinError) -> Status {
    tracing::error!(%error, "a job on the file system did not finish");
    Status::internal("a job of the controller did not finish: see its log")
}
