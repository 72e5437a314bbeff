//! Runs programs from the root of the workspace.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Cargo, as it was called.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Whether this program can be started and says its version.
pub(crate) fn has(program: &str, argument: &str) -> bool {
    Command::new(program)
        .arg(argument)
        .output()
        .is_ok_and(|o| o.status.success())
}

/// Another cargo with its compiler.
pub(crate) fn other_cargo(rustc: &Path, cargo: &Path) -> Command {
    let mut command = Command::new(cargo);
    command.current_dir(root());
    command.env("RUSTC", rustc);
    // Names of the calling toolchain that would speak for it.
    command.env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN");
    command
}

/// Whether the compiler that is used here has the standard library of a target.
pub(crate) fn rustup_has(triple: &str) -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let asked = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", triple])
        .output();
    let Ok(output) = asked else { return false };
    let dir = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let holds_std = |d: std::fs::ReadDir| {
        d.flatten()
            .any(|f| f.file_name().to_string_lossy().starts_with("libstd-"))
    };
    output.status.success() && std::fs::read_dir(dir).is_ok_and(holds_std)
}
