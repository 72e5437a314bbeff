//! A cross toolchain, an emulator and systems of other architectures from Debian's packages, unpacked
//! below `target`: for machines where rustup has not got the target and cannot fetch it. Nothing is
//! installed and no root is needed.

use super::apt::{Apt, run};
use super::platform::Platform;
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

/// The release whose packages fit together: a compiler of one version with the libraries of two
/// architectures. It is a release of its own, whatever this machine runs.
const SUITES: &[(&str, &str)] = &[
    ("debian", "bookworm"),
    ("debian-security", "bookworm-security"),
];
/// A system to install into needs no compiler of a security update, and not every release of those
/// has every architecture.
const SYSTEM: &[(&str, &str)] = &[("debian", "bookworm")];

/// The compiler, cargo, and the libraries that they load.
const COMPILER: &[&str] = &[
    "cargo-web",
    "libgit2-1.5",
    "libhttp-parser2.9",
    "libllvm22",
    "libmbedcrypto7",
    "libmbedtls14",
    "libmbedx509-1",
    "libstd-rust-web-1.96",
    "libstd-rust-web-dev",
    "rustc-web",
];
/// What the C compilers load.
const C_LIBRARIES: &[&str] = &["libgmp10", "libisl23", "libjansson4", "libmpc3", "libmpfr6"];
const ARM64: &[&str] = &["libstd-rust-web-dev:arm64"];
const ARM64_C: &[&str] = &[
    "binutils-aarch64-linux-gnu",
    "cpp-12-aarch64-linux-gnu",
    "gcc-12-aarch64-linux-gnu",
    "libc6-arm64-cross",
    "libc6-dev-arm64-cross",
    "libgcc-12-dev-arm64-cross",
    "libgcc-s1-arm64-cross",
    "linux-libc-dev-arm64-cross",
];
/// No package holds the standard library for 32-bit ARM or wasm; it is built from its sources.
const SOURCES: &[&str] = &["rust-web-src"];
const ARMHF_C: &[&str] = &[
    "binutils-arm-linux-gnueabihf",
    "cpp-12-arm-linux-gnueabihf",
    "gcc-12-arm-linux-gnueabihf",
    "libc6-armhf-cross",
    "libc6-dev-armhf-cross",
    "libgcc-12-dev-armhf-cross",
    "libgcc-s1-armhf-cross",
    "linux-libc-dev-armhf-cross",
];

/// A directory that holds apt's state, packages, and what they unpack to.
pub(crate) struct Debian {
    dir: PathBuf,
}

impl Debian {
    /// In a directory, which is made when packages are needed.
    pub(crate) fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The Rust compiler and cargo for a platform.
    ///
    /// # Errors
    /// When packages cannot be fetched.
    pub(super) fn rust(&self, platform: Platform) -> Result<(PathBuf, PathBuf)> {
        let more = match platform {
            Platform::Arm64 => ARM64,
            Platform::Armhf => SOURCES,
            Platform::Amd64 => bail!("rustup's own toolchain builds for amd64"),
        };
        self.compiler(more)
    }

    /// The Rust compiler and cargo with the sources of the standard library, for a target that no
    /// package holds it for.
    ///
    /// # Errors
    /// When packages cannot be fetched.
    pub(crate) fn rust_with_sources(&self) -> Result<(PathBuf, PathBuf)> {
        self.compiler(SOURCES)
    }

    fn compiler(&self, more: &[&str]) -> Result<(PathBuf, PathBuf)> {
        self.unpack(&[COMPILER, more].concat())?;
        let sysroot = self.root().join("usr");
        let rustc = self.wrap(
            "rustc",
            "rustc",
            &format!("--sysroot '{}'", sysroot.display()),
        )?;
        let cargo = self.wrap("cargo", "cargo", "")?;
        let status = Command::new(&rustc).arg("--version").output();
        let starts = status.with_context(|| format!("cannot start {}", rustc.display()))?;
        ensure!(
            starts.status.success(),
            "Debian's compiler does not run on this machine: {}",
            String::from_utf8_lossy(&starts.stderr)
        );
        Ok((rustc, cargo))
    }

