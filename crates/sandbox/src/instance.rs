//! Loading and running one module.

use crate::crew::MAX_WORKERS;
use crate::error::{InferError, SandboxError};
use crate::host::host_target;
use crate::limits::{Limiter, Limits};
use crate::settings::{Settings, engine_error, version};
use crate::watchdog::Watchdog;
use crate::weights;
use sandpiper_core::abi::{ModuleAbi, WeightsRegion};
use std::path::Path;
use wasmtime::{Engine, Memory, Module, Precompiled, Store, Trap, TypedFunc, Val};

/// Native code, made by `precompile`. Its digest has been verified by the caller: these bytes are
/// run as they are.
#[derive(Debug, Clone, Copy)]
pub enum Native<'a> {
    /// In memory; copied.
    Bytes(&'a [u8]),
    /// In a file that does not change as long as the instance lives; mapped, not read.
    File(&'a Path),
}

/// The weights blob of a module.
#[derive(Debug, Clone, Copy)]
pub enum Weights<'a> {
    /// In a file that does not change as long as the instance lives; mapped read-only in place. A
    /// guest store to it traps. A bulk operation (`memory.fill`, `memory.copy`) over it ends the
    /// process, since wasmtime performs those on the host: so run brought modules this way only in
    /// a process of their own.
    File(&'a Path),
    /// In memory, for a process that must outlive its guests. Bounded modules get a file in memory
    /// mapped as above; others a copy of their own, which is compared after every call: a change is
    /// reported as a trap.
    Bytes(&'a [u8]),
}

/// What to load and what it may take.
#[derive(Debug, Clone)]
pub struct LoadSpec<'a> {
    /// The code.
    pub native: Native<'a>,
    /// The ABI from the signed manifest. It is believed about `bounded`, and checked against the
    /// module in all else.
    pub abi: ModuleAbi,
    /// The weights; present exactly if the ABI has a weights region.
    pub weights: Option<Weights<'a>>,
    /// Limits.
    pub limits: Limits,
}

/// A module that is ready to be instantiated.
pub(crate) struct Loader<'a> {
    engine: Engine,
    module: Module,
    abi: ModuleAbi,
    weights: Option<(WeightsRegion, Weights<'a>)>,
    limits: Limits,
}

impl<'a> Loader<'a> {
    /// As [`Instance::load`].
    pub(crate) fn new(spec: LoadSpec<'a>) -> Result<Self, SandboxError> {
        let LoadSpec {
            native,
            abi,
            weights,
            limits,
        } = spec;
        abi.check()?;
        if abi.memory_bytes > limits.memory_bytes {
            return Err(SandboxError::MemoryLimit {
                needed_bytes: abi.memory_bytes,
                limit_bytes: limits.memory_bytes,
            });
        }
        let weights = pair(abi.weights, weights)?;
        let config = Settings::of(host_target(), abi.bounded).loading()?;
        let engine = Engine::new(&config).map_err(engine_error)?;
        let module = deserialise(&engine, native)?;
        if let Some(import) = module.imports().next() {
            let (module, name) = (import.module().to_owned(), import.name().to_owned());
            return Err(SandboxError::Import { module, name });
        }
        Ok(Self {
            engine,
            module,
            abi,
            weights,
            limits,
        })
    }

    /// One more instance, with a memory of its own.
    pub(crate) fn instance(&self) -> Result<Instance, SandboxError> {
        let Exports {
            mut store,
            memory,
            infer,
            steps,
        } = instantiate(&self.engine, &self.module, &self.abi)?;
        let copied_weights = match self.weights {
            Some((region, blob)) => place_weights(&mut store, memory, &self.abi, region, blob)?,
            None => None,
        };
        let watchdog = if self.abi.bounded {
            None
        } else {
            let failed = |source| SandboxError::System {
                what: "starting a thread",
                source,
            };
            Some(Watchdog::start(self.engine.clone()).map_err(failed)?)
        };
        Ok(Instance {
            store,
            memory,
            infer,
            steps,
            abi: self.abi.clone(),
            limits: self.limits,
            watchdog,
            copied_weights,
            poisoned: false,
        })
    }
}

/// The optional second way to run a module: step by step, each in parts.
struct Steps {
    step: TypedFunc<(i32, i32, i32, i32), ()>,
    count: u32,
}

/// A loaded module: one linear memory, one caller at a time.
pub struct Instance {
    store: Store<Limiter>,
    memory: Memory,
    infer: TypedFunc<i32, i32>,
    steps: Option<Steps>,
    abi: ModuleAbi,
    limits: Limits,
    /// For modules that are not bounded.
    watchdog: Option<Watchdog>,
    /// What the copied weights must still be after every call.
    copied_weights: Option<Vec<u8>>,
    poisoned: bool,
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance")
            .field("abi", &self.abi)
            .finish_non_exhaustive()
    }
}

