//! More than one core for one module, without wasm threads: every worker has an instance of its
//! own, all of them over the same pages. They go through the steps of the module together; of each
//! step a worker does its part, and nobody begins the next one before all are done. The result does
//! not depend on the number of workers.

mod meeting;

use crate::error::{InferError, SandboxError};
use crate::instance::{Instance, LoadSpec, Loader};
use crate::pages;
use meeting::Meeting;
use sandpiper_core::abi::ModuleAbi;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Most workers of a crew.
pub const MAX_WORKERS: u32 = 16;
/// Stack of a worker's thread: the guest's, and what the host needs around it.
const STACK_BYTES: usize = 1 << 20;

/// What the workers share.
struct Shared {
    meeting: Meeting,
    /// Batch of the job; 0 sends the workers home.
    batch: AtomicU32,
    failed: AtomicBool,
    /// Why the first that failed did.
    error: Mutex<Option<InferError>>,
}

impl Shared {
    /// All steps of a job for the worker `part` of `parts`.
    fn work(&self, instance: &mut Instance, batch: u32, (part, parts): (u32, u32)) {
        for item in 0..batch {
            for step in 0..instance.steps() {
                // Everyone learns of a failure at the same meeting, and leaves together.
                if !self.failed.load(Ordering::Acquire)
                    && let Err(error) = instance.step(step, item, (part, parts))
                {
                    let mut first = self.error.lock().unwrap_or_else(PoisonError::into_inner);
                    first.get_or_insert(error);
                    self.failed.store(true, Ordering::Release);
                }
                self.meeting.wait();
            }
        }
    }

    /// Life of a worker's thread.
    fn serve(&self, instance: &mut Instance, place: (u32, u32)) {
        loop {
            self.meeting.wait();
            match self.batch.load(Ordering::Acquire) {
                0 => return,
                batch => self.work(instance, batch, place),
            }
        }
    }
}

/// A loaded module and those who run it: one caller at a time.
pub struct Crew {
    first: Instance,
    shared: Arc<Shared>,
    others: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Crew {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Crew")
            .field("workers", &self.workers())
            .finish_non_exhaustive()
    }
}

impl Crew {
    /// Loads a module for at most so many workers (at least one, at most [`MAX_WORKERS`]): the
    /// calling thread and others that are started here. A module that cannot be run in steps has
    /// one worker.
    ///
    /// # Errors
    /// As [`Instance::load`]; [`SandboxError::System`] if the pages cannot be shared or a thread
    /// cannot be started.
    pub fn load(spec: LoadSpec<'_>, workers: u32) -> Result<Self, SandboxError> {
        let loader = Loader::new(spec)?;
        let mut first = loader.instance()?;
        let parts = if first.steps() == 0 {
            1
        } else {
            workers.clamp(1, MAX_WORKERS)
        };
        let shared = Arc::new(Shared {
            meeting: Meeting::of(parts),
            batch: AtomicU32::new(0),
            failed: AtomicBool::new(false),
            error: Mutex::new(None),
        });
        let mut instances = Vec::new();
        if parts > 1 {
            let pages = pages::zeros(first.abi())?;
            first.share(&pages)?;
            for _ in 1..parts {
                let mut instance = loader.instance()?;
                instance.share(&pages)?;
                instances.push(instance);
            }
        }
        let mut crew = Self {
            first,
            shared,
            others: Vec::new(),
        };
        for (part, mut instance) in (1..).zip(instances) {
            let shared = Arc::clone(&crew.shared);
            let thread = std::thread::Builder::new()
                .name(format!("worker-{part}"))
                .stack_size(STACK_BYTES);
            let started = thread.spawn(move || {
                // It holds for one thread only; `lockdown` sees to the one that calls it.
                let _ = rustix::thread::set_no_new_privs(true);
                shared.serve(&mut instance, (part, parts));
            });
            match started {
                Ok(thread) => crew.others.push(thread),
                Err(source) => {
                    // Those that were started wait for one who never comes: they are not many.
                    crew.shared.meeting.absent(parts - part);
                    return Err(SandboxError::System {
                        what: "starting a worker's thread",
                        source,
                    });
                }
            }
        }
        Ok(crew)
    }

    /// The ABI the module was loaded with.
    pub fn abi(&self) -> &ModuleAbi {
        self.first.abi()
    }

    /// How many work, the caller included.
    pub fn workers(&self) -> u32 {
        // At most `MAX_WORKERS`.
        self.others.len() as u32 + 1
    }

    /// Runs one batch, as [`Instance::infer`] does.
    ///
    /// # Errors
    /// As [`Instance::infer`].
    pub fn infer(
        &mut self,
        batch: u32,
        inputs: &[&[u8]],
        outputs: &mut [Vec<u8>],
    ) -> Result<(), InferError> {
        if self.others.is_empty() {
            return self.first.infer(batch, inputs, outputs);
        }
        self.first.give(batch, inputs)?;
        self.first.check_outputs(outputs)?;
        self.shared.batch.store(batch, Ordering::Release);
        self.shared.meeting.wait();
        let place = (0, self.workers());
        self.shared.work(&mut self.first, batch, place);
        if self.shared.failed.load(Ordering::Acquire) {
            self.first.poison();
            let error = self.shared.error.lock();
            let error = error.unwrap_or_else(PoisonError::into_inner).take();
            return Err(error.unwrap_or(InferError::Poisoned));
        }
        self.first.take(batch, outputs);
        Ok(())
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.shared.batch.store(0, Ordering::Release);
        if !self.others.is_empty() {
            self.shared.meeting.wait();
        }
        for thread in self.others.drain(..) {
            // A worker that panicked has said so on standard error.
            let _ = thread.join();
        }
    }
}
