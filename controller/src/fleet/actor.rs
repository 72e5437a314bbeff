//! The one task that owns the fleet's state.

use super::FleetError;
use super::journal;
use super::state::State;
use crate::clock;
use crate::store::{Store, StoreError};
use sandpiper_core::fleet::{Changed, Outbox, ToDevice, Writes};
use sandpiper_core::names::DeviceName;
use sandpiper_core::time::Millis;
use sandpiper_proto::convert::FromController;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;

/// Jobs waiting. Callers wait for room, so that load is felt where it comes from.
const MAILBOX: usize = 1024;
/// Changes a slow watcher may be behind before it is resynchronised.
const WATCH_QUEUE: usize = 4096;
/// Longest sleep: a stepped wall clock is noticed within this time.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);

/// Called when the job's writes are durable.
type Answer = Box<dyn FnOnce() + Send>;
type Job = Box<dyn FnOnce(&mut State, Millis) -> Answer + Send>;

/// A way to give the fleet jobs. Cheap to clone.
#[derive(Clone)]
pub struct FleetHandle {
    jobs: mpsc::Sender<Job>,
    changes: broadcast::Sender<Changed>,
}

/// The running task. It ends when all handles are dropped, or with an error when the store
/// fails: then memory and store may differ, and only a restart makes them one again.
pub type Running = JoinHandle<Result<(), StoreError>>;

impl FleetHandle {
    /// Runs a job on the state, and gives its result once everything it changed is durable.
    ///
    /// # Errors
    /// What the job returns, or [`FleetError::Stopping`].
    pub async fn run<T, F>(&self, job: F) -> Result<T, FleetError>
    where
        T: Send + 'static,
        F: FnOnce(&mut State, Millis) -> Result<T, FleetError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |state, now| {
            let result = job(state, now);
            // A caller that has gone does not need the answer.
            Box::new(move || drop(reply.send(result)))
        });
        self.jobs
            .send(job)
            .await
            .map_err(|_| FleetError::Stopping)?;
        answer.await.map_err(|_| FleetError::Stopping)?
    }

    /// Changes from now on.
    pub fn changes(&self) -> broadcast::Receiver<Changed> {
        self.changes.subscribe()
    }
}

/// Starts the task.
pub fn spawn(state: State, store: Arc<dyn Store>) -> (FleetHandle, Running) {
    let (jobs, mailbox) = mpsc::channel(MAILBOX);
    let (changes, _) = broadcast::channel(WATCH_QUEUE);
    let handle = FleetHandle {
        jobs,
        changes: changes.clone(),
    };
    (handle, tokio::spawn(run(state, store, mailbox, changes)))
}

async fn run(
    mut state: State,
    store: Arc<dyn Store>,
    mut mailbox: mpsc::Receiver<Job>,
    changes: broadcast::Sender<Changed>,
) -> Result<(), StoreError> {
    loop {
        let wait = state.fleet.next_deadline().map_or(LONGEST_SLEEP, |at| {
            at.since(clock::now())
                .min(LONGEST_SLEEP)
                .max(Duration::from_millis(1))
        });
        let answer = tokio::select! {
            job = mailbox.recv() => match job {
                Some(job) => Some(job(&mut state, clock::now())),
                None => return Ok(()),
            },
            () = tokio::time::sleep(wait) => {
                state.fleet.tick(clock::now());
                None
            }
        };
        let mut out = state.take_outbox();
        commit(&store, std::mem::take(&mut out.writes)).await?;
        deliver(&mut state, out, &changes);
        if let Some(answer) = answer {
            answer();
        }
    }
}

async fn commit(store: &Arc<dyn Store>, writes: Writes) -> Result<(), StoreError> {
    if writes.is_empty() {
        return Ok(());
    }
    let store = Arc::clone(store);
    let written =
        tokio::task::spawn_blocking(move || journal::commit(store.as_ref(), writes)).await;
    // A panic of the store leaves the same doubt as an error; it is passed on.
    written.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}

fn deliver(state: &mut State, out: Outbox, changes: &broadcast::Sender<Changed>) {
    for event in &out.noted {
        let (subject, reason) = (&event.subject, &event.reason);
        tracing::info!(subject, reason, "{}", event.message);
    }
    for (stream, message) in out.send {
        let last = matches!(message, ToDevice::Disconnect { .. });
        let reads = state
            .senders
            .get(&stream)
            .is_some_and(|sender| sender.try_send(message_of(message)).is_ok());
        // A stream ends with its sender even if the last message finds no room. Of one that does
        // not read nothing more is expected: its device comes back.
        if last || !reads {
            state.senders.remove(&stream);
        }
    }
    for device in out.assigned {
        let Some(bundle) = state.bundle(&device) else {
            continue;
        };
        send(state, &device, FromController::Assignment(Box::new(bundle)));
    }
    for change in out.changed {
        // Without watchers there is nobody to tell.
        let _ = changes.send(change);
    }
}

fn message_of(message: ToDevice) -> FromController {
    match message {
        ToDevice::TelemetryAck { boot, sequence } => {
            FromController::TelemetryAck { boot, sequence }
        }
        ToDevice::Clock(time) => FromController::Clock(time),
        ToDevice::Disconnect { reason, retry } => FromController::Disconnect { reason, retry },
    }
}

/// Sends on the device's open stream. One that does not read is closed: its device comes back and
/// is told its generation then.
fn send(state: &mut State, device: &DeviceName, message: FromController) {
    let Some(stream) = state.fleet.stream(device) else {
        return;
    };
    let sender = state.senders.get(&stream);
    if sender.is_none_or(|sender| sender.try_send(message).is_err()) {
        tracing::warn!(%device, "the device does not read its stream: closed");
        state.senders.remove(&stream);
        state.fleet.give_up(device);
    }
}