impl Instance {
    /// Loads native code whose digest the caller has verified, and its weights.
    ///
    /// # Errors
    /// [`SandboxError::Native`] if the code was made by another version, for another CPU or with
    /// another configuration, or is damaged in a way that shows; the other variants say which part
    /// of the module, the weights or the limits does not fit.
    pub fn load(spec: LoadSpec<'_>) -> Result<Self, SandboxError> {
        Loader::new(spec)?.instance()
    }

    /// The ABI it was loaded with.
    pub fn abi(&self) -> &ModuleAbi {
        &self.abi
    }

    /// Runs one batch.
    ///
    /// `inputs` holds the little-endian, row-major bytes of every input in the order of the ABI,
    /// `TensorSpec::size_bytes(batch)` each. Every vector in `outputs`, one per output, is resized
    /// and overwritten; on an error their contents mean nothing.
    ///
    /// # Errors
    /// See [`InferError`]. After one with [`InferError::is_fatal`] every later call gives
    /// [`InferError::Poisoned`].
    pub fn infer(
        &mut self,
        batch: u32,
        inputs: &[&[u8]],
        outputs: &mut [Vec<u8>],
    ) -> Result<(), InferError> {
        self.give(batch, inputs)?;
        self.check_outputs(outputs)?;
        self.run(batch)?;
        self.take(batch, outputs);
        Ok(())
    }

    /// Runs one batch on the inputs that lie in its memory; the outputs are left there.
    pub(crate) fn run(&mut self, batch: u32) -> Result<(), InferError> {
        self.check_batch(batch)?;
        self.call(batch)
            .inspect_err(|error| self.poisoned = error.is_fatal())
    }

    pub(crate) fn check_batch(&self, batch: u32) -> Result<(), InferError> {
        let max = self.abi.max_batch;
        if self.poisoned {
            Err(InferError::Poisoned)
        } else if batch == 0 || batch > max {
            Err(InferError::BadBatch { batch, max })
        } else {
            Ok(())
        }
    }

    pub(crate) fn check_outputs(&self, outputs: &[Vec<u8>]) -> Result<(), InferError> {
        let (expected, actual) = (self.abi.outputs.len(), outputs.len());
        if actual == expected {
            return Ok(());
        }
        Err(InferError::WrongCount {
            kind: "outputs",
            expected,
            actual,
        })
    }

    /// Puts the inputs of a batch where the module reads them.
    ///
    /// # Errors
    /// As [`Instance::infer`].
    pub fn give(&mut self, batch: u32, inputs: &[&[u8]]) -> Result<(), InferError> {
        if self.poisoned {
            return Err(InferError::Poisoned);
        }
        // Every slice of the memory taken here and in `take` is inside it: `ModuleAbi::check` has
        // verified this for the largest batch, and the sizes are verified here.
        check_inputs(&self.abi, batch, inputs)?;
        let memory = self.memory.data_mut(&mut self.store);
        for (tensor, bytes) in self.abi.inputs.iter().zip(inputs) {
            let start = tensor.offset as usize;
            memory[start..start + bytes.len()].copy_from_slice(bytes);
        }
        Ok(())
    }

    /// Fetches the outputs of a batch, which [`Instance::give`] has accepted.
    pub fn take(&self, batch: u32, outputs: &mut [Vec<u8>]) {
        let memory = self.memory.data(&self.store);
        for (tensor, bytes) in self.abi.outputs.iter().zip(outputs) {
            let start = tensor.offset as usize;
            bytes.clear();
            bytes.extend_from_slice(&memory[start..start + tensor.spec.size_bytes(batch)]);
        }
    }

    /// Has it use these pages instead of its own, for these parts of its memory.
    pub(crate) fn share(
        &mut self,
        pages: &std::fs::File,
        parts: &[std::ops::Range<usize>],
    ) -> Result<(), SandboxError> {
        crate::pages::share(self.memory, &self.store, &self.abi, pages, parts)
    }

