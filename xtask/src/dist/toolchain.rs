//! Finds what builds for a platform: rustup's target where it is installed, Debian's otherwise.

use super::debian::Debian;
use super::platform::Platform;
use crate::shell;
use anyhow::{Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Programs that build for one platform.
pub(super) struct Toolchain {
    platform: Platform,
    /// Another compiler and cargo than those that run this.
    rust: Option<(PathBuf, PathBuf)>,
    /// Whether the standard library has to be built as well.
    builds_std: bool,
    /// C compiler and linker.
    c: PathBuf,
}

impl Toolchain {
    /// Looks for one; fetches Debian's into `cache` if there is none.
    ///
    /// # Errors
    /// When there is none and none can be fetched, with what to do.
    pub(super) fn find(platform: Platform, cache: &Path) -> Result<Self> {
        let debian = Debian::at(cache.to_path_buf());
        if platform == Platform::Amd64 {
            ensure!(
                cfg!(target_arch = "x86_64"),
                "packages for amd64 are built on amd64"
            );
            let c = PathBuf::from("cc");
            return Ok(Self {
                platform,
                rust: None,
                builds_std: false,
                c,
            });
        }
        let native = platform == Platform::Arm64 && cfg!(target_arch = "aarch64");
        let rust = if native || shell::rustup_has(platform.triple()) {
            None
        } else {
            super::say(&format!(
                "rustup has no {}: Debian's toolchain is used",
                platform.triple()
            ));
            Some(debian.rust(platform)?)
        };
        let name = format!("{}-gcc", platform.gnu());
        let c = match (native, shell::has(&name, "--version")) {
            (true, _) => "cc".into(),
            (false, true) => name.into(),
            (false, false) => debian.c(platform)?,
        };
        Ok(Self {
            platform,
            builds_std: rust.is_some() && platform == Platform::Armhf,
            rust,
            c,
        })
    }

    /// `cargo build` of one package with everything that this toolchain needs.
    pub(super) fn build(&self) -> Command {
        let mut command = match &self.rust {
            None => shell::cargo(),
            Some((rustc, cargo)) => shell::other_cargo(rustc, cargo),
        };
        let triple = self.platform.triple();
        let upper = triple.to_uppercase().replace('-', "_");
        command
            .arg("build")
            .args(["--target", triple])
            .env(format!("CARGO_TARGET_{upper}_LINKER"), &self.c)
            .env(format!("CARGO_TARGET_{upper}_RUSTFLAGS"), rustflags())
            .env(format!("CC_{}", triple.replace('-', "_")), &self.c);
        if self.builds_std {
            // The sources belong to this very compiler, so what is unstable about it is known.
            command
                .env("RUSTC_BOOTSTRAP", "1")
                .arg("-Zbuild-std=std,panic_abort");
        }
        command
    }
}

/// One static file, and the same bytes wherever it is built.
fn rustflags() -> String {
    let root = shell::root();
    let cargo = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo"));
    let cargo = cargo.or_else(home).unwrap_or_default();
    format!(
        "-C target-feature=+crt-static --remap-path-prefix={}=/sandpiper --remap-path-prefix={}=/registry",
        root.display(),
        cargo.join("registry/src").display()
    )
}
