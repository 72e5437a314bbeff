//! Prints what each step of a model takes in the sandbox.
//!
//! `cargo run -p sandpiper-compiler --example profile -- FILE.onnx [ROUNDS [WORKERS]]`
//!
//! Columns: the least of the step's times in microseconds (what else the machine does only adds to
//! it), millions of multiplications and
//! additions, those per nanosecond, and the step. Inputs are zeros, and a free
//! batch is 1.
//! Then a whole inference by one worker and by WORKERS, in turns.
#![allow(clippy::print_stdout)]

use anyhow::{Context, Result, ensure};
use sandpiper_compiler::{Compiled, Model, Options, compile};
use sandpiper_core::tensor::Dim;
use sandpiper_sandbox::{
    Crew, Limits, LoadSpec, Native, Origin, Precompiled, Weights, host_target, load_wasm,
    precompile,
};
use std::time::{Duration, Instant};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().context("give an ONNX file")?;
    let rounds: usize = arguments.next().map_or(Ok(15), |n| n.parse())?;
    let onnx = std::fs::read(&path).with_context(|| path.clone())?;
    let started = Instant::now();
    let mut options = Options::default();
    for spec in Model::read(&onnx)?.summary().inputs {
        let one = |d: &Dim| matches!(d, Dim::Batch).then_some(1);
        let dims = spec.dims.iter().map(one).collect();
        options.shapes.insert(spec.name, dims);
    }
    let compiled = compile(&onnx, &options)?;
    let made = started.elapsed();
    let deadline = Duration::from_secs(60);
    let mut instance = load_wasm(
        &compiled.wasm,
        &compiled.weights,
        Origin::OwnCompiler,
        deadline,
    )?;
    let native = started.elapsed() - made;
    let steps = compiled.report.steps.len();
    ensure!(instance.steps() as usize == steps, "steps are missing");
    let mut times = vec![Vec::new(); steps];
    for _ in 0..rounds {
        for (i, times) in times.iter_mut().enumerate() {
            let start = Instant::now();
            instance.step(i as u32, 0, (0, 1))?;
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
    }
    let workers: u32 = arguments.next().map_or(Ok(1), |n| n.parse())?;
    let mut total = 0.0;
    for (step, times) in compiled.report.steps.iter().zip(&mut times) {
        let least = times.iter().copied().fold(f64::INFINITY, f64::min);
        total += least;
        let (mega, rate) = (step.macs as f64 / 1e6, step.macs as f64 / least / 1e3);
        println!(
            "{least:9.1} {mega:9.3} {rate:7.2}  {:<16} {:?} {}",
            step.kernel,
            step.shape,
            step.nodes.join(" ")
        );
    }
    let macs: u64 = compiled.report.steps.iter().map(|s| s.macs).sum();
    println!(
        "{total:9.1} {:9.3} {:7.2}  all steps; compiled in {made:.2?}, native code in {native:.2?}",
        macs as f64 / 1e6,
        macs as f64 / total / 1e3,
    );
    if workers > 1 {
        let made = precompile(&compiled.wasm, host_target(), Origin::OwnCompiler)?;
        let [one, several] = together(&compiled, &made, workers, rounds)?;
        println!(
            "{one:9.1} by one worker, {several:.1} by {workers}: {:.2} times as fast",
            one / several
        );
    }
    Ok(())
}

/// The least times of an inference by one worker and by several, in microseconds.
fn together(
    compiled: &Compiled,
    made: &Precompiled,
    workers: u32,
    rounds: usize,
) -> Result<[f64; 2]> {
    let load = |workers| {
        let spec = LoadSpec {
            native: Native::Bytes(&made.native),
            abi: made.abi.clone(),
            weights: made.abi.weights.map(|_| Weights::Bytes(&compiled.weights)),
            limits: Limits {
                memory_bytes: made.abi.memory_bytes,
                deadline: Duration::from_secs(60),
            },
        };
        Crew::load(spec, workers)
    };
    let mut crews = [load(1)?, load(workers)?];
    let inputs: Vec<Vec<u8>> = made
        .abi
        .inputs
        .iter()
        .map(|i| vec![0; i.spec.size_bytes(1)])
        .collect();
    let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
    let mut outputs = vec![Vec::new(); made.abi.outputs.len()];
    let mut least = [f64::INFINITY; 2];
    for _ in 0..rounds {
        for (crew, least) in crews.iter_mut().zip(&mut least) {
            let start = Instant::now();
            crew.infer(1, &inputs, &mut outputs)?;
            *least = least.min(start.elapsed().as_secs_f64() * 1e6);
        }
    }
    Ok(least)
}
