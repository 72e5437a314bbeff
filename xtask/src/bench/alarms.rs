//! How often gates fail rollouts without a change beyond their limits.

use crate::shell;
use anyhow::{Result, ensure};

/// Runs the rollouts; gives the table, or the rows as JSON.
pub(super) fn measure(rollouts: u64, json: bool) -> Result<String> {
    let mut command = shell::cargo();
    command.args(["run", "--quiet", "--release", "--package", "sandpiper-sim"]);
    command.args(["--bin", "sandpiper-alarms", "--"]);
    command.args(["--rollouts", &rollouts.to_string()]);
    if json {
        command.arg("--json");
    }
    let output = command.stderr(std::process::Stdio::inherit()).output()?;
    ensure!(output.status.success(), "no rollouts were run");
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}
