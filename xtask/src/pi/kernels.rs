//! Native code for boards, made here, in the agent's own runner under emulation: the same bits as
//! on this machine for integer models, and near enough for floats.

use super::board::Board;
use super::emulator::Emulator;
use anyhow::{Context, Result, bail, ensure};
use sandpiper_agent::runner::{Runner, RunnerSpec};
use sandpiper_compiler::{CompileError, Compiled, Options, compile};
use sandpiper_core::target::Target;
use sandpiper_fuzz::verdict::Deviation;
use sandpiper_fuzz::{grow, quantise};
use sandpiper_sandbox::{Crew, Limits, LoadSpec, Native, Origin, Weights, host_target, precompile};
use sandpiper_testdata::Samples;
use std::path::Path;
use std::time::Duration;

/// Emulated and interpreted, everything is slow.
const PATIENCE: Duration = Duration::from_secs(300);
/// How far floats may be off, as a share of the largest value: CPUs round differently where one of
/// them fuses a product and a sum.
pub(super) const FLOAT_TOLERANCE: f64 = 1e-5;
/// Test windows of the example.
const WINDOWS: usize = 8;
/// Random quantised networks.
const NETWORKS: u64 = 60;

/// A model with inputs and what this machine answers.
pub(super) struct Case {
    name: String,
    compiled: Compiled,
    /// Whether answers must be the same bit for bit.
    exact: bool,
    inputs: Vec<Vec<u8>>,
    answers: Vec<Vec<Vec<u8>>>,
}

/// What came of a board.
#[derive(Debug, Default)]
pub(super) struct Compared {
    /// Models whose answers had to be, and were, the same bits.
    pub(super) exact: usize,
    /// Models of floats.
    pub(super) floats: usize,
    /// Of their answers the farthest, as a share of the largest value.
    pub(super) farthest: f64,
}

/// The example's models on some of its windows, and random quantised networks.
///
/// # Errors
/// When a file cannot be read, or this machine does not run a model.
pub(super) fn cases() -> Result<Vec<Case>> {
    let example = sandpiper_e2e::activity();
    let samples = Samples::read(&example.join("test.npz"))?;
    let window = |i| -> Vec<u8> {
        let x: &[f32] = samples.sample(i);
        x.iter().flat_map(|v| v.to_le_bytes()).collect()
    };
    let windows: Vec<Vec<u8>> = (0..WINDOWS).map(window).collect();
    let mut cases = Vec::new();
    for name in ["tiny", "small", "pruned50", "large"] {
        for (kind, exact) in [("int8", true), ("f32", false)] {
            let name = format!("{name}-{kind}");
            let file = example.join(format!("models/{name}.onnx"));
            let compiled = compile(&std::fs::read(&file)?, &Options::default())?;
            cases.push(Case::new(name, compiled, exact, windows.clone())?);
        }
    }
    for seed in 0..NETWORKS {
        let case = quantise::quantised(&grow::network(seed), seed)?;
        match compile(&case.onnx, &Options::default()) {
            Ok(compiled) => {
                let name = format!("random network {seed} ({})", case.operators.join(", "));
                let inputs = vec![case.input.to_bytes()];
                cases.push(Case::new(name, compiled, true, inputs)?);
            }
            // What the compiler does not take is no matter of CPUs.
            Err(CompileError::Unsupported(_)) => {}
            Err(error) => return Err(error).context(format!("random network {seed}")),
        }
    }
    Ok(cases)
}

impl Case {
    fn new(name: String, compiled: Compiled, exact: bool, inputs: Vec<Vec<u8>>) -> Result<Self> {
        let made = precompile(&compiled.wasm, host_target(), Origin::OwnCompiler)?;
        let mut crew = Crew::load(
            LoadSpec {
                native: Native::Bytes(&made.native),
                weights: made.abi.weights.map(|_| Weights::Bytes(&compiled.weights)),
                limits: Limits {
                    memory_bytes: made.abi.memory_bytes,
                    deadline: PATIENCE,
                },
                abi: made.abi,
            },
            1,
        )?;
        let mut answers = Vec::new();
        for input in &inputs {
            let mut outputs = vec![Vec::new(); crew.abi().outputs.len()];
            crew.infer(1, &[input], &mut outputs)?;
            answers.push(outputs);
        }
        Ok(Self {
            name,
            compiled,
            exact,
            inputs,
            answers,
        })
    }

    async fn run(&self, exe: &Path, target: Target, dir: &Path) -> Result<Vec<Vec<Vec<u8>>>> {
        let made = precompile(&self.compiled.wasm, target, Origin::OwnCompiler)?;
        let (native, weights) = (dir.join("native"), dir.join("weights"));
        std::fs::write(&native, &made.native)?;
        std::fs::write(&weights, &self.compiled.weights)?;
        let runner = Runner::spawn(RunnerSpec {
            exe: exe.to_owned(),
            name: "pi".to_owned(),
            native,
            weights: made.abi.weights.map(|_| weights),
            limits: Limits {
                memory_bytes: made.abi.memory_bytes,
                deadline: PATIENCE,
            },
            abi: made.abi,
            workers: 1,
            queue: 1,
            load_timeout: PATIENCE,
        })
        .await?;
        let mut answers = Vec::new();
        for input in &self.inputs {
            answers.push(runner.infer(1, vec![input.clone()]).await?.outputs);
        }
        runner.stop().await;
        Ok(answers)
    }
}

fn floats(outputs: &[Vec<u8>]) -> Vec<f64> {
    let each = outputs.iter().flat_map(|bytes| bytes.as_chunks().0);
    each.map(|b| f64::from(f32::from_le_bytes(*b))).collect()
}

/// Runs every case on a board and compares.
///
/// # Errors
/// With the first case whose answers differ, or that does not run.
pub(super) fn compare(
    cases: &[Case],
    board: &Board,
    emulator: &Emulator,
    agent: &Path,
) -> Result<Compared> {
    let dir = tempfile::tempdir()?;
    let exe = emulator.wrap(dir.path(), board.cpu, agent)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let mut compared = Compared::default();
    for case in cases {
        let ran = runtime.block_on(case.run(&exe, board.target, dir.path()));
        let answers = ran.with_context(|| format!("{} on {}", case.name, board.cpu))?;
        if case.exact {
            ensure!(
                answers == case.answers,
                "{} gives other bits on {} than here",
                case.name,
                board.cpu
            );
            compared.exact += 1;
            continue;
        }
        for (theirs, ours) in answers.iter().zip(&case.answers) {
            let deviation = Deviation::of(&floats(theirs), &floats(ours));
            let far = deviation.map_err(anyhow::Error::msg)?.largest;
            compared.farthest = compared.farthest.max(far);
            if far > FLOAT_TOLERANCE {
                bail!("{} is off by {far:e} on {}", case.name, board.cpu);
            }
        }
        compared.floats += 1;
    }
    Ok(compared)
}
