//! Artefacts to devices: the chunk tree, then the chunks.

use super::status::of_blob;
use crate::catalogue::Blobs;
use sandpiper_proto::convert::{FetchPart, FetchRequest};
use sandpiper_proto::v1;
use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Chunks read ahead of the network: half a megabyte per fetch.
const READ_AHEAD: usize = 8;

pub(super) type Parts = ReceiverStream<Result<v1::FetchChunk, Status>>;

/// How often it is asked whether the caller is still welcome: a fetch may last for hours, and
/// one who was revoked must not go on reading.
const ADMIT_EVERY: Duration = Duration::from_secs(2);

/// Streams an artefact from a blocking thread. It ends when the caller goes, or when `admit`
/// does not admit it any more.
pub(super) fn stream<F>(
    blobs: Arc<Blobs>,
    request: FetchRequest,
    admit: impl Fn() -> F + Send + 'static,
) -> Parts
where
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    tokio::spawn(guard(sender.downgrade(), admit));
    tokio::task::spawn_blocking(move || {
        if let Err(status) = read(&blobs, request, &sender) {
            // The caller may have gone; then nobody needs the error.
            let _ = sender.blocking_send(Err(status));
        }
    });
    ReceiverStream::new(receiver)
}

/// Ends the stream with the refusal of `admit`. Holds no sender of its own while it waits, so
/// that the stream ends with the reading.
async fn guard<F>(sender: mpsc::WeakSender<Result<v1::FetchChunk, Status>>, admit: impl Fn() -> F)
where
    F: Future<Output = Result<(), Status>>,
{
    loop {
        tokio::time::sleep(ADMIT_EVERY).await;
        let Some(sender) = sender.upgrade() else {
            return;
        };
        if sender.is_closed() {
            return;
        }
        if let Err(status) = admit().await {
            // An error ends the response, whatever is still read. The caller may have gone.
            let _ = sender.send(Err(status)).await;
            return;
        }
    }
}

fn read(
    blobs: &Blobs,
    request: FetchRequest,
    sender: &mpsc::Sender<Result<v1::FetchChunk, Status>>,
) -> Result<(), Status> {
    let opened = blobs.open_at(request.artefact, request.first_chunk);
    let (tree, mut file) = opened.map_err(|e| of_blob(&e))?;
    let send = |part: FetchPart| sender.blocking_send(Ok(part.into())).is_ok();
    if !send(FetchPart::Tree(tree.values().to_vec())) {
        return Ok(());
    }
    let first = usize::try_from(request.first_chunk).unwrap_or(usize::MAX);
    for index in first..tree.values().len() {
        let mut chunk = vec![0; tree.chunk_len(index)];
        let whole = file.read_exact(&mut chunk).is_ok() && tree.verify(index, &chunk).is_ok();
        if !whole {
            let error = crate::catalogue::BlobError::Damaged(request.artefact.digest);
            return Err(of_blob(&error));
        }
        if !send(FetchPart::Chunk(chunk.into())) {
            return Ok(());
        }
    }
    Ok(())
}
