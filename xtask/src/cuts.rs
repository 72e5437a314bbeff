//! `cargo xtask cuts`: power cuts at every point of what a device lives through. The tests of the
//! agent take a share of them.

use crate::shell;
use std::process::{Command, ExitCode};

/// Runs and prints.
#[allow(clippy::print_stderr)]
pub(crate) fn run() -> ExitCode {
    match program().status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cannot start cargo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The test that nobody runs by the way, since it takes minutes.
pub(crate) fn program() -> Command {
    let mut command = shell::cargo();
    command.args(["test", "--quiet", "--package", "sandpiper-agent"]);
    command.args(["--test", "endurance", "--", "--ignored", "--exact"]);
    command.args(["cuts::every_point", "--nocapture"]);
    command
}
