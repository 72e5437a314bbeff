//! Artefacts to devices: the chunk tree, then the chunks.

use super::status::{of_blob, of_join};
use super::throttle::Throttle;
use crate::catalogue::Blobs;
use sandpiper_core::bandwidth::Budget;
use sandpiper_core::names::DeviceName;
use sandpiper_proto::convert::{FetchPart, FetchRequest};
use sandpiper_proto::v1;
use std::io::Read as _;
use std::sync::{Arc, Mutex, PoisonError};
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

/// How often a device that waits for its turn hears that it does: it takes a silent stream for dead.
const STILL_HERE: Duration = Duration::from_secs(10);

/// What a fetch is about.
pub(super) struct Fetching {
    /// Who fetches.
    pub(super) device: DeviceName,
    /// What.
    pub(super) request: FetchRequest,
    /// Under which budgets of bandwidth, as of now.
    pub(super) budgets: Vec<Budget>,
}

type Sender = mpsc::Sender<Result<v1::FetchChunk, Status>>;

/// Streams an artefact, as fast as its budgets let. It ends when the caller goes, or when `admit`,
/// which says what budgets there are by now, does not admit it any more.
pub(super) fn stream<F>(
    blobs: Arc<Blobs>,
    throttle: Arc<Throttle>,
    fetching: Fetching,
    admit: impl Fn() -> F + Send + 'static,
) -> Parts
where
    F: Future<Output = Result<Vec<Budget>, Status>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    let budgets = Arc::new(Mutex::new(fetching.budgets));
    tokio::spawn(guard(sender.downgrade(), admit, Arc::clone(&budgets)));
    let pace = Pace {
        throttle,
        device: fetching.device,
        budgets,
    };
    tokio::spawn(async move {
        if let Err(status) = send(blobs, fetching.request, &sender, &pace).await {
            // The caller may have gone; then nobody needs the error.
            let _ = sender.send(Err(status)).await;
        }
    });
    ReceiverStream::new(receiver)
}

/// Ends the stream with the refusal of `admit`. Holds no sender of its own while it waits, so
/// that the stream ends with the reading.
async fn guard<F>(
    sender: mpsc::WeakSender<Result<v1::FetchChunk, Status>>,
    admit: impl Fn() -> F,
    budgets: Arc<Mutex<Vec<Budget>>>,
) where
    F: Future<Output = Result<Vec<Budget>, Status>>,
{
    loop {
        tokio::time::sleep(ADMIT_EVERY).await;
        let Some(sender) = sender.upgrade() else {
            return;
        };
        if sender.is_closed() {
            return;
        }
        match admit().await {
            Ok(now) => *budgets.lock().unwrap_or_else(PoisonError::into_inner) = now,
            Err(status) => {
                // An error ends the response, whatever is still read. The caller may have gone.
                let _ = sender.send(Err(status)).await;
                return;
            }
        }
    }
}

/// When the next chunk of a fetch may go.
struct Pace {
    throttle: Arc<Throttle>,
    device: DeviceName,
    budgets: Arc<Mutex<Vec<Budget>>>,
}

impl Pace {
    /// Waits for the turn of a chunk and tells the caller so; `false` when it has gone.
    async fn turn(&self, sender: &Sender, bytes: usize) -> bool {
        let budgets = self.budgets.lock();
        let budgets = budgets.unwrap_or_else(PoisonError::into_inner).clone();
        let turn = self.throttle.pass(&self.device, &budgets, bytes);
        tokio::pin!(turn);
        loop {
            tokio::select! {
                () = &mut turn => return true,
                () = sender.closed() => return false,
                () = tokio::time::sleep(STILL_HERE) => {
                    if sender.send(Ok(FetchPart::Wait.into())).await.is_err() {
                        return false;
                    }
                }
            }
        }
    }
}

/// Reads and sends. Only the reading takes one of the threads that may block, and not while it
/// waits for the network or for its turn: the store needs them too.
async fn send(
    blobs: Arc<Blobs>,
    request: FetchRequest,
    sender: &Sender,
    pace: &Pace,
) -> Result<(), Status> {
    let open = move || blobs.open_at(request.artefact, request.first_chunk);
    let opened = on_disk(open).await?;
    let (tree, mut file) = opened.map_err(|e| of_blob(&e))?;
    let tree = Arc::new(tree);
    let part = FetchPart::Tree(tree.values().to_vec());
    if sender.send(Ok(part.into())).await.is_err() {
        return Ok(());
    }
    let first = usize::try_from(request.first_chunk).unwrap_or(usize::MAX);
    for index in first..tree.values().len() {
        if !pace.turn(sender, tree.chunk_len(index)).await {
            return Ok(());
        }
        let of = Arc::clone(&tree);
        let read = on_disk(move || {
            let mut chunk = vec![0; of.chunk_len(index)];
            let whole = file.read_exact(&mut chunk).is_ok() && of.verify(index, &chunk).is_ok();
            (file, whole.then_some(chunk))
        });
        let (same, chunk) = read.await?;
        file = same;
        let Some(chunk) = chunk else {
            let error = crate::catalogue::BlobError::Damaged(request.artefact.digest);
            return Err(of_blob(&error));
        };
        let part = FetchPart::Chunk(chunk.into());
        if sender.send(Ok(part.into())).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

async fn on_disk<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(job).await;
    done.map_err(|e| of_join(&e))
}
