//! Our side: compiled, made native, loaded from files as on a device, run.

use super::super::stats::median;
use super::case::Case;
use crate::shell;
use anyhow::{Context, Result, ensure};
use sandpiper_compiler::{Model, Options, compile};
use sandpiper_conformance::mapped::mapped;
use sandpiper_core::abi::ModuleAbi;
use sandpiper_core::tensor::{DType, Dim};
use sandpiper_sandbox::{
    Crew, InferError, Instance, Limits, LoadSpec, Native, Origin, Weights, host_target, precompile,
};
use serde::Serialize;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Generous: tells an endless loop from a slow model.
const DEADLINE: Duration = Duration::from_secs(60);
/// Workers of the second form.
const WORKERS: u32 = 2;
/// Loads whose median is given.
const LOADS: usize = 5;

/// What was made of a model, and how soon it answers.
#[derive(Debug, Serialize)]
pub(super) struct Made {
    /// Exact size of the linear memory, weights included.
    pub(super) memory_bytes: u64,
    pub(super) weights_bytes: u64,
    pub(super) wasm_bytes: u64,
    pub(super) native_bytes: u64,
    /// From the ONNX file to the module and its weights.
    pub(super) compile_ms: f64,
    /// From the module to native code for this host.
    pub(super) native_ms: f64,
    /// Code and weights mapped and the module ready to be called. The files are in the page cache.
    pub(super) load_ms: f64,
    /// From the request to load to the first result.
    pub(super) first_ms: f64,
    /// Of the mapped weights, after the first result: pages that this process had to copy.
    pub(super) weights_dirty_bytes: u64,
}

/// Takes so many runs, gives the times of each in microseconds.
pub(super) type Run<'a> = Box<dyn FnMut(usize) -> Result<Vec<f64>> + 'a>;

/// A loaded model with one sample.
pub(super) struct Ours {
    instance: Instance,
    /// The same with two workers.
    crew: Crew,
    crew_outputs: Vec<Vec<u8>>,
    input: Vec<u8>,
    outputs: Vec<Vec<u8>>,
    pub(super) made: Made,
    /// Keeps the mapped files in place.
    _files: tempfile::TempDir,
}

impl Ours {
    /// Compiles a model and loads it.
    ///
    /// # Errors
    /// When the compiler or the sandbox refuses it: the reason in full.
    pub(super) fn load(case: &Case) -> Result<Self> {
        let onnx = std::fs::read(&case.onnx)?;
        let input = std::fs::read(&case.input)?;
        let (compiled, compile_ms) = timed(|| Ok(compile(&onnx, &options(case, &onnx)?)?))?;
        let origin = Origin::OwnCompiler;
        let (native, native_ms) = timed(|| Ok(precompile(&compiled.wasm, host_target(), origin)?))?;
        // Not in /tmp, which may be memory: there every page counts as dirty.
        let scratch = shell::root().join("target/bench");
        std::fs::create_dir_all(&scratch)?;
        let directory = tempfile::tempdir_in(scratch)?;
        let files = Files {
            native: directory.path().join("native"),
            weights: directory.path().join("weights"),
            abi: native.abi,
        };
        write(&files.native, &native.native)?;
        write(&files.weights, &compiled.weights)?;
        let started = files.start(&input)?;
        Ok(Self {
            made: Made {
                memory_bytes: compiled.report.memory_bytes,
                weights_bytes: compiled.report.weights_bytes,
                wasm_bytes: compiled.report.wasm_bytes,
                native_bytes: native.native.len() as u64,
                compile_ms,
                native_ms,
                load_ms: median(&started.load_ms),
                first_ms: median(&started.first_ms),
                weights_dirty_bytes: mapped(&files.weights)?.dirty_bytes,
            },
            crew: Crew::load(files.spec(), WORKERS)?,
            crew_outputs: started.outputs.clone(),
            instance: started.instance,
            outputs: started.outputs,
            input,
            _files: directory,
        })
    }

    /// Elements of all outputs of the last run.
    ///
    /// # Errors
    /// When an output is not f32.
    pub(super) fn outputs(&self) -> Result<Vec<f64>> {
        let mut values = Vec::new();
        for (port, bytes) in self.instance.abi().outputs.iter().zip(&self.outputs) {
            ensure!(
                port.spec.dtype == DType::F32,
                "`{}` is not f32",
                port.spec.name
            );
            let floats = bytes.as_chunks().0.iter();
            values.extend(floats.map(|b| f64::from(f32::from_le_bytes(*b))));
        }
        Ok(values)
    }

    /// To run it with one worker and with two: the copies of input and output into and out of the
    /// sandbox are in the times.
    pub(super) fn runs(&mut self) -> [Run<'_>; 2] {
        let Self {
            instance,
            crew,
            crew_outputs,
            input,
            outputs,
            ..
        } = self;
        let input: &[u8] = input;
        [
            Box::new(move |runs| times(runs, || instance.infer(1, &[input], outputs))),
            Box::new(move |runs| times(runs, || crew.infer(1, &[input], crew_outputs))),
        ]
    }
}

fn times(runs: usize, mut infer: impl FnMut() -> Result<(), InferError>) -> Result<Vec<f64>> {
    let mut times = Vec::with_capacity(runs);
    for _ in 0..runs {
        let start = Instant::now();
        infer()?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(times)
}

/// What a device has of a variant.
struct Files {
    native: PathBuf,
    weights: PathBuf,
    abi: ModuleAbi,
}

/// The last of several loads, and the times of all.
struct Started {
    instance: Instance,
    outputs: Vec<Vec<u8>>,
    load_ms: Vec<f64>,
    first_ms: Vec<f64>,
}

impl Files {
    /// Loads the model [`LOADS`] times, each time with one inference.
    fn start(&self, input: &[u8]) -> Result<Started> {
        let (mut load_ms, mut first_ms) = (Vec::new(), Vec::new());
        let mut outputs = vec![Vec::new(); self.abi.outputs.len()];
        let mut last = None;
        for _ in 0..LOADS {
            // The one before goes first, so that its pages are not counted with this one's.
            drop(last.take());
            let start = Instant::now();
            let mut instance = Instance::load(self.spec())?;
            load_ms.push(start.elapsed().as_secs_f64() * 1e3);
            instance.infer(1, &[input], &mut outputs)?;
            first_ms.push(start.elapsed().as_secs_f64() * 1e3);
            last = Some(instance);
        }
        Ok(Started {
            instance: last.context("nothing was loaded")?,
            outputs,
            load_ms,
            first_ms,
        })
    }

    fn spec(&self) -> LoadSpec<'_> {
        let weights = self.abi.weights.is_some();
        LoadSpec {
            native: Native::File(&self.native),
            abi: self.abi.clone(),
            weights: weights.then_some(Weights::File(&self.weights)),
            limits: Limits {
                memory_bytes: self.abi.memory_bytes,
                deadline: DEADLINE,
            },
        }
    }
}

/// Written through to the disk, as a device installs a variant: pages that are still to be written
/// would count as dirty.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    Ok(file.sync_all()?)
}

/// Fixes the batch of every input to 1 where the case asks for it.
fn options(case: &Case, onnx: &[u8]) -> Result<Options> {
    let mut options = Options::default();
    if case.single {
        for spec in Model::read(onnx)?.summary().inputs {
            let one = |d: &Dim| matches!(d, Dim::Batch).then_some(1);
            options
                .shapes
                .insert(spec.name, spec.dims.iter().map(one).collect());
        }
    }
    Ok(options)
}

fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let start = Instant::now();
    let made = work()?;
    Ok((made, start.elapsed().as_secs_f64() * 1e3))
}
