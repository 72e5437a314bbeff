//! Prints what each step of a model takes in the sandbox.
//!
//! `cargo run -p sandpiper-compiler --example profile -- FILE.onnx [ROUNDS]`
//!
//! Columns: the least of the step's times in microseconds (what else the machine does only adds to
//! it), millions of multiplications and
//! additions, those per nanosecond, and the step. Inputs are zeros.
#![allow(clippy::print_stdout)]

use anyhow::{Context, Result, ensure};
use sandpiper_compiler::{Options, compile};
use sandpiper_sandbox::{Origin, load_wasm};
use std::time::{Duration, Instant};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().context("give an ONNX file")?;
    let rounds: usize = arguments.next().map_or(Ok(15), |n| n.parse())?;
    let onnx = std::fs::read(&path).with_context(|| path.clone())?;
    let started = Instant::now();
    let compiled = compile(&onnx, &Options::default())?;
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
    Ok(())
}
