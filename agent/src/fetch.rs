//! Fetches artefacts by digest in verified chunks, and resumes what was cut.

use crate::depot::{Depot, DepotError};
use sandpiper_core::chunks::ChunkTree;
use sandpiper_core::digest::ArtefactRef;
use sandpiper_core::telemetry::FailureKind;
use sandpiper_proto::convert::{FetchPart, FetchRequest};
use sandpiper_proto::limits::MAX_FETCH_MESSAGE_BYTES;
use sandpiper_proto::v1;
use sandpiper_proto::v1::device_service_client::DeviceServiceClient;
use std::time::Duration;
use tonic::transport::Channel;

/// A stream that gives nothing for this long is dead: the next attempt resumes.
const IDLE: Duration = Duration::from_secs(30);

/// Why a fetch ended.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The connection is down or was cut; not a failure of the artefact.
    #[error("the connection was lost: {0}")]
    Connection(String),
    /// The controller does not give it, or sends what does not verify.
    #[error("{0}")]
    Bad(String),
    /// It cannot be stored.
    #[error(transparent)]
    Depot(#[from] DepotError),
}

impl FetchError {
    /// The kind to report; `None` when it is only the connection.
    pub fn kind(&self) -> Option<FailureKind> {
        match self {
            Self::Connection(_) => None,
            Self::Bad(_) | Self::Depot(DepotError::Corrupt(_)) => Some(FailureKind::Fetch),
            Self::Depot(_) => Some(FailureKind::Disk),
        }
    }
}

fn status_error(status: &tonic::Status) -> FetchError {
    use tonic::Code::{InvalidArgument, NotFound, OutOfRange, PermissionDenied};
    match status.code() {
        NotFound | PermissionDenied | InvalidArgument | OutOfRange => {
            FetchError::Bad(status.message().to_owned())
        }
        _ => FetchError::Connection(status.to_string()),
    }
}

/// Has the artefact in the depot, fetching what is missing.
///
/// # Errors
/// [`FetchError`]; chunks that were verified stay for the next attempt.
pub async fn fetch(
    depot: &Depot,
    channel: Channel,
    artefact: ArtefactRef,
) -> Result<(), FetchError> {
    if depot.has(artefact) {
        return Ok(());
    }
    let mut service =
        DeviceServiceClient::new(channel).max_decoding_message_size(MAX_FETCH_MESSAGE_BYTES);
    let first_chunk = depot.resume_point(artefact);
    let request = v1::FetchRequest::from(FetchRequest {
        artefact,
        first_chunk,
    });
    let answer = service.fetch(request).await.map_err(|s| status_error(&s))?;
    let mut stream = answer.into_inner();
    let mut partial = None;
    let mut at = first_chunk as usize;
    loop {
        let message = tokio::time::timeout(IDLE, stream.message())
            .await
            .map_err(|_| FetchError::Connection("nothing came for 30 s".into()))?
            .map_err(|s| status_error(&s))?;
        let Some(message) = message else { break };
        let part = FetchPart::try_from(message).map_err(|e| FetchError::Bad(e.to_string()))?;
        match (part, &mut partial) {
            (FetchPart::Tree(values), None) => {
                let tree = ChunkTree::verified(artefact, values)
                    .map_err(|e| FetchError::Bad(e.to_string()))?;
                let begun = depot.begin(tree)?;
                // What was kept is less than was thought: ask anew from where it is right.
                if begun.next() < at {
                    return Err(FetchError::Connection(
                        "resuming from an earlier chunk".into(),
                    ));
                }
                partial = Some(begun);
            }
            (FetchPart::Chunk(bytes), Some(partial)) => {
                if partial.next() == at {
                    partial.push(&bytes)?;
                }
                at += 1;
                if partial.is_complete() {
                    break;
                }
            }
            _ => {
                return Err(FetchError::Bad(
                    "the parts of the artefact are out of order".into(),
                ));
            }
        }
    }
    match partial {
        Some(partial) if partial.is_complete() => {
            depot.commit(partial)?;
            Ok(())
        }
        _ => Err(FetchError::Connection("the stream ended early".into())),
    }
}
