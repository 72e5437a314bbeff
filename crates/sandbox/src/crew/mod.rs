//! More than one core for one module, without wasm threads: every worker has an instance of its
//! own, all of them over the same pages. They go through the steps of the module together; each step
//! is done in as many parts as there are workers, by whoever has time, and nobody begins the next one
//! before all parts are done. The result does not depend on the number of workers, nor on who did what.

mod board;

use crate::error::{InferError, SandboxError};
use crate::instance::{Instance, LoadSpec, Loader};
use crate::pages;
use board::{Board, Task};
use sandpiper_core::abi::ModuleAbi;
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// Most workers of a crew.
pub const MAX_WORKERS: u32 = 16;
/// Stack of a worker's thread: the guest's, and what the host needs around it.
const STACK_BYTES: usize = 1 << 20;

/// What the workers share.
struct Shared {
    board: Board,
    parts: u32,
    failed: AtomicBool,
    /// Why the first that failed did.
    error: Mutex<Option<InferError>>,
}

impl Shared {
    /// Does a part that was taken, unless one has failed before.
    fn perform(&self, instance: &mut Instance, task: Task) {
        if !self.failed.load(Ordering::SeqCst)
            && let Err(error) = instance.step(task.step, task.item, (task.part, self.parts))
        {
            let mut first = self.error.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert(error);
            self.failed.store(true, Ordering::SeqCst);
        }
        self.board.finish();
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
        Self::assemble(spec, workers, None)
    }

    /// The same, with the inputs and outputs in `pages`, a file in memory of `memory_bytes` of the
    /// ABI, at the offsets that the ABI gives: whoever has the file writes and reads them there, and
    /// nothing is copied on this side of [`Crew::run`].
    ///
    /// # Errors
    /// As [`Crew::load`]; [`SandboxError::Refused`] if the file has another length.
    pub fn load_over(spec: LoadSpec<'_>, workers: u32, pages: &File) -> Result<Self, SandboxError> {
        pages::check(pages, &spec.abi)?;
        Self::assemble(spec, workers, Some(pages))
    }

    fn assemble(
        spec: LoadSpec<'_>,
        workers: u32,
        given: Option<&File>,
    ) -> Result<Self, SandboxError> {
        let loader = Loader::new(spec)?;
        let mut first = loader.instance()?;
        let parts = if first.steps() == 0 {
            1
        } else {
            workers.clamp(1, MAX_WORKERS)
        };
        let shared = Arc::new(Shared {
            board: Board::of(parts),
            parts,
            failed: AtomicBool::new(false),
            error: Mutex::new(None),
        });
        let mut instances = Vec::new();
        if parts > 1 {
            let own;
            let pages = match given {
                Some(pages) => pages,
                None => {
                    own = pages::zeros(first.abi())?;
                    &own
                }
            };
            let all = pages::outside_weights(first.abi());
            first.share(pages, &all)?;
            for _ in 1..parts {
                let mut instance = loader.instance()?;
                instance.share(pages, &all)?;
                instances.push(instance);
            }
        } else if let Some(pages) = given {
            let tensors = pages::around_tensors(first.abi());
            first.share(pages, &tensors)?;
        }
        let mut crew = Self {
            first,
            shared,
            others: Vec::new(),
        };
        let (begun, has_begun) = std::sync::mpsc::channel();
        for (number, mut instance) in (1..).zip(instances) {
            let shared = Arc::clone(&crew.shared);
            let begun = begun.clone();
            let thread = std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .stack_size(STACK_BYTES);
            let started = thread.spawn(move || {
                // The receiver waits below; if it is gone, so is the need to tell it.
                let _ = begun.send(());
                while let Some(task) = shared.board.wait_task() {
                    shared.perform(&mut instance, task);
                }
            });
            // Those that were started go home when the crew is dropped.
            crew.others
                .push(started.map_err(|source| SandboxError::System {
                    what: "starting a worker's thread",
                    source,
                })?);
            // A new thread makes system calls and takes memory before anything else, which it may
            // not do once the process is locked.
            let _ = has_begun.recv();
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
        self.first.give(batch, inputs)?;
        self.first.check_outputs(outputs)?;
        self.run(batch)?;
        self.first.take(batch, outputs);
        Ok(())
    }

    /// Runs one batch on the inputs that lie in its pages, and leaves the outputs there.
    ///
    /// # Errors
    /// [`InferError::BadBatch`], and what [`Instance::infer`] gives after its checks.
    pub fn run(&mut self, batch: u32) -> Result<(), InferError> {
        if self.others.is_empty() {
            return self.first.run(batch);
        }
        self.first.check_batch(batch)?;
        for item in 0..batch {
            for step in 0..self.first.steps() {
                self.shared.board.write(step, item);
                while let Some(task) = self.shared.board.take() {
                    self.shared.perform(&mut self.first, task);
                }
                self.shared.board.wait_done();
            }
        }
        if self.shared.failed.load(Ordering::SeqCst) {
            self.first.poison();
            let error = self.shared.error.lock();
            let error = error.unwrap_or_else(PoisonError::into_inner).take();
            return Err(error.unwrap_or(InferError::Poisoned));
        }
        Ok(())
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.shared.board.close();
        for thread in self.others.drain(..) {
            // A worker that panicked has said so on standard error.
            let _ = thread.join();
        }
    }
}
