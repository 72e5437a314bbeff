//! `cargo xtask model`: every state of a small fleet, and the core against a small model of a rollout.

use crate::shell;
use std::process::{Command, ExitCode};

/// Choices.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Leave out what takes minutes.
    #[arg(long)]
    short: bool,
}

/// Runs and prints how many states were visited.
#[allow(clippy::print_stderr)]
pub(crate) fn run(args: &Args) -> ExitCode {
    match tests(!args.short).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cannot start the check: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The tests, with optimisation and with the deliberate mistakes that they have to catch.
pub(crate) fn tests(all: bool) -> Command {
    let mut command = shell::cargo();
    command.args([
        "test",
        "--quiet",
        "--release",
        "--package",
        "sandpiper-model",
    ]);
    command.args(["--features", "mutants", "--", "--nocapture"]);
    command.arg("--test-threads=1");
    if all {
        command.arg("--include-ignored");
    }
    command
}
