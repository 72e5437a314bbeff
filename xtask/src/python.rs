//! Python with the packages that reference results and competitors come from: an environment of its
//! own below `target`, made on first use, so that nothing of the machine is changed.

use crate::shell;
use anyhow::{Context, Result, ensure};
use std::path::PathBuf;
use std::process::Command;

/// Fixed, so that the same networks and figures come out everywhere.
const PACKAGES: [&str; 3] = ["numpy==2.4.6", "onnx==1.23.2", "onnxruntime==1.32.0"];

/// The interpreter of the environment.
///
/// # Errors
/// When there is no Python, or the packages cannot be fetched.
pub(crate) fn python() -> Result<PathBuf> {
    let home = shell::root().join("target/python");
    let interpreter = home.join("bin/python");
    let wanted = PACKAGES.join(" ");
    // Written last: an environment without it, or of other versions, is made anew.
    let mark = home.join("packages");
    if std::fs::read_to_string(&mark).is_ok_and(|found| found == wanted) {
        return Ok(interpreter);
    }
    let made = Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&home)
        .status()
        .context("python3 cannot be started")?;
    ensure!(made.success(), "python3 cannot make an environment (venv)");
    let fetched = Command::new(&interpreter)
        .args(["-m", "pip", "install", "--quiet", "--retries", "1"])
        .args(["--disable-pip-version-check", "--only-binary", ":all:"])
        .args(PACKAGES)
        .status()?;
    ensure!(fetched.success(), "pip cannot fetch {wanted}");
    std::fs::write(&mark, wanted)?;
    Ok(interpreter)
}