    /// The C compiler for a platform, which also links.
    ///
    /// # Errors
    /// When packages cannot be fetched.
    pub(super) fn c(&self, platform: Platform) -> Result<PathBuf> {
        let packages = match platform {
            Platform::Arm64 => ARM64_C,
            Platform::Armhf => ARMHF_C,
            Platform::Amd64 => bail!("the machine's own C compiler links for amd64"),
        };
        self.unpack(&[C_LIBRARIES, packages].concat())?;
        let name = format!("{}-gcc", platform.gnu());
        self.wrap(&name, &format!("{name}-12"), "")
    }

    fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    /// A script that starts an unpacked program with its own libraries.
    fn wrap(&self, name: &str, program: &str, first: &str) -> Result<PathBuf> {
        let usr = self.root().join("usr");
        let path = self.dir.join(name);
        let text = format!(
            "#!/bin/sh\nLD_LIBRARY_PATH='{}' exec '{}' {first} \"$@\"\n",
            usr.join("lib/x86_64-linux-gnu").display(),
            usr.join("bin").join(program).display(),
        );
        // Cargo looks at the time of the compiler to know whether it has changed.
        if fs::read_to_string(&path).ok().as_ref() != Some(&text) {
            fs::write(&path, text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        }
        Ok(path)
    }

    /// A program that needs nothing else, from a package.
    ///
    /// # Errors
    /// When the package cannot be fetched.
    pub(crate) fn program(&self, package: &str, name: &str) -> Result<PathBuf> {
        self.unpack(&[package])?;
        let path = self.root().join("usr/bin").join(name);
        ensure!(path.exists(), "Debian's {package} holds no {name}");
        Ok(path)
    }

    /// The files of packages for a platform, with those of all that they depend on.
    ///
    /// # Errors
    /// When they cannot be fetched.
    pub(crate) fn with_dependencies(
        &self,
        platform: Platform,
        packages: &[&str],
    ) -> Result<Vec<PathBuf>> {
        let dir = self.dir.join(format!("system-{}", platform.name()));
        let architectures: &[&str] = match platform {
            Platform::Arm64 => &["arm64"],
            Platform::Armhf => &["armhf"],
            Platform::Amd64 => &["amd64"],
        };
        let apt = Apt::new(dir.clone(), architectures, SYSTEM);
        let (mark, wanted) = (dir.join("wanted"), packages.join(" "));
        if fs::read_to_string(&mark).ok().as_ref() != Some(&wanted) {
            // Half of what another list asked for is of no use.
            if dir.exists() {
                fs::remove_dir_all(&dir)?;
            }
            apt.update()?;
            let options = [
                "install",
                "--download-only",
                "--yes",
                "--no-install-recommends",
            ];
            run(apt.get().args(options).args(packages))?;
            fs::write(&mark, wanted)?;
        }
        apt.fetched()
    }

    /// Fetches and unpacks those packages that are not there yet.
    fn unpack(&self, packages: &[&str]) -> Result<()> {
        let marks = self.dir.join("unpacked");
        fs::create_dir_all(&marks)?;
        let missing = |p: &&&str| !marks.join(p).exists();
        let missing: Vec<&str> = packages.iter().filter(missing).copied().collect();
        if missing.is_empty() {
            return Ok(());
        }
        fs::create_dir_all(self.root())?;
        let apt = Apt::new(self.dir.join("apt"), &["amd64", "arm64"], SUITES);
        apt.update()?;
        for package in missing {
            let debs = tempfile::tempdir_in(&self.dir)?;
            run(apt.get().arg("download").arg(package).current_dir(&debs))?;
            for deb in fs::read_dir(&debs)? {
                run(Command::new("dpkg-deb")
                    .arg("-x")
                    .arg(deb?.path())
                    .arg(self.root()))?;
            }
            fs::write(marks.join(package), "")?;
        }
        Ok(())
    }
}
