//! `cargo xtask fuzz`: random networks against ONNX Runtime, and damaged files against the compiler's
//! promise to answer with a module or a message. The same seeds give the same cases.

use crate::conformance::Ended;
use crate::peer::{self, Peer};
use crate::shell;
use anyhow::{Context, Result};
use sandpiper_fuzz::network::Case;
use sandpiper_fuzz::verdict::{Deviation, Made, run as run_ours};
use sandpiper_fuzz::{damage, grow, quantise};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Choices.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Networks, half of them in floats and half quantised.
    #[arg(long, default_value_t = NETWORKS)]
    networks: u64,
    /// Damaged files.
    #[arg(long, default_value_t = DAMAGED)]
    damaged: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

/// As many as take about a minute each on two cores.
const NETWORKS: u64 = 1000;
const DAMAGED: u64 = 6000;
/// Below this share of networks that are compiled, the search would prove little.
const TAKEN: f64 = 0.9;

/// Runs and prints.
#[allow(clippy::print_stderr)]
pub(crate) fn run(args: &Args) -> ExitCode {
    match searched(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the search did not come to its end: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// As a check. Without the other engine only the damaged files are tried, and it counts as absent.
#[allow(clippy::print_stderr)]
pub(crate) fn check() -> Ended {
    let absent = peer::onnxruntime().err();
    if let Some(error) = &absent {
        eprintln!("{error:#}");
    }
    let args = Args {
        networks: if absent.is_some() { 0 } else { NETWORKS },
        damaged: DAMAGED,
        seed: 0,
    };
    match (run(&args), absent) {
        (ExitCode::SUCCESS, None) => Ended::Passed,
        (ExitCode::SUCCESS, Some(_)) => Ended::Absent,
        _ => Ended::Failed,
    }
}

fn searched(args: &Args) -> Result<bool> {
    let home = shell::root().join("target/fuzz");
    std::fs::create_dir_all(&home)?;
    let seeds = |count| args.seed..args.seed + count;
    let agree = args.networks == 0 || against_onnxruntime(seeds(args.networks), &home)?;
    let survived = survived(seeds(args.damaged), &home)?;
    Ok(agree && survived)
}

/// What came of the networks.
#[derive(Debug, Default)]
struct Tally {
    agree: u64,
    /// Largest deviation of those that agree.
    floats: f64,
    quantised: f64,
    refused: BTreeMap<String, u64>,
    findings: Vec<String>,
}

#[allow(clippy::print_stdout)]
fn against_onnxruntime(seeds: std::ops::Range<u64>, home: &Path) -> Result<bool> {
    let mut engine = peer::onnxruntime()?;
    let version = engine.version()?;
    let total = seeds.end - seeds.start;
    let mut tally = Tally::default();
    for seed in seeds {
        let case = case(seed)?;
        let file = home.join(format!("{seed}.onnx"));
        std::fs::write(&file, &case.onnx)?;
        let found = judged(&case, &mut engine, &file, home, &mut tally)?;
        match found {
            // Kept, to be looked at.
            Some(what) => tally.findings.push(format!(
                "seed {seed}: {what}\n  {}\n  {}",
                case.operators.join(" "),
                file.display()
            )),
            None => std::fs::remove_file(&file)?,
        }
    }
    let refused: u64 = tally.refused.values().sum();
    let wrong = tally.findings.len();
    println!(
        "{total} networks against {version}: {} agree, {refused} refused, {wrong} do not agree",
        tally.agree
    );
    println!(
        "  farthest off, of the largest value: {:.1e} in floats, {:.1e} quantised",
        tally.floats, tally.quantised
    );
    for (why, count) in &tally.refused {
        println!("  refused {count}: {why}");
    }
    tally.findings.iter().for_each(|f| println!("{f}"));
    let enough = tally.agree as f64 >= TAKEN * total as f64;
    if wrong == 0 && !enough {
        println!("fewer than {TAKEN} of them were compiled");
    }
    Ok(wrong == 0 && enough)
}

/// Every second network is quantised.
fn case(seed: u64) -> Result<Case> {
    let network = grow::network(seed);
    if seed.is_multiple_of(2) {
        Ok(network.case())
    } else {
        quantise::quantised(&network, seed).with_context(|| format!("seed {seed}"))
    }
}

/// What is wrong with our result, if anything.
fn judged(
    case: &Case,
    engine: &mut Peer,
    file: &Path,
    home: &Path,
    tally: &mut Tally,
) -> Result<Option<String>> {
    let ours = match run_ours(case) {
        Made::Outputs(ours) => ours,
        Made::Failed(why) => return Ok(Some(why)),
        Made::Refused(why) => {
            *tally.refused.entry(why).or_default() += 1;
            return Ok(None);
        }
    };
    let input = home.join("input");
    std::fs::write(&input, case.input.to_bytes())?;
    let reference = match engine.load(file, &[&input]) {
        Ok(answer) => answer.plain.unwrap_or(answer.outputs),
        Err(error) => return Ok(Some(format!("ONNX Runtime does not take it: {error:#}"))),
    };
    let found = match Deviation::of(&ours, &reference) {
        Ok(found) => found,
        Err(why) => return Ok(Some(why)),
    };
    if !found.within(case.tolerance) {
        let (largest, mean) = (found.largest, found.mean);
        return Ok(Some(format!(
            "{largest:.1e} of the largest value, {mean:.1e} in the mean"
        )));
    }
    tally.agree += 1;
    let farthest = if case.quantised {
        &mut tally.quantised
    } else {
        &mut tally.floats
    };
    *farthest = farthest.max(found.largest);
    Ok(None)
}

/// The files that are damaged: real ones, and random networks of every kind.
fn whole(seed: u64) -> Result<Vec<u8>> {
    if seed.is_multiple_of(8) {
        let name = ["tiny-f32", "tiny-int8"][(seed / 8 % 2) as usize];
        let file = format!("examples/activity/models/{name}.onnx");
        return Ok(std::fs::read(shell::root().join(file))?);
    }
    Ok(case(seed % 512)?.onnx)
}

/// A damaged file is compiled or refused, and what is compiled runs.
#[allow(clippy::print_stdout)]
fn survived(seeds: std::ops::Range<u64>, home: &Path) -> Result<bool> {
    let total = seeds.end - seeds.start;
    let (mut compiled, mut findings) = (0, Vec::new());
    // Written before each, so that it is there even if this process does not survive.
    let last: PathBuf = home.join("damaged.onnx");
    for seed in seeds {
        let onnx = damage::damaged(&whole(seed)?, seed);
        std::fs::write(&last, &onnx)?;
        match damage::outcome(&onnx) {
            Ok(made) => compiled += u64::from(made),
            Err(why) => {
                let kept = home.join(format!("damaged-{seed}.onnx"));
                std::fs::copy(&last, &kept)?;
                findings.push(format!("seed {seed}: {why}\n  {}", kept.display()));
            }
        }
    }
    std::fs::remove_file(&last).or_else(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(e),
    })?;
    let wrong = findings.len();
    println!("{total} damaged files: {compiled} compiled, {wrong} not survived");
    findings.iter().for_each(|f| println!("{f}"));
    Ok(wrong == 0)
}
