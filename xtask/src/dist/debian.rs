//! A cross toolchain from Debian's packages, unpacked below `target`: for machines where rustup
//! has not got the target and cannot fetch it. Nothing is installed and no root is needed; apt
//! keeps its state in a directory of ours.

use super::platform::Platform;
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The release whose packages fit together: a compiler of one version with the libraries of two
/// architectures. It is a release of its own, whatever this machine runs.
const SUITES: &[(&str, &str)] = &[
    ("debian", "bookworm"),
    ("debian-security", "bookworm-security"),
];
const MIRROR: &str = "http://deb.debian.org";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

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

    /// Fetches and unpacks those packages that are not there yet.
    fn unpack(&self, packages: &[&str]) -> Result<()> {
        let marks = self.dir.join("unpacked");
        fs::create_dir_all(&marks)?;
        let missing = |p: &&&str| !marks.join(p).exists();
        let missing: Vec<&str> = packages.iter().filter(missing).copied().collect();
        if missing.is_empty() {
            return Ok(());
        }
        for tool in ["apt-get", "dpkg-deb"] {
            ensure!(
                crate::shell::has(tool, "--version"),
                "rustup has not got this target and there is no {tool} to fetch Debian's toolchain: \
                 run `rustup target add`, or use a machine with Debian or Ubuntu"
            );
        }
        ensure!(
            Path::new(KEYRING).exists(),
            "{KEYRING} is missing, by which Debian's packages are verified: install debian-archive-keyring"
        );
        self.update()?;
        for package in missing {
            let debs = tempfile::tempdir_in(&self.dir)?;
            run(self.apt().arg("download").arg(package).current_dir(&debs))?;
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

    /// Reads the lists of packages, once.
    fn update(&self) -> Result<()> {
        let apt = self.dir.join("apt");
        for dir in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(apt.join(dir))?;
        }
        fs::create_dir_all(self.root())?;
        fs::write(apt.join("status"), "")?;
        let mirror = std::env::var("SANDPIPER_DEBIAN_MIRROR");
        let mirror = mirror.unwrap_or_else(|_| MIRROR.to_owned());
        let line = |(archive, suite): &(&str, &str)| {
            format!("deb [signed-by={KEYRING} arch=amd64,arm64] {mirror}/{archive} {suite} main\n")
        };
        let lines: String = SUITES.iter().map(line).collect();
        fs::write(apt.join("sources.list"), lines)?;
        run(self.apt().arg("update"))
            .with_context(|| format!("Debian's packages cannot be reached at {mirror}"))
    }

    fn apt(&self) -> Command {
        let apt = self.dir.join("apt");
        let mut command = Command::new("apt-get");
        command.arg("-qq");
        let mut option = |name: &str, value: &str| {
            command.arg("-o").arg(format!("{name}={value}"));
        };
        let path = |name: &str| apt.join(name).display().to_string();
        option("Dir::State", &apt.display().to_string());
        option("Dir::State::status", &path("status"));
        option("Dir::State::lists", &path("lists"));
        option("Dir::Cache", &path("cache"));
        option("Dir::Etc::sourcelist", &path("sources.list"));
        option("Dir::Etc::sourceparts", "/dev/null");
        option("APT::Architectures::", "arm64");
        // The user that apt would become cannot write here.
        option("APT::Sandbox::User", "root");
        command
    }
}

fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().display().to_string();
    let output = command
        .output()
        .with_context(|| format!("cannot start {name}"))?;
    ensure!(
        output.status.success(),
        "{name} failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
