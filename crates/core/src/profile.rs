//! What a device is (profile) and how it is (conditions).

use crate::energy::EnergyScope;
use crate::target::{Arch, CpuFeature, Target};
use crate::tensor::DType;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Speed of the sandbox on a device, from a short micro-benchmark run in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SandboxSpeed {
    /// Multiply-accumulates per second by arithmetic type, one thread.
    pub macs_per_s: BTreeMap<DType, f64>,
    /// Bytes read per second from memory, one thread.
    pub bytes_per_s: f64,
    /// Fixed cost of one call, in microseconds.
    pub overhead_us: f64,
}

/// What a device is. Changes rarely.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceProfile {
    /// Version of the agent.
    pub agent_version: String,
    /// Parts of this profile are emulated for a demonstration or a test.
    pub emulated: bool,
    /// Board, for example `Raspberry Pi 4 Model B Rev 1.4`.
    pub board: String,
    /// System on chip, for example `bcm2711`; empty when unknown.
    pub soc: String,
    /// Instruction set.
    pub arch: Arch,
    /// CPU name as the system gives it.
    pub cpu_model: String,
    /// CPU features by their Linux names.
    pub cpu_features: BTreeSet<CpuFeature>,
    /// Number of cores.
    pub cores: u16,
    /// Installed RAM in bytes.
    pub ram_total_bytes: u64,
    /// Arithmetic types the operator of this device allows; all when empty.
    pub dtypes: BTreeSet<DType>,
    /// Its time zone as its system or its configuration names it, unchecked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Runtime key by target the device can run, best target first in `targets`.
    pub targets: Vec<Target>,
    /// Runtime keys (version, epoch, configuration) that this agent can load.
    pub runtime_keys: BTreeSet<String>,
    /// Sandbox speed, once measured.
    pub speed: Option<SandboxSpeed>,
    /// Energy sources found, the preferred one first.
    pub energy_sources: Vec<EnergySourceInfo>,
    /// How far the runners are locked down: measure -> applied or why not.
    pub lockdown: BTreeMap<String, String>,
}

/// An energy source on a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnergySourceInfo {
    /// For example `rapl:package-0`, `hwmon:ina219`, `model:raspberry-pi-4b`.
    pub name: String,
    /// What its figures cover.
    pub scope: EnergyScope,
}

/// Where the power comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "source")]
pub enum Power {
    /// No battery, or none that the system shows.
    Mains,
    /// A battery.
    Battery {
        /// Charge in percent.
        percent: u8,
        /// Charging or full: not draining.
        charging: bool,
        /// Energy left in microjoules, when the system tells.
        remaining_uj: Option<u64>,
    },
}

/// How a device is. Changes all the time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conditions {
    /// RAM available to new programs, in bytes.
    pub ram_available_bytes: u64,
    /// Free bytes on the disk that holds the artefacts.
    pub disk_free_bytes: u64,
    /// Power.
    pub power: Power,
    /// Hottest sensor, in thousandths of a degree Celsius.
    pub temperature_mc: Option<i32>,
    /// The firmware or kernel holds the clock back now.
    pub throttled: bool,
}

/// Power states that a ladder has rungs for, from the richest to the poorest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PowerState {
    /// Mains, or a battery that charges.
    Mains,
    /// Battery well filled.
    High,
    /// Battery low.
    Low,
    /// Battery almost empty.
    Critical,
}

impl PowerState {
    /// All states, richest first.
    pub const ALL: [Self; 4] = [Self::Mains, Self::High, Self::Low, Self::Critical];
}

impl std::fmt::Display for PowerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Mains => "mains",
            Self::High => "high",
            Self::Low => "low",
            Self::Critical => "critical",
        })
    }
}
