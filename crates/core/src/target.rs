//! What native code is made for, and which devices can run it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A CPU feature by the name Linux gives it in `/proc/cpuinfo` (`avx2`, `atomics`, `asimddp`).
pub type CpuFeature = String;

/// Instruction set of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arch {
    /// 64-bit Intel and AMD.
    X86_64,
    /// 64-bit ARM: Pi Zero 2 W, 3, 4, 5 with a 64-bit system.
    Aarch64,
    /// 32-bit ARM: only through the Pulley interpreter.
    Arm,
}

impl std::fmt::Display for Arch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
            Self::Arm => "arm",
        })
    }
}

/// What native code is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Target {
    /// Any x86-64 since 2009 (SSE4.2 and earlier).
    #[serde(rename = "x86_64-linux/v2")]
    X8664V2,
    /// x86-64 with AVX2, BMI and FMA.
    #[serde(rename = "x86_64-linux/v3")]
    X8664V3,
    /// Pi Zero 2 W and Pi 3 and 4: ARMv8.0, no LSE, no dot product.
    #[serde(rename = "aarch64-linux/cortex-a53")]
    CortexA53,
    /// Pi 5: ARMv8.2 with LSE and dot product.
    #[serde(rename = "aarch64-linux/cortex-a76")]
    CortexA76,
    /// 32-bit boards: interpreted.
    #[serde(rename = "pulley32")]
    Pulley32,
}

impl Target {
    /// Every target, the one to prefer first within an architecture.
    pub const ALL: [Self; 5] = [
        Self::X8664V3,
        Self::X8664V2,
        Self::CortexA76,
        Self::CortexA53,
        Self::Pulley32,
    ];

    /// Name in manifests and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::X8664V2 => "x86_64-linux/v2",
            Self::X8664V3 => "x86_64-linux/v3",
            Self::CortexA53 => "aarch64-linux/cortex-a53",
            Self::CortexA76 => "aarch64-linux/cortex-a76",
            Self::Pulley32 => "pulley32",
        }
    }

    /// The architecture that runs it.
    pub fn arch(self) -> Arch {
        match self {
            Self::X8664V2 | Self::X8664V3 => Arch::X86_64,
            Self::CortexA53 | Self::CortexA76 => Arch::Aarch64,
            Self::Pulley32 => Arch::Arm,
        }
    }

    /// CPU features (Linux names) that the code uses and a device must have.
    pub fn required_features(self) -> &'static [&'static str] {
        match self {
            Self::X8664V2 => &["sse4_1", "sse4_2", "ssse3", "popcnt"],
            Self::X8664V3 => &[
                "sse4_1", "sse4_2", "ssse3", "popcnt", "avx", "avx2", "bmi1", "bmi2", "fma",
            ],
            Self::CortexA53 => &["asimd"],
            Self::CortexA76 => &["asimd", "atomics", "asimddp"],
            Self::Pulley32 => &[],
        }
    }

    /// Targets a CPU of this architecture with these features can run, best first.
    pub fn supported_by(arch: Arch, features: &BTreeSet<CpuFeature>) -> Vec<Self> {
        let runs = |t: &Self| {
            t.arch() == arch && t.required_features().iter().all(|f| features.contains(*f))
        };
        Self::ALL.into_iter().filter(runs).collect()
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// A text that names no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a target; known: x86_64-linux/v2, x86_64-linux/v3, aarch64-linux/cortex-a53, aarch64-linux/cortex-a76, pulley32"
)]
pub struct UnknownTarget(String);

impl std::str::FromStr for Target {
    type Err = UnknownTarget;
    fn from_str(text: &str) -> Result<Self, UnknownTarget> {
        Self::ALL
            .into_iter()
            .find(|t| t.name() == text)
            .ok_or_else(|| UnknownTarget(text.chars().take(80).collect()))
    }
}
