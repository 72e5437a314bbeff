//! Builds the two programs.

use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::Command;

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// `sandpiper`.
    pub controller: PathBuf,
    /// `sandpiper-agent`.
    pub agent: PathBuf,
}

impl Binaries {
    /// Builds both, with a profile of cargo: `dev` or `release`. Each is built by itself: built
    /// together, cargo joins their features and the agent carries the controller's compiler.
    ///
    /// # Errors
    /// When cargo fails.
    pub fn build(profile: &str) -> Result<Self> {
        let directory = if profile == "dev" { "debug" } else { profile };
        let made = target()?.join(directory);
        for package in ["sandpiper", "sandpiper-agent"] {
            let status = cargo()
                .args([
                    "build",
                    "--quiet",
                    "--profile",
                    profile,
                    "--package",
                    package,
                ])
                .status()?;
            if !status.success() {
                bail!("cargo could not build {package}");
            }
        }
        Ok(Self {
            controller: made.join("sandpiper"),
            agent: made.join("sandpiper-agent"),
        })
    }
}

/// Cargo, as it was called, at the root of the workspace.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(crate::root());
    forget_caller(&mut command);
    command
}

/// Takes out of a command's environment what cargo tells of the package that it runs. Build scripts
/// (ring's) look at these names, and everything above them would be built anew for each caller.
pub fn forget_caller(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
}

fn target() -> Result<PathBuf> {
    let output = cargo()
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let path = metadata["target_directory"]
        .as_str()
        .context("cargo names no target directory")?;
    Ok(path.into())
}