    /// Makes every later call fail.
    pub(crate) fn poison(&mut self) {
        self.poisoned = true;
    }

    fn call(&mut self, batch: u32) -> Result<(), InferError> {
        // `check_inputs` has bounded it by the ABI's 4096.
        let argument = i32::try_from(batch).unwrap_or(i32::MAX);
        if let Some(watchdog) = &self.watchdog {
            // In this order: a tick can only follow once the watchdog is armed.
            self.store.set_epoch_deadline(1);
            watchdog.arm(self.limits.deadline);
        }
        let result = self.infer.call(&mut self.store, argument);
        if let Some(watchdog) = &self.watchdog {
            watchdog.disarm();
        }
        let code = result.map_err(|error| trapped(&error))?;
        if self.weights_changed() {
            return Err(InferError::Trap {
                reason: "it wrote to its weights".into(),
            });
        }
        if code == 0 {
            Ok(())
        } else {
            Err(InferError::Code(code))
        }
    }

    /// Number of steps that [`Instance::step`] can run; 0 if the module cannot be run that way.
    pub fn steps(&self) -> u32 {
        self.steps.as_ref().map_or(0, |s| s.count)
    }

    /// Runs part `part` of `parts` of one step for one item of the batch. The parts of a step may
    /// run at the same time in instances that share their memory; all of them together, for all
    /// steps in order, do what [`Instance::infer`] does between its copies.
    ///
    /// # Errors
    /// As [`Instance::infer`]; [`InferError::Code`] if there is no such step, item or part.
    pub fn step(
        &mut self,
        step: u32,
        item: u32,
        (part, parts): (u32, u32),
    ) -> Result<(), InferError> {
        if self.poisoned {
            return Err(InferError::Poisoned);
        }
        let Some(steps) = &self.steps else {
            return Err(InferError::Code(1));
        };
        let fits = step < steps.count && item < self.abi.max_batch && part < parts;
        if !fits || parts > MAX_WORKERS {
            return Err(InferError::Code(1));
        }
        let arguments = [step, item, part, parts].map(u32::cast_signed);
        let result = steps.step.call(&mut self.store, arguments.into());
        result.map_err(|error| {
            self.poisoned = true;
            trapped(&error)
        })
    }

    fn weights_changed(&self) -> bool {
        let (Some(region), Some(expected)) = (self.abi.weights, &self.copied_weights) else {
            return false;
        };
        let start = region.offset as usize;
        self.memory.data(&self.store)[start..start + expected.len()] != **expected
    }
}

/// Whether these are inputs for this batch: their number and the length of each. What
/// [`Instance::infer`] checks first, for those who want to know before they queue a request.
///
/// # Errors
/// [`InferError::BadBatch`], [`InferError::WrongCount`], [`InferError::WrongSize`].
pub fn check_inputs<T: AsRef<[u8]>>(
    abi: &ModuleAbi,
    batch: u32,
    inputs: &[T],
) -> Result<(), InferError> {
    let max = abi.max_batch;
    if batch == 0 || batch > max {
        return Err(InferError::BadBatch { batch, max });
    }
    if inputs.len() != abi.inputs.len() {
        let (expected, actual) = (abi.inputs.len(), inputs.len());
        return Err(InferError::WrongCount {
            kind: "inputs",
            expected,
            actual,
        });
    }
    for (tensor, bytes) in abi.inputs.iter().zip(inputs) {
        let (expected_bytes, actual_bytes) = (tensor.spec.size_bytes(batch), bytes.as_ref().len());
        if actual_bytes != expected_bytes {
            let tensor = tensor.spec.name.clone();
            return Err(InferError::WrongSize {
                tensor,
                expected_bytes,
                actual_bytes,
            });
        }
    }
    Ok(())
}

fn trapped(error: &wasmtime::Error) -> InferError {
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => InferError::Deadline,
        Some(trap) => InferError::Trap {
            reason: trap.to_string(),
        },
        None => InferError::Trap {
            reason: format!("{error:#}"),
        },
    }
}

