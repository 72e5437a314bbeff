//! Artefacts to devices: the chunk tree, then the chunks.

use super::status::of_blob;
use crate::catalogue::Blobs;
use sandpiper_proto::convert::{FetchPart, FetchRequest};
use sandpiper_proto::v1;
use std::io::Read as _;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Chunks read ahead of the network: half a megabyte per fetch.
const READ_AHEAD: usize = 8;

pub(super) type Parts = ReceiverStream<Result<v1::FetchChunk, Status>>;

/// Streams an artefact from a blocking thread. It ends when the caller goes.
pub(super) fn stream(blobs: Arc<Blobs>, request: FetchRequest) -> Parts {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    tokio::task::spawn_blocking(move || {
        if let Err(status) = read(&blobs, request, &sender) {
            // The caller may have gone; then nobody needs the error.
            let _ = sender.blocking_send(Err(status));
        }
    });
    ReceiverStream::new(receiver)
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
