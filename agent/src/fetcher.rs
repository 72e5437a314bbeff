//! The downloads under way: one task for each artefact, however often it is asked for.

use crate::depot::Depot;
use crate::fetch::{FetchError, fetch};
use crate::words::chain;
use sandpiper_core::backoff::FullJitter;
use sandpiper_core::digest::{ArtefactRef, Digest};
use sandpiper_core::reconcile::DeviceEvent;
use sandpiper_core::telemetry::FailureKind;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};
use tonic::transport::Channel;

/// Downloads at once: two, so that one that waits for its retry does not stop the others, and
/// the network and card of a small board are not overrun. The tasks themselves are as many as
/// the artefacts that an assignment names.
const AT_ONCE: usize = 2;
/// Times that an artefact may arrive damaged before it is told to the reconciler, which asks for
/// it again a few times more and then gives the version up.
const MAX_DAMAGED: u32 = 4;

/// Waits between the attempts of one artefact.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Ceiling of the first wait; it doubles with every attempt that brings nothing.
    pub first: Duration,
    /// Longest wait.
    pub longest: Duration,
}

impl Default for Patience {
    /// Half a second up to five minutes, as for the connection.
    fn default() -> Self {
        Self {
            first: Duration::from_millis(500),
            longest: Duration::from_secs(300),
        }
    }
}

/// The downloads of a device. Every artefact that was asked for is answered with one
/// [`DeviceEvent`], unless it stops being wanted before.
#[derive(Clone)]
pub struct Fetcher {
    depot: Depot,
    channel: watch::Receiver<Option<Channel>>,
    answers: mpsc::Sender<DeviceEvent>,
    patience: Patience,
    running: Arc<Mutex<BTreeMap<Digest, Job>>>,
    places: Arc<Semaphore>,
}

/// A download under way.
#[derive(Debug)]
struct Job {
    /// Whether it is wanted still.
    want: watch::Sender<bool>,
    /// It was asked for again since its last attempt began: a failure of that one is an old one.
    asked_again: bool,
}

impl Fetcher {
    /// Fetches into this depot over whatever connection is live.
    pub fn new(
        depot: Depot,
        channel: watch::Receiver<Option<Channel>>,
        answers: mpsc::Sender<DeviceEvent>,
        patience: Patience,
    ) -> Self {
        Self {
            depot,
            channel,
            answers,
            patience,
            running: Arc::default(),
            places: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<Digest, Job>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts what is not under way.
    pub fn request(&self, artefacts: Vec<ArtefactRef>) {
        for artefact in artefacts {
            let mut running = self.running();
            if let Some(job) = running.get_mut(&artefact.digest) {
                job.want.send_replace(true);
                job.asked_again = true;
                continue;
            }
            let (want, wanted) = watch::channel(true);
            let asked_again = false;
            running.insert(artefact.digest, Job { want, asked_again });
            tokio::spawn(self.clone().work(artefact, wanted));
        }
    }

    /// What is under way, ending or not: its partial files are in use.
    pub fn under_way(&self) -> BTreeSet<Digest> {
        self.running().keys().copied().collect()
    }

    /// Lets these downloads end where they are, until they are asked for again.
    pub fn stop(&self, artefacts: &[ArtefactRef]) {
        let running = self.running();
        for job in artefacts.iter().filter_map(|a| running.get(&a.digest)) {
            job.want.send_replace(false);
        }
    }

    /// Lets the downloads end that are not of `live`.
    pub fn keep_only(&self, live: &BTreeSet<Digest>) {
        for (digest, job) in self.running().iter() {
            let wanted = live.contains(digest);
            job.want
                .send_if_modified(|w| std::mem::replace(w, wanted) != wanted);
        }
    }

    async fn work(self, artefact: ArtefactRef, mut wanted: watch::Receiver<bool>) {
        let answer = loop {
            let answer = self.answer(artefact, &mut wanted).await;
            let mut running = self.running();
            // Wanted again in the meantime: nobody else starts it while it has its entry. Without
            // a sender of channels the agent stops.
            let stops = self.channel.has_changed().is_err();
            let job = running.get_mut(&artefact.digest);
            let again = job.is_some_and(|job| std::mem::take(&mut job.asked_again));
            let old = match answer {
                None => true,
                Some(DeviceEvent::FetchFailed { .. }) => again,
                Some(_) => false,
            };
            if old && *wanted.borrow() && !stops {
                continue;
            }
            running.remove(&artefact.digest);
            break answer;
        };
        if let Some(answer) = answer {
            // The agent stops when nobody listens.
            let _ = self.answers.send(answer).await;
        }
    }

    /// `None` when it is no longer wanted.
    async fn answer(
        &self,
        artefact: ArtefactRef,
        wanted: &mut watch::Receiver<bool>,
    ) -> Option<DeviceEvent> {
        let patience = || FullJitter::new(self.patience.first, self.patience.longest);
        let (mut backoff, mut damaged) = (patience(), 0);
        loop {
            let before = self.depot.partial_bytes(artefact);
            let error = match self.attempt(artefact, wanted).await? {
                Ok(()) => return Some(DeviceEvent::Fetched(artefact)),
                Err(FetchError::Unwanted) => return None,
                Err(error) => error,
            };
            damaged += u32::from(matches!(error, FetchError::Chunk { .. }));
            let again = matches!(error, FetchError::Chunk { .. }) && damaged < MAX_DAMAGED;
            match error.kind() {
                Some(kind) if !again => return Some(failed(artefact, kind, &error)),
                _ => {}
            }
            if self.depot.partial_bytes(artefact) > before {
                backoff = patience();
            }
            let wait = backoff.after_failure(rand::random());
            tracing::info!(artefact = %artefact.digest.short(), ?wait, "a fetch is resumed: {}", chain(&error));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = unwanted(wanted) => return None,
            }
        }
    }

    /// Waits for a place and a connection as long as it takes, then tries once. `None` when it
    /// is no longer wanted or the agent stops.
    async fn attempt(
        &self,
        artefact: ArtefactRef,
        wanted: &mut watch::Receiver<bool>,
    ) -> Option<Result<(), FetchError>> {
        if self.depot.has(artefact) {
            return Some(Ok(()));
        }
        let mut channel = self.channel.clone();
        let ready = async {
            let live = channel.wait_for(Option::is_some).await.ok()?.clone()?;
            let place = self.places.acquire().await.ok()?;
            Some((live, place))
        };
        let (live, _place) = tokio::select! {
            ready = ready => ready?,
            () = unwanted(wanted) => return None,
        };
        Some(fetch(&self.depot, live, artefact, wanted).await)
    }
}

async fn unwanted(wanted: &mut watch::Receiver<bool>) {
    // The sender lives in the table of what runs, as long as this task does.
    let _ = wanted.wait_for(|wanted| !wanted).await;
}

fn failed(artefact: ArtefactRef, kind: FailureKind, error: &FetchError) -> DeviceEvent {
    DeviceEvent::FetchFailed {
        artefact,
        kind,
        message: chain(error),
    }
}
