//! What the way to a runner and back costs: for requests of several sizes, the time from the agent's
//! call to its answer less the time that the module ran. Prints `BYTES P50_US P95_US` for each.
//!
//! `cargo run --release -p sandpiper-agent --example hop`. The modules copy their input to their output.
#![allow(clippy::print_stdout)]

#[path = "../../crates/sandbox/tests/common/mod.rs"]
mod common;

use anyhow::{Result, ensure};
use sandpiper_agent::runner::{self, Runner, RunnerSpec};
use sandpiper_core::abi::ModuleAbi;
use sandpiper_sandbox::{Limits, Origin, host_target, precompile};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Bytes of input and of output: a window of sensors, two seconds of sound, an image.
const SIZES: [u32; 3] = [1 << 10, 64 << 10, 588 << 10];
const WARM_UP: usize = 1000;
const CALLS: usize = 4000;
/// Nothing here takes that long.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(runner::SUBCOMMAND) {
        return runner::child::main();
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let runtime = sandpiper_agent::app::runtime()?;
    let dir = tempfile::tempdir()?;
    for bytes in SIZES {
        let mut hops = runtime.block_on(measure(bytes, dir.path()))?;
        hops.sort_by(f64::total_cmp);
        let at = |share: f64| hops[(share * (hops.len() - 1) as f64) as usize];
        println!("{bytes} {:.1} {:.1}", at(0.5), at(0.95));
    }
    Ok(())
}

/// One input and one output of so many bytes, one behind the other.
fn abi(bytes: u32) -> ModuleAbi {
    ModuleAbi {
        inputs: vec![common::tensor("x", 0, bytes / 4)],
        outputs: vec![common::tensor("y", bytes, bytes / 4)],
        max_batch: 1,
        bounded: true,
        ..common::abi(u64::from(2 * bytes).div_ceil(1 << 16))
    }
}

/// The hops of single requests, one after another, in microseconds.
async fn measure(bytes: u32, dir: &Path) -> Result<Vec<f64>> {
    let abi = abi(bytes);
    let body = format!(
        "(memory.copy (i32.const {bytes}) (i32.const 0) (i32.const {bytes})) (i32.const 0)"
    );
    let wat = common::infer(abi.memory_bytes >> 16, &body);
    let made = precompile(
        &common::module(&wat, &abi),
        host_target(),
        Origin::OwnCompiler,
    )?;
    let native = dir.join(bytes.to_string());
    std::fs::write(&native, &made.native)?;
    let limits = Limits {
        memory_bytes: abi.memory_bytes,
        deadline: PATIENCE,
    };
    let runner = Runner::spawn(RunnerSpec {
        exe: std::env::current_exe()?,
        name: "hop".into(),
        native,
        weights: None,
        abi,
        limits,
        workers: 1,
        queue: 1,
        load_timeout: PATIENCE,
    })
    .await?;
    let input: Vec<u8> = (0..bytes).map(|k| k as u8).collect();
    let mut hops = Vec::with_capacity(CALLS);
    for call in 0..WARM_UP + CALLS {
        let given = vec![input.clone()];
        let begun = Instant::now();
        let answer = runner.infer(1, given).await?;
        let hop = begun.elapsed().as_secs_f64() * 1e6 - f64::from(answer.latency_us);
        ensure!(
            answer.outputs == [input.as_slice()],
            "the answer is another"
        );
        if call >= WARM_UP {
            hops.push(hop);
        }
    }
    Ok(hops)
}
