//! The boards that are played, each by the CPU that QEMU knows it by; and this machine, as it is.

use crate::dist::Platform;
use sandpiper_core::target::Target;
use sandpiper_sandbox::host_target;

/// A board.
#[derive(Debug, Clone, Copy)]
pub(super) struct Board {
    /// What people call it.
    pub(super) name: &'static str,
    /// Its system.
    pub(super) platform: Platform,
    /// Its CPU to QEMU.
    pub(super) cpu: &'static str,
    /// What the best native code for it is made for.
    pub(super) target: Target,
}

/// The kinds of boards that a package is made for.
pub(super) fn boards(platform: Platform) -> Vec<Board> {
    if platform == Platform::Amd64 {
        return vec![Board {
            name: "this machine",
            platform,
            cpu: "own",
            target: host_target(),
        }];
    }
    let all = BOARDS.into_iter();
    all.filter(|b| b.platform == platform).collect()
}

const BOARDS: [Board; 4] = [
    Board {
        name: "Pi Zero 2 W, Pi 3",
        platform: Platform::Arm64,
        cpu: "cortex-a53",
        target: Target::CortexA53,
    },
    Board {
        name: "Pi 4",
        platform: Platform::Arm64,
        cpu: "cortex-a72",
        // The same instructions as the one before; there is no code of its own for it.
        target: Target::CortexA53,
    },
    Board {
        name: "Pi 5",
        platform: Platform::Arm64,
        cpu: "cortex-a76",
        target: Target::CortexA76,
    },
    Board {
        name: "32-bit system",
        platform: Platform::Armhf,
        cpu: "cortex-a7",
        target: Target::Pulley32,
    },
];
