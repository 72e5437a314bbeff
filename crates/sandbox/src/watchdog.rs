//! Ends a call that runs for too long, by raising the epoch of its engine.
//!
//! The thread sleeps until the deadline of the call that woke it and then looks again, so a busy
//! instance wakes it once per deadline and not once per call, and an idle one not at all.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use wasmtime::Engine;

/// Enough for a loop around a condition variable.
const STACK_BYTES: usize = 128 << 10;

#[derive(Debug, Default)]
struct State {
    /// When the call that runs now has to end.
    deadline: Option<Instant>,
    /// The thread waits without a timeout and has to be woken.
    idle: bool,
    stop: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while holding the lock; if it did, the state would still be valid.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread that watches one engine.
#[derive(Debug)]
pub(crate) struct Watchdog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Starts the thread. Each engine runs one store, and the store must have its epoch deadline
    /// set to one tick ahead before [`Watchdog::arm`].
    pub(crate) fn start(engine: Engine) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let watched = Arc::clone(&shared);
        let (begun, has_begun) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("deadline".into())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                // The receiver waits below; if it is gone, so is the need to tell it.
                let _ = begun.send(());
                watch(&watched, &engine);
            })?;
        // A new thread allocates its signal stack before anything else. A limit on the address
        // space that is set after the load must not come in between.
        let _ = has_begun.recv();
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// From now on the call has this long.
    pub(crate) fn arm(&self, timeout: Duration) {
        let mut state = self.shared.lock();
        state.deadline = Instant::now().checked_add(timeout);
        if state.idle && state.deadline.is_some() {
            self.shared.wake.notify_one();
        }
    }

    /// The call has ended; no tick follows for it.
    pub(crate) fn disarm(&self) {
        self.shared.lock().deadline = None;
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // It cannot have panicked in a way that matters here.
            let _ = thread.join();
        }
    }
}

fn watch(shared: &Shared, engine: &Engine) {
    let mut state = shared.lock();
    while !state.stop {
        let Some(deadline) = state.deadline else {
            state.idle = true;
            state = shared
                .wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            state.idle = false;
            continue;
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            // Under the lock: the call cannot end and another begin in between.
            engine.increment_epoch();
            state.deadline = None;
            continue;
        }
        let woken = shared.wake.wait_timeout(state, left);
        state = woken.unwrap_or_else(PoisonError::into_inner).0;
    }
}
