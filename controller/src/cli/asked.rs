//! What a rollout shall do, as flags.

use super::args::Format;
use super::parse;
use clap::Args;
use sandpiper_core::bandwidth::{GroupBandwidth, parse_rate};
use sandpiper_core::names::{ActorName, DeploymentName, VersionName};
use sandpiper_core::rollout::{AskingWaves, DisruptionBudget, WaveSize};
use sandpiper_core::window::Window;
use std::path::PathBuf;
use std::time::Duration;

/// What a rollout shall do.
#[derive(Debug, Clone, Args)]
pub struct RolloutArgs {
    /// The deployment.
    pub deployment: DeploymentName,
    /// The version to move it to.
    #[arg(long)]
    pub version: VersionName,
    /// A wave: a share such as `34%` (of all, adding up), a number of devices, `double:1` for waves
    /// that double until none is left, or labels such as `site=lab`.
    #[arg(long = "wave", value_parser = parse::wave, conflicts_with = "equal")]
    pub waves: Vec<WaveSize>,
    /// This many waves of equal size.
    #[arg(long = "waves", id = "equal", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub equal: Option<u8>,
    /// Time that a wave has to succeed.
    #[arg(long, default_value = "10m", value_parser = parse::duration)]
    pub deadline: Duration,
    /// Time that a device must serve before it counts.
    #[arg(long, default_value = "30s", value_parser = parse::duration)]
    pub bake: Duration,
    /// Devices that may fail.
    #[arg(long, default_value_t = 0)]
    pub max_failures: u32,
    /// Inferences that prove success.
    #[arg(long, default_value_t = 1)]
    pub min_inferences: u64,
    /// Most devices that were told to move and do not serve the version yet.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_in_flight: Option<u32>,
    /// The same within each group of devices with one value of a label: `site=2`.
    #[arg(long, value_parser = parse::budget)]
    pub budget: Option<DisruptionBudget>,
    /// Gate: the 95th percentile of latency may rise by so many percent.
    #[arg(long, value_name = "PERCENT")]
    pub max_latency_rise: Option<u32>,
    /// Gate: energy per inference may rise by so many percent.
    #[arg(long, value_name = "PERCENT")]
    pub max_energy_rise: Option<u32>,
    /// Gate: of a thousand requests so many more may fail.
    #[arg(long, value_name = "PERMILLE")]
    pub max_error_rise: Option<u32>,
    /// Gate: in a million inferences a runner may die so many times more.
    #[arg(long, value_name = "COUNT")]
    pub max_trap_rise: Option<u32>,
    /// Devices measured before and after that a gate needs.
    #[arg(long, default_value_t = 1)]
    pub gate_devices: u32,
    /// Waves that begin only when an operator approves them: `every`, `after-first`, or numbers
    /// such as `2,3`.
    #[arg(long, value_name = "WAVES")]
    pub approve: Option<AskingWaves>,
    /// An operator who may approve; any when none is named.
    #[arg(long = "approver", value_name = "NAME", requires = "approve")]
    pub approvers: Vec<ActorName>,
    /// Time from the assignment until a device has everything; that of its wave by default.
    #[arg(long, value_parser = parse::duration)]
    pub fetch_deadline: Option<Duration>,
    /// Time from there until it serves.
    #[arg(long, value_parser = parse::duration)]
    pub switch_deadline: Option<Duration>,
    /// Time from there until it has proved itself, `--bake` included.
    #[arg(long, value_parser = parse::duration)]
    pub prove_deadline: Option<Duration>,
    /// When devices may fetch, by their own time: `22:00-06:00` or `sat,sun 00:00-24:00`.
    #[arg(long = "download-window", value_name = "WINDOW")]
    pub download_windows: Vec<Window>,
    /// When they may switch to what they have fetched.
    #[arg(long = "switch-window", value_name = "WINDOW")]
    pub switch_windows: Vec<Window>,
    /// Longest that a wave waits for windows, beyond its deadline.
    #[arg(long, default_value = "8d", value_parser = parse::duration)]
    pub window_wait: Duration,
    /// Bytes per second that all devices of the rollout fetch together: `10MB`.
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub bandwidth: Option<u64>,
    /// The same for those with one value of a label: `site=1MB`.
    #[arg(long, value_name = "LABEL=RATE")]
    pub group_bandwidth: Option<GroupBandwidth>,
    /// A YAML or TOML file that says all of this but deployment and version.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["waves", "equal", "deadline", "bake", "max_failures", "min_inferences", "max_in_flight", "budget", "max_latency_rise", "max_energy_rise", "max_error_rise", "max_trap_rise", "gate_devices", "approve", "approvers", "fetch_deadline", "switch_deadline", "prove_deadline", "download_windows", "switch_windows", "window_wait", "bandwidth", "group_bandwidth"])]
    pub policy: Option<PathBuf>,
    /// How to show it.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}
