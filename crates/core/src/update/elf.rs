//! For which boards a program was built, by the first bytes of its file.
//!
//! Layout and numbers: System V Application Binary Interface, chapter 4, "ELF header"; machine
//! numbers from the same document's registry (`EM_*`).

use crate::target::Arch;

/// Bytes of a file that are looked at.
pub const HEADER_BYTES: usize = 20;

const MAGIC: [u8; 4] = [0x7f, b'E', b'L', b'F'];
const CLASS_32: u8 = 1;
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const TYPE_EXECUTABLE: u16 = 2;
/// Also of an executable that can lie anywhere.
const TYPE_SHARED: u16 = 3;
const MACHINE_ARM: u16 = 40;
const MACHINE_X86_64: u16 = 62;
const MACHINE_AARCH64: u16 = 183;

/// Why a file is no program for a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// No ELF file.
    #[error("it is not a program for Linux (no ELF header)")]
    NoElf,
    /// An ELF file that cannot be started.
    #[error("it is an ELF file but not a program that can be started (type {0})")]
    NotExecutable(u16),
    /// For a machine that no agent runs on.
    #[error(
        "it was built for a machine that the agent does not run on (ELF machine {machine}, class {class})"
    )]
    Machine {
        /// Machine number.
        machine: u16,
        /// 1 for 32 bits, 2 for 64.
        class: u8,
    },
}

/// The architecture of a program, by the beginning of its file.
///
/// # Errors
/// [`ElfError`].
pub fn arch_of(header: &[u8]) -> Result<Arch, ElfError> {
    let header: &[u8; HEADER_BYTES] = header.first_chunk().ok_or(ElfError::NoElf)?;
    if header[..4] != MAGIC {
        return Err(ElfError::NoElf);
    }
    let (class, order) = (header[4], header[5]);
    let kind = u16::from_le_bytes([header[16], header[17]]);
    let machine = u16::from_le_bytes([header[18], header[19]]);
    if order != LITTLE_ENDIAN {
        return Err(ElfError::Machine { machine, class });
    }
    if !matches!(kind, TYPE_EXECUTABLE | TYPE_SHARED) {
        return Err(ElfError::NotExecutable(kind));
    }
    match (machine, class) {
        (MACHINE_X86_64, CLASS_64) => Ok(Arch::X86_64),
        (MACHINE_AARCH64, CLASS_64) => Ok(Arch::Aarch64),
        (MACHINE_ARM, CLASS_32) => Ok(Arch::Arm),
        _ => Err(ElfError::Machine { machine, class }),
    }
}

/// Whether a program may be started on this architecture, by the beginning of its file.
///
/// # Errors
/// Why not, in words.
pub fn check(header: &[u8], arch: Arch) -> Result<(), String> {
    match arch_of(header) {
        Ok(found) if found == arch => Ok(()),
        Ok(found) => Err(format!(
            "it was built for {found} and this device is {arch}"
        )),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn header(class: u8, order: u8, kind: u16, machine: u16) -> Vec<u8> {
        let mut bytes = [&MAGIC[..], &[class, order, 1, 0], &[0; 8]].concat();
        bytes.extend(kind.to_le_bytes());
        bytes.extend(machine.to_le_bytes());
        bytes
    }

    #[test]
    fn programs_are_told_apart_by_their_header() {
        let all = [
            (CLASS_64, MACHINE_X86_64, Arch::X86_64),
            (CLASS_64, MACHINE_AARCH64, Arch::Aarch64),
            (CLASS_32, MACHINE_ARM, Arch::Arm),
        ];
        for (class, machine, arch) in all {
            for kind in [TYPE_EXECUTABLE, TYPE_SHARED] {
                assert_eq!(arch_of(&header(class, 1, kind, machine)), Ok(arch));
            }
        }
        assert_eq!(arch_of(b"#!/bin/sh\nexec true\n"), Err(ElfError::NoElf));
        assert_eq!(arch_of(&MAGIC), Err(ElfError::NoElf));
        let object = header(CLASS_64, 1, 1, MACHINE_X86_64);
        assert_eq!(arch_of(&object), Err(ElfError::NotExecutable(1)));
        // x32, big-endian ARM, RISC-V.
        for (class, order, machine) in [
            (CLASS_32, 1, MACHINE_X86_64),
            (CLASS_32, 2, MACHINE_ARM),
            (CLASS_64, 1, 243),
        ] {
            let error = arch_of(&header(class, order, 2, machine));
            assert_eq!(error, Err(ElfError::Machine { machine, class }));
        }
        let why = check(&header(CLASS_32, 1, 2, MACHINE_ARM), Arch::Aarch64).unwrap_err();
        assert_eq!(why, "it was built for arm and this device is aarch64");
    }
}
