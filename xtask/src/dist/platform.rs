//! What packages are made for.

/// A processor and its Linux, as packages tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Platform {
    /// 64-bit ARM: Pi Zero 2 W, 3, 4 and 5 with a 64-bit system.
    Arm64,
    /// 32-bit ARM from ARMv7 on: Pi 2, 3, 4 and Zero 2 W with a 32-bit system.
    Armhf,
    /// 64-bit Intel and AMD.
    Amd64,
}

/// A program that is packaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    Agent,
    Controller,
}

impl Program {
    /// The package of cargo that builds it.
    pub(crate) fn package(self) -> &'static str {
        match self {
            Self::Agent => "sandpiper-agent",
            Self::Controller => "sandpiper",
        }
    }

    /// Largest size of the program in bytes. A device gets its agent over slow networks; a
    /// controller carries a compiler. Code for amd64 is longer (8,675,856 bytes where arm64 has 6,968,976),
    /// beyond the 8 MB that are the goal for every agent.
    pub(crate) fn max_bytes(self, platform: Platform) -> u64 {
        match (self, platform) {
            (Self::Agent, Platform::Amd64) => 9_000_000,
            (Self::Agent, _) => 8_000_000,
            (Self::Controller, _) => 48_000_000,
        }
    }
}

impl Platform {
    pub(crate) const ALL: [Self; 3] = [Self::Arm64, Self::Armhf, Self::Amd64];

    /// Its name among packages of Debian, and in the names of files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Arm64 => "arm64",
            Self::Armhf => "armhf",
            Self::Amd64 => "amd64",
        }
    }

    /// Its name to the compiler.
    pub(crate) fn triple(self) -> &'static str {
        match self {
            Self::Arm64 => "aarch64-unknown-linux-gnu",
            Self::Armhf => "armv7-unknown-linux-gnueabihf",
            Self::Amd64 => "x86_64-unknown-linux-gnu",
        }
    }

    /// The prefix of its C compiler and linker in Debian and most other distributions.
    pub(crate) fn gnu(self) -> &'static str {
        match self {
            Self::Arm64 => "aarch64-linux-gnu",
            Self::Armhf => "arm-linux-gnueabihf",
            Self::Amd64 => "x86_64-linux-gnu",
        }
    }

    /// What is packaged for it. A controller compiles models, which small boards do not do.
    pub(crate) fn programs(self) -> &'static [Program] {
        match self {
            Self::Arm64 | Self::Armhf => &[Program::Agent],
            Self::Amd64 => &[Program::Agent, Program::Controller],
        }
    }
}
