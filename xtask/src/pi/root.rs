//! A Debian root of another architecture, and a place to run its programs: a user namespace whose
//! kernel knows the emulator, with the root changed. Nothing of the machine is changed.

use super::emulator::Emulator;
use crate::dist::{Debian, Platform};
use anyhow::{Context, Result, bail, ensure};
use sandpiper_e2e::process::Process;
use sandpiper_e2e::wait;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What the installer and the package's scripts call, with all that it depends on: what is on every
/// Debian system.
const PACKAGES: &[&str] = &[
    "coreutils",
    "dash",
    "diffutils",
    "dpkg",
    "grep",
    "libc-bin",
    "passwd",
    "sed",
];
/// Ids inside that stand for the same ids outside.
const IDS: u32 = 65_536;
/// For emulated programs that do little.
const PATIENCE: Duration = Duration::from_secs(180);

/// A directory with a system in it.
#[derive(Debug)]
pub(super) struct Root {
    dir: PathBuf,
    emulator: Emulator,
}

/// Why there is none on this machine, if so.
pub(super) fn obstacle() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("only root installs packages with users and owners of files");
    }
    let status = Command::new("unshare")
        .args(["--user", "--mount", "true"])
        .status();
    if !status.is_ok_and(|s| s.success()) {
        return Some("namespaces are not allowed here");
    }
    None
}

impl Root {
    /// A new system below `dir`, unpacked from Debian's packages.
    ///
    /// # Errors
    /// When packages cannot be fetched or unpacked.
    pub(super) fn make(
        dir: &Path,
        platform: Platform,
        debian: &Debian,
        emulator: &Emulator,
    ) -> Result<Self> {
        let it = Self {
            dir: dir.join(platform.name()),
            emulator: emulator.clone(),
        };
        // One directory for programs, as every Debian since 12 has it.
        for name in ["bin", "sbin", "lib"] {
            fs::create_dir_all(it.dir.join("usr").join(name))?;
            let link = format!("usr/{name}");
            std::os::unix::fs::symlink(link, it.dir.join(name))?;
        }
        for deb in debian.with_dependencies(platform, PACKAGES)? {
            let script =
                "dpkg-deb --fsys-tarfile \"$1\" | tar -x --keep-directory-symlink -C \"$2\"";
            let status = Command::new("sh")
                .args(["-ec", script, "sh"])
                .args([deb.as_path(), &it.dir])
                .status()?;
            ensure!(status.success(), "{} cannot be unpacked", deb.display());
        }
        for place in [
            "etc",
            "proc",
            "dev",
            "tmp",
            "packages",
            "binfmt",
            "var/lib/dpkg/info",
            "var/lib/dpkg/updates",
            "var/log",
        ] {
            fs::create_dir_all(it.dir.join(place))?;
        }
        for (name, text) in [
            ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
            ("etc/group", "root:x:0:\nvideo:x:44:\n"),
            (
                "etc/os-release",
                "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n",
            ),
            ("var/lib/dpkg/status", ""),
            ("var/lib/dpkg/available", ""),
            ("var/lib/dpkg/arch", &format!("{}\n", platform.name())),
        ] {
            fs::write(it.dir.join(name), text)?;
        }
        Ok(it)
    }

    /// Whether its programs are emulated.
    pub(super) fn is_emulated(&self) -> bool {
        self.emulator.emulates()
    }

    /// Where a path of the system is on this machine.
    pub(super) fn path(&self, inside: &str) -> PathBuf {
        self.dir.join(inside.trim_start_matches('/'))
    }

    /// Gives the system the files of a directory, below `/packages`.
    ///
    /// # Errors
    /// When they cannot be copied.
    pub(super) fn bring(&self, packages: &Path) -> Result<()> {
        for file in fs::read_dir(packages)? {
            let file = file?;
            fs::copy(file.path(), self.path("packages").join(file.file_name()))?;
        }
        Ok(())
    }

    /// Starts a program of the system as one of its users, on a CPU that QEMU knows by this name; its
    /// output goes to `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn start(
        &self,
        cpu: &str,
        user: &str,
        program: &[&str],
        environment: &[(&str, &str)],
        log: &Path,
    ) -> Result<Process> {
        let user = self.ids(user)?;
        // Two shells: the first one waits until it is root in here, and the second is then started
        // as root, which is what gives it the rights to mount.
        let wait =
            "until grep -q . /proc/self/uid_map; do sleep 0.01; done; exec sh -ec \"$0\" \"$@\"";
        let inside = "[ -z \"$2\" ] || { mount -t binfmt_misc binfmt \"$1/binfmt\"; \
             printf %s \"$2\" >\"$1/binfmt/register\"; }; \
             mount --rbind /proc \"$1/proc\"; mount --rbind /dev \"$1/dev\"; \
             root=$1 user=$3; shift 3; exec chroot --userspec=\"$user\" \"$root\" \"$@\"";
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--mount", "sh", "-c", wait, inside, "sh"])
            .arg(&self.dir)
            .arg(self.emulator.registration())
            .arg(user)
            .args(program)
            .env("QEMU_CPU", cpu)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(environment.iter().copied());
        let process = Process::start(&mut command, log)?;
        self.map(process.id())?;
        Ok(process)
    }

    /// Runs a program of the system to its end; gives what it said.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub(super) fn run(
        &self,
        cpu: &str,
        program: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<String> {
        let log = tempfile::NamedTempFile::new()?;
        let process = self.start(cpu, "root", program, environment, log.path())?;
        let status = process.wait(PATIENCE)?;
        let said = fs::read_to_string(log.path())?;
        if !status.success() {
            bail!("`{}` gave {status}:\n{said}", program.join(" "));
        }
        Ok(said)
    }

    /// `USER:GROUP` in numbers: names outside are others.
    fn ids(&self, user: &str) -> Result<String> {
        let text = fs::read_to_string(self.path("etc/passwd"))?;
        let mut lines = text.lines().map(|l| l.split(':').collect::<Vec<_>>());
        let found = lines.find(|l| l[0] == user && l.len() > 3);
        let line = found.with_context(|| format!("the system has no user {user}"))?;
        Ok(format!("{}:{}", line[2], line[3]))
    }

    /// Gives the ids in the namespace of a process their meaning, once it has one.
    fn map(&self, process: u32) -> Result<()> {
        let of = |who: &dyn AsRef<OsStr>| {
            fs::read_link(Path::new("/proc").join(who.as_ref()).join("ns/user"))
        };
        let (own, id) = (of(&"self")?, process.to_string());
        wait::until("a namespace of its own", PATIENCE, || {
            Ok((of(&id)? != own).then_some(()))
        })?;
        for kind in ["uid_map", "gid_map"] {
            let path = Path::new("/proc").join(&id).join(kind);
            fs::write(&path, format!("0 0 {IDS}"))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}
