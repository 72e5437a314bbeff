//! `cargo xtask sim`: whole fleets under a virtual clock. Built with optimisation, in a program of
//! its own, since a debug build would take ten times as long.

use crate::shell;
use std::process::{Command, ExitCode};

/// Seeds of `cargo xtask test`: always the same.
const FIXED_SEEDS: &str = "200";
/// Seeds for each deliberate mistake.
const HUNT_SEEDS: &str = "40";

/// Choices.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Seeds to run; for each mistake, at most so many.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Devices of each fleet.
    #[arg(long, default_value_t = 50)]
    devices: u32,
    /// Begin with a seed that nobody has run.
    #[arg(long, conflicts_with = "seed")]
    fresh: bool,
    /// Threads; as many as there are cores when 0.
    #[arg(long, default_value_t = 0)]
    jobs: usize,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Make every deliberate mistake in turn and say which invariant catches it.
    #[arg(long)]
    mutants: bool,
    /// Only mistakes whose name contains this text.
    #[arg(long, default_value = "", requires = "mutants")]
    only: String,
}

/// Runs and prints.
#[allow(clippy::print_stderr)]
pub(crate) fn run(args: &Args) -> ExitCode {
    let mut command = program(args.mutants);
    let default = if args.mutants {
        HUNT_SEEDS
    } else {
        FIXED_SEEDS
    };
    let seeds = args
        .seeds
        .map_or_else(|| default.to_owned(), |n| n.to_string());
    command.args(["--seeds", &seeds, "--devices", &args.devices.to_string()]);
    command.args(["--jobs", &args.jobs.to_string()]);
    if args.fresh {
        command.arg("--fresh");
    } else {
        command.args(["--seed", &args.seed.to_string()]);
    }
    if args.json {
        command.arg("--json");
    }
    if args.mutants {
        command.args(["--mutants", "--only", &args.only]);
    }
    match command.status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cannot start the simulation: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The fixed seeds of `cargo xtask test`.
pub(crate) fn fixed() -> Command {
    let mut command = program(false);
    command.args(["--seeds", FIXED_SEEDS]);
    command
}

/// Every deliberate mistake.
pub(crate) fn mutants() -> Command {
    let mut command = program(true);
    command.args(["--mutants", "--seeds", HUNT_SEEDS]);
    command
}

fn program(mutants: bool) -> Command {
    let mut command = shell::cargo();
    command.args(["run", "--quiet", "--release", "--package", "sandpiper-sim"]);
    command.args(["--bin", "sandpiper-sim"]);
    if mutants {
        command.args(["--features", "mutants"]);
    }
    command.arg("--");
    command
}
