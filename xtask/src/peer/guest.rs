//! An engine as a wasm module, in plain wasmtime: no limit of memory, no deadline, all features of the
//! CPU. It is a peer, so it gets what helps it.

use anyhow::{Context, Result, anyhow, bail};
use std::path::Path;
use std::time::Instant;
use wasmtime::{Config, Engine, Instance, Linker, Memory, Module, Store, TypedFunc};

/// Most of the 8 MiB that the main thread of a process has: graphs are walked by recursion.
const STACK_BYTES: usize = 6 << 20;

/// A module as `tests/peers/guest` describes it, made native.
pub(super) struct Guest {
    module: Module,
    loaded: Option<Loaded>,
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guest").finish_non_exhaustive()
    }
}

/// An error of wasmtime as one of ours, with its causes.
fn said<T>(result: wasmtime::Result<T>) -> Result<T> {
    result.map_err(|error| anyhow!("{error:#}"))
}

/// One model in it. A model has an instance of its own, so that its memory goes with it.
struct Loaded {
    store: Store<()>,
    instance: Instance,
    memory: Memory,
}

impl Guest {
    /// Makes native code of a module.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn new(wasm: &Path) -> Result<Self> {
        let mut config = Config::new();
        config.max_wasm_stack(STACK_BYTES);
        // Nothing here is async, but a configuration with a smaller one of these is refused.
        config.async_stack_size(STACK_BYTES + (1 << 20));
        config.wasm_relaxed_simd(true);
        let engine = said(Engine::new(&config))?;
        let module = said(Module::from_file(&engine, wasm))?;
        Ok(Self {
            module,
            loaded: None,
        })
    }

    /// Loads a model with a file for each input; gives its outputs.
    ///
    /// # Errors
    /// What the engine says, or how it trapped.
    pub(super) fn load(&mut self, model: &Path, inputs: &[&Path]) -> Result<Vec<f64>> {
        // The one before goes first: two large ones need not fit.
        self.loaded = None;
        let mut linker = Linker::new(self.module.engine());
        // Of a browser's clock and dice, which nothing here asks for.
        said(linker.define_unknown_imports_as_traps(&self.module))?;
        let mut store = Store::new(self.module.engine(), ());
        let instance = said(linker.instantiate(&mut store, &self.module))?;
        let memory = instance
            .get_memory(&mut store, "memory")
            .context("no memory")?;
        let mut loaded = Loaded {
            store,
            instance,
            memory,
        };
        for path in std::iter::once(&model).chain(inputs) {
            loaded.give(&std::fs::read(path)?)?;
        }
        loaded.told("load")?;
        loaded.told("outputs")?;
        let outputs = loaded.bytes("outputs_at", "outputs_count", 8)?;
        self.loaded = Some(loaded);
        let values = outputs.as_chunks().0.iter();
        Ok(values.map(|b| f64::from_le_bytes(*b)).collect())
    }

    /// Times of so many runs, in microseconds.
    ///
    /// # Errors
    /// What the engine says, or how it trapped.
    pub(super) fn run(&mut self, runs: usize) -> Result<Vec<f64>> {
        let loaded = self.loaded.as_mut().context("no model is loaded")?;
        let run: TypedFunc<(), u32> =
            said(loaded.instance.get_typed_func(&mut loaded.store, "run"))?;
        let mut times = Vec::with_capacity(runs);
        for _ in 0..runs {
            let start = Instant::now();
            let code = said(run.call(&mut loaded.store, ()))?;
            times.push(start.elapsed().as_secs_f64() * 1e6);
            loaded.heard(code as usize)?;
        }
        Ok(times)
    }
}

impl Loaded {
    fn number(&mut self, name: &str) -> Result<usize> {
        let function: TypedFunc<(), u32> =
            said(self.instance.get_typed_func(&mut self.store, name))?;
        Ok(said(function.call(&mut self.store, ()))? as usize)
    }

    /// A call that gives 0, or 1 with a complaint.
    fn told(&mut self, name: &str) -> Result<()> {
        let code = self.number(name)?;
        self.heard(code)
    }

    /// What such a call gave.
    fn heard(&mut self, code: usize) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        let why = self.bytes("complaint_at", "complaint_bytes", 1)?;
        bail!("{}", String::from_utf8_lossy(&why))
    }

    /// What lies at a place that two functions tell.
    fn bytes(&mut self, at: &str, count: &str, size: usize) -> Result<Vec<u8>> {
        let (at, count) = (self.number(at)?, self.number(count)?);
        let data = self.memory.data(&self.store);
        // Both are u32, so that nothing overflows in 64 bits.
        let place = data
            .get(at..at + count * size)
            .context("outside its memory")?;
        Ok(place.to_vec())
    }

    /// Hands over a file.
    fn give(&mut self, bytes: &[u8]) -> Result<()> {
        let room: TypedFunc<u32, u32> =
            said(self.instance.get_typed_func(&mut self.store, "room"))?;
        let length = u32::try_from(bytes.len()).context("too large for 32 bits")?;
        let at = said(room.call(&mut self.store, length))? as usize;
        self.memory.write(&mut self.store, at, bytes)?;
        let take: TypedFunc<(), ()> = said(self.instance.get_typed_func(&mut self.store, "take"))?;
        said(take.call(&mut self.store, ()))
    }
}
