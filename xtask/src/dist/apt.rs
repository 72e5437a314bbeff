//! apt with a state of its own, below a directory of ours: no root is needed and nothing of the
//! machine is changed.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const MIRROR: &str = "http://deb.debian.org";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A state of apt.
pub(super) struct Apt {
    dir: PathBuf,
    /// As apt names them; the first is the own one.
    architectures: &'static [&'static str],
    /// Archives and their releases.
    suites: &'static [(&'static str, &'static str)],
}

impl Apt {
    pub(super) fn new(
        dir: PathBuf,
        architectures: &'static [&'static str],
        suites: &'static [(&'static str, &'static str)],
    ) -> Self {
        Self {
            dir,
            architectures,
            suites,
        }
    }

    /// Reads the lists of packages.
    ///
    /// # Errors
    /// When this machine has no apt, or the lists cannot be fetched.
    pub(super) fn update(&self) -> Result<()> {
        for tool in ["apt-get", "dpkg-deb"] {
            ensure!(
                crate::shell::has(tool, "--version"),
                "there is no {tool} to fetch Debian's packages: use a machine with Debian or Ubuntu, \
                 or install what they stand in for (`rustup target add`, QEMU)"
            );
        }
        ensure!(
            Path::new(KEYRING).exists(),
            "{KEYRING} is missing, by which Debian's packages are verified: install debian-archive-keyring"
        );
        for dir in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(self.dir.join(dir))?;
        }
        fs::write(self.dir.join("status"), "")?;
        let mirror = std::env::var("SANDPIPER_DEBIAN_MIRROR");
        let mirror = mirror.unwrap_or_else(|_| MIRROR.to_owned());
        let all = self.architectures.join(",");
        let line = |(archive, suite): &(&str, &str)| {
            format!("deb [signed-by={KEYRING} arch={all}] {mirror}/{archive} {suite} main\n")
        };
        let lines: String = self.suites.iter().map(line).collect();
        fs::write(self.dir.join("sources.list"), lines)?;
        run(self.get().arg("update"))
            .with_context(|| format!("Debian's packages cannot be reached at {mirror}"))
    }

    /// `apt-get` with this state.
    pub(super) fn get(&self) -> Command {
        let mut command = Command::new("apt-get");
        command.arg("-qq");
        let mut option = |name: &str, value: &str| {
            command.arg("-o").arg(format!("{name}={value}"));
        };
        let path = |name: &str| self.dir.join(name).display().to_string();
        option("Dir::State", &self.dir.display().to_string());
        option("Dir::State::status", &path("status"));
        option("Dir::State::lists", &path("lists"));
        option("Dir::Cache", &path("cache"));
        option("Dir::Etc::sourcelist", &path("sources.list"));
        option("Dir::Etc::sourceparts", "/dev/null");
        option("APT::Architecture", self.architectures[0]);
        for other in self.architectures {
            option("APT::Architectures::", other);
        }
        // The user that apt would become cannot write here.
        option("APT::Sandbox::User", "root");
        command
    }

    /// Packages that were fetched by `apt-get install --download-only`.
    pub(super) fn fetched(&self) -> Result<Vec<PathBuf>> {
        let files = fs::read_dir(self.dir.join("cache/archives"))?;
        let paths = files.flatten().map(|f| f.path());
        let mut debs: Vec<_> = paths
            .filter(|p| p.extension().is_some_and(|e| e == "deb"))
            .collect();
        debs.sort();
        Ok(debs)
    }
}

/// Runs a program that must succeed.
///
/// # Errors
/// With what it said on standard error.
pub(super) fn run(command: &mut Command) -> Result<()> {
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
