//! QEMU's user-mode emulation: the machine's own, or Debian's package unpacked below `target`. Programs
//! of this machine's own platform need none.

use crate::dist::{Debian, Platform};
use anyhow::{Result, ensure};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Runs programs of one platform on this machine.
#[derive(Debug, Clone)]
pub(super) struct Emulator {
    /// None for this machine's own platform.
    program: Option<PathBuf>,
    platform: Platform,
}

impl Emulator {
    /// The machine's own, or else Debian's.
    ///
    /// # Errors
    /// When there is none and it cannot be fetched.
    pub(super) fn find(platform: Platform, debian: &Debian) -> Result<Self> {
        let name = match platform {
            Platform::Arm64 => "qemu-aarch64-static",
            Platform::Armhf => "qemu-arm-static",
            Platform::Amd64 => {
                ensure!(
                    cfg!(target_arch = "x86_64"),
                    "amd64 is played on amd64 only"
                );
                let program = None;
                return Ok(Self { program, platform });
            }
        };
        let own = Path::new("/usr/bin").join(name);
        let program = if own.exists() {
            own
        } else {
            debian.program("qemu-user-static", name)?
        };
        let program = Some(program);
        Ok(Self { program, platform })
    }

    /// Whether programs are emulated at all.
    pub(super) fn emulates(&self) -> bool {
        self.program.is_some()
    }

    /// A program that runs `inner` as on a CPU that QEMU knows by this name.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn wrap(&self, dir: &Path, cpu: &str, inner: &Path) -> Result<PathBuf> {
        let path = dir.join(format!("{}-on-{cpu}", self.platform.name()));
        let emulator = match &self.program {
            Some(program) => format!("'{}' -cpu {cpu} ", program.display()),
            None => String::new(),
        };
        let text = format!("#!/bin/sh\nexec {emulator}'{}' \"$@\"\n", inner.display());
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }

    /// What makes a kernel run this platform's programs by this emulator, in the words of
    /// `binfmt_misc`: the head of an ELF file for the machine, executable or shared. `F`: the
    /// emulator is opened now, so that it is found from within another root, too. Empty where there is
    /// nothing to emulate.
    pub(super) fn registration(&self) -> String {
        let Some(program) = &self.program else {
            return String::new();
        };
        let (bits, machine) = match self.platform {
            Platform::Arm64 => (2, 0xb7),
            Platform::Armhf => (1, 0x28),
            Platform::Amd64 => (2, 0x3e),
        };
        let magic = format!(
            "\\x7fELF\\x{bits:02x}\\x01\\x01\\x00{}\\x02\\x00\\x{machine:02x}\\x00",
            "\\x00".repeat(8)
        );
        let mask = format!(
            "{}\\x00{}\\xfe\\xff\\xff\\xff",
            "\\xff".repeat(7),
            "\\xff".repeat(8)
        );
        let (name, program) = (self.platform.name(), program.display());
        format!(":{name}:M::{magic}:{mask}:{program}:F")
    }
}