fn pair(
    region: Option<WeightsRegion>,
    weights: Option<Weights<'_>>,
) -> Result<Option<(WeightsRegion, Weights<'_>)>, SandboxError> {
    match (region, weights) {
        (Some(region), Some(weights)) => Ok(Some((region, weights))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(SandboxError::WeightsPresence(
            "the module needs weights, none were given",
        )),
        (None, Some(_)) => Err(SandboxError::WeightsPresence(
            "weights were given to a module without any",
        )),
    }
}

fn deserialise(engine: &Engine, native: Native<'_>) -> Result<Module, SandboxError> {
    let unfit = |reason: String| SandboxError::Native {
        runtime: version(),
        reason,
    };
    let kind = match native {
        Native::Bytes(bytes) => Engine::detect_precompiled(bytes),
        Native::File(path) => {
            // wasmtime's message would not tell a missing file from a damaged one.
            std::fs::File::open(path).map_err(|source| SandboxError::File {
                what: "opening the native code",
                path: path.to_owned(),
                source,
            })?;
            Engine::detect_precompiled_file(path).unwrap_or_default()
        }
    };
    if kind != Some(Precompiled::Module) {
        return Err(unfit(
            "these bytes are not native code of a wasm module".into(),
        ));
    }
    // SAFETY: the caller has verified the digest of the code against a signed manifest (see the
    // contract of `Native` and `LoadSpec`), so it is what our compiler made; and files in the
    // artefact store do not change.
    #[allow(unsafe_code)]
    let module = unsafe {
        match native {
            Native::Bytes(bytes) => Module::deserialize(engine, bytes),
            Native::File(path) => Module::deserialize_file(engine, path),
        }
    };
    module.map_err(|error| unfit(format!("{error:#}")))
}

struct Exports {
    store: Store<Limiter>,
    memory: Memory,
    infer: TypedFunc<i32, i32>,
    steps: Option<Steps>,
}

/// The exports `step` and `steps` of a bounded module, if it has both.
fn steps(
    store: &mut Store<Limiter>,
    instance: &wasmtime::Instance,
    abi: &ModuleAbi,
) -> Option<Steps> {
    let step = instance.get_typed_func(&mut *store, "step").ok()?;
    let count = instance.get_global(&mut *store, "steps")?.get(&mut *store);
    match count {
        Val::I32(count) if abi.bounded => Some(Steps {
            step,
            count: u32::try_from(count).ok()?,
        }),
        _ => None,
    }
}

fn instantiate(engine: &Engine, module: &Module, abi: &ModuleAbi) -> Result<Exports, SandboxError> {
    let failed = |error: wasmtime::Error| SandboxError::Instantiate {
        reason: format!("{error:#}"),
    };
    let planned_bytes = usize::try_from(abi.memory_bytes).unwrap_or(usize::MAX);
    let mut store = Store::try_new(engine, Limiter { planned_bytes }).map_err(failed)?;
    store.limiter(|limiter| limiter);
    if !abi.bounded {
        // Data segments are copied by checked code too.
        store.set_epoch_deadline(1);
    }
    let instance = wasmtime::Instance::new(&mut store, module, &[]).map_err(failed)?;
    let missing = |name, expected| SandboxError::Export {
        name,
        expected,
        found: "none of that kind".into(),
    };
    let memory = instance
        .get_memory(&mut store, "memory")
        .ok_or_else(|| missing("memory", "a memory"))?;
    let infer = instance
        .get_typed_func::<i32, i32>(&mut store, "infer")
        .map_err(|_| missing("infer", "a function (i32) -> i32"))?;
    let actual_bytes = memory.data_size(&store) as u64;
    if actual_bytes != abi.memory_bytes {
        return Err(SandboxError::MemorySize {
            actual_bytes,
            abi_bytes: abi.memory_bytes,
        });
    }
    let steps = steps(&mut store, &instance, abi);
    Ok(Exports {
        store,
        memory,
        infer,
        steps,
    })
}

/// Puts the weights into their region; gives back the copy to compare with, if one is needed.
fn place_weights(
    store: &mut Store<Limiter>,
    memory: Memory,
    abi: &ModuleAbi,
    region: WeightsRegion,
    weights: Weights<'_>,
) -> Result<Option<Vec<u8>>, SandboxError> {
    match weights {
        Weights::File(path) => {
            let file = weights::open(path, &region)?;
            weights::map(memory, store, &region, &file)?;
            Ok(None)
        }
        Weights::Bytes(bytes) => {
            weights::check_size(bytes.len() as u64, &region)?;
            if abi.bounded {
                weights::map(memory, store, &region, &weights::in_memory(bytes)?)?;
                return Ok(None);
            }
            let start = region.offset as usize;
            memory.data_mut(store)[start..start + bytes.len()].copy_from_slice(bytes);
            Ok(Some(bytes.to_vec()))
        }
    }
}
