//! The one task that owns the fleet's state.

use super::FleetError;
use super::journal::{self, Fenced};
use super::state::State;
use crate::clock;
use crate::store::{Store, StoreError};
use sandpiper_core::fleet::{Changed, Outbox, Row, ToDevice, Writes};
use sandpiper_core::names::DeviceName;
use sandpiper_core::time::Millis;
use sandpiper_proto::convert::FromController;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;

/// Jobs waiting. Callers wait for room, so that load is felt where it comes from.
const MAILBOX: usize = 1024;
/// Changes a slow watcher may be behind before it is resynchronised.
const WATCH_QUEUE: usize = 4096;
/// Longest sleep: a stepped wall clock is noticed within this time, and by the first job after it
/// that another controller has taken over.
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
/// fails: then memory and store may differ, and only a restart makes them one again. It also ends
/// when another controller has taken the store over.
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
    let mut asked_at = Instant::now();
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
        let (expect, writes) = (out.expect.take(), std::mem::take(&mut out.writes));
        // Who has nothing to write would not notice that another one has taken over, and keep its
        // devices to itself.
        if !writes.is_empty() || asked_at.elapsed() >= LONGEST_SLEEP {
            commit(&store, expect, writes).await?;
            asked_at = Instant::now();
        }
        deliver(&mut state, out, &changes);
        if let Some(answer) = answer {
            answer();
        }
    }
}

async fn commit(
    store: &Arc<dyn Store>,
    expect: Option<Row>,
    writes: Writes,
) -> Result<(), StoreError> {
    let store = Arc::clone(store);
    let write = move || {
        let store = store.as_ref();
        journal::commit(&Fenced { store, expect }, writes)
    };
    let written = tokio::task::spawn_blocking(write).await;
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::fleet::Authority;
    use crate::store::MemoryStore;
    use sandpiper_core::names::FleetName;
    use sandpiper_core::policy::Labels;
    use sandpiper_transport::pki::Ca;
    use sandpiper_transport::signing::{SigningKey, VerifyingKeys};

    fn authority() -> Arc<Authority> {
        let publisher = SigningKey::generate().unwrap();
        Arc::new(Authority {
            ca: Ca::create(&FleetName::new("test").unwrap(), clock::now()).unwrap(),
            assignment: SigningKey::generate().unwrap(),
            publishers: VerifyingKeys::from_iter([publisher.public_key()]),
        })
    }

    async fn enrol(fleet: &FleetHandle, name: &str) -> Result<(), FleetError> {
        let name = DeviceName::new(name).unwrap();
        let job = fleet.run(move |state, now| Ok(state.fleet.enrol(now, &name, Labels::new())?));
        job.await
    }

    /// Fault 21: of two controllers over one store the stale one is fenced by its term.
    #[tokio::test]
    async fn a_controller_that_was_taken_over_from_writes_nothing_and_ends() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let authority = authority();
        let start = || {
            let state = State::load(store.as_ref(), Arc::clone(&authority)).unwrap();
            spawn(state, Arc::clone(&store))
        };
        let (stale, stale_ended) = start();
        enrol(&stale, "before").await.unwrap();
        let (newer, _running) = start();
        enrol(&newer, "after").await.unwrap();
        let answer = enrol(&stale, "lost").await;
        assert!(matches!(answer, Err(FleetError::Stopping)), "{answer:?}");
        let ended = stale_ended.await.unwrap();
        assert!(matches!(ended, Err(StoreError::TakenOver)), "{ended:?}");
        let names = newer
            .run(|state, _| Ok(state.fleet.devices().keys().cloned().collect::<Vec<_>>()))
            .await
            .unwrap();
        let names: Vec<_> = names.iter().map(DeviceName::as_str).collect();
        assert_eq!(names, ["after", "before"]);
    }

    /// Fault 21: so that devices do not stay with it.
    #[tokio::test]
    async fn a_controller_that_was_taken_over_from_ends_though_it_has_nothing_to_write() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
        let authority = authority();
        let state = || State::load(store.as_ref(), Arc::clone(&authority)).unwrap();
        let (_stale, stale_ended) = spawn(state(), Arc::clone(&store));
        let (_newer, _running) = spawn(state(), Arc::clone(&store));
        let ended = stale_ended.await.unwrap();
        assert!(matches!(ended, Err(StoreError::TakenOver)), "{ended:?}");
    }
}
