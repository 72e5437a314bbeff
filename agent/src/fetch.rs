//! Fetches one artefact by digest in verified chunks, and resumes what was cut.

use crate::depot::{Depot, DepotError, Partial};
use sandpiper_core::chunks::ChunkTree;
use sandpiper_core::digest::ArtefactRef;
use sandpiper_core::telemetry::FailureKind;
use sandpiper_proto::convert::{FetchPart, FetchRequest};
use sandpiper_proto::limits::MAX_FETCH_MESSAGE_BYTES;
use sandpiper_proto::v1;
use sandpiper_proto::v1::device_service_client::DeviceServiceClient;
use std::time::Duration;
use tokio::sync::watch;
use tonic::Streaming;
use tonic::transport::Channel;

/// A stream that gives nothing for this long is dead: the next attempt resumes.
const IDLE: Duration = Duration::from_secs(30);

/// Why a fetch ended.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The connection is down or was cut; not a failure of the artefact.
    #[error("the connection was lost: {0}")]
    Connection(String),
    /// The controller does not give it, or sends what is no artefact.
    #[error("{0}")]
    Bad(String),
    /// A chunk was damaged on its way.
    #[error("chunk {chunk} arrived damaged")]
    Chunk {
        /// Its index.
        chunk: usize,
    },
    /// It cannot be stored.
    #[error(transparent)]
    Depot(#[from] DepotError),
    /// Nobody wants it any more.
    #[error("the artefact is no longer wanted")]
    Unwanted,
}

impl FetchError {
    /// The kind to report; `None` when it is no failure of the artefact.
    pub fn kind(&self) -> Option<FailureKind> {
        match self {
            Self::Connection(_) | Self::Unwanted => None,
            Self::Bad(_) | Self::Chunk { .. } | Self::Depot(DepotError::Corrupt(_)) => {
                Some(FailureKind::Fetch)
            }
            Self::Depot(_) => Some(FailureKind::Disk),
        }
    }
}

fn status_error(status: &tonic::Status) -> FetchError {
    use tonic::Code::{DataLoss, InvalidArgument, NotFound, OutOfRange, PermissionDenied};
    match status.code() {
        NotFound | PermissionDenied | InvalidArgument | OutOfRange | DataLoss => {
            FetchError::Bad(status.message().to_owned())
        }
        _ => FetchError::Connection(status.to_string()),
    }
}

/// Runs what may wait for the disk on a thread that may block.
async fn on_disk<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, DepotError> + Send + 'static,
) -> Result<T, FetchError> {
    match tokio::task::spawn_blocking(job).await {
        Ok(done) => Ok(done?),
        Err(error) => Err(FetchError::Connection(format!(
            "a job on the disk did not finish ({error})"
        ))),
    }
}

/// Has the artefact in the depot, fetching the chunks that are missing and no others, for as
/// long as `wanted` holds true.
///
/// # Errors
/// [`FetchError`]; chunks that were verified stay for the next attempt.
pub async fn fetch(
    depot: &Depot,
    channel: Channel,
    artefact: ArtefactRef,
    wanted: &watch::Receiver<bool>,
) -> Result<(), FetchError> {
    if depot.has(artefact) {
        return Ok(());
    }
    let mut service =
        DeviceServiceClient::new(channel).max_decoding_message_size(MAX_FETCH_MESSAGE_BYTES);
    let at = depot.clone();
    let mut kept = on_disk(move || at.resume(artefact)).await?;
    loop {
        let partial = match kept {
            Some(partial) if partial.is_complete() => {
                let at = depot.clone();
                on_disk(move || at.commit(partial)).await?;
                return Ok(());
            }
            other => other,
        };
        // Every round fills at least one hole or fails, so there are as many as there are chunks.
        let first = partial.as_ref().map_or(0, Partial::first_missing);
        let request = v1::FetchRequest::from(FetchRequest {
            artefact,
            first_chunk: first as u64,
        });
        let answer = service.fetch(request).await.map_err(|s| status_error(&s))?;
        let mut stream = answer.into_inner();
        let partial = tree(depot, &mut stream, artefact, partial).await?;
        kept = Some(chunks(&mut stream, partial, first, wanted).await?);
    }
}

async fn next(stream: &mut Streaming<v1::FetchChunk>) -> Result<FetchPart, FetchError> {
    let message = tokio::time::timeout(IDLE, stream.message())
        .await
        .map_err(|_| FetchError::Connection("nothing came for 30 s".into()))?
        .map_err(|s| status_error(&s))?
        .ok_or_else(|| FetchError::Connection("the stream ended early".into()))?;
    FetchPart::try_from(message).map_err(|e| FetchError::Bad(e.to_string()))
}

/// The chunk tree comes first. It is needed only if the download has none on the disk: a digest
/// has only one.
async fn tree(
    depot: &Depot,
    stream: &mut Streaming<v1::FetchChunk>,
    artefact: ArtefactRef,
    partial: Option<Partial>,
) -> Result<Partial, FetchError> {
    let values = loop {
        match next(stream).await? {
            FetchPart::Tree(values) => break values,
            FetchPart::Wait => {}
            FetchPart::Chunk(_) => return Err(out_of_order()),
        }
    };
    if let Some(partial) = partial {
        return Ok(partial);
    }
    let tree = ChunkTree::verified(artefact, values).map_err(|e| FetchError::Bad(e.to_string()))?;
    let depot = depot.clone();
    on_disk(move || depot.begin(tree)).await
}

/// Takes chunks from `at` on, up to the first that is there already.
async fn chunks(
    stream: &mut Streaming<v1::FetchChunk>,
    mut partial: Partial,
    mut at: usize,
    wanted: &watch::Receiver<bool>,
) -> Result<Partial, FetchError> {
    while partial.is_missing(at) {
        if !*wanted.borrow() {
            return Err(FetchError::Unwanted);
        }
        let bytes = match next(stream).await? {
            FetchPart::Chunk(bytes) => bytes,
            // Perhaps it is not wanted any more by now.
            FetchPart::Wait => continue,
            FetchPart::Tree(_) => return Err(out_of_order()),
        };
        let stored = on_disk(move || partial.put(at, &bytes).map(|()| partial)).await;
        partial = stored.map_err(|error| match error {
            FetchError::Depot(DepotError::Corrupt(_)) => FetchError::Chunk { chunk: at },
            other => other,
        })?;
        at += 1;
    }
    Ok(partial)
}

fn out_of_order() -> FetchError {
    FetchError::Bad("the parts of the artefact are out of order".into())
}
