//! Commands for releases of the agent, with their flags.

use super::args::Format;
use clap::{Args, Subcommand};
use sandpiper_core::policy::Selector;
use sandpiper_core::update::AgentVersion;
use std::path::PathBuf;

/// Releases of the agent.
#[derive(Debug, Clone, Subcommand)]
pub enum AgentCommand {
    /// Sign and publish a release of the agent. Nothing moves until devices are told to update.
    #[command(
        after_help = "Example:\n  sandpiper agent import arm64/sandpiper-agent armhf/sandpiper-agent --version 0.2.0\n\nFor which boards a program was built is read from the file."
    )]
    Import(AgentImport),
    /// List releases.
    List {
        /// How to show it.
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Tell devices which release to run. One that does not work there falls back by itself.
    #[command(
        after_help = "Examples:\n  sandpiper agent update --version 0.2.0 --device pi-07\n  sandpiper agent update --version 0.2.0 --selector site=lab\n  sandpiper agent update --installed --device pi-07"
    )]
    Update(AgentUpdate),
}

/// `agent import`.
#[derive(Debug, Clone, Args)]
pub struct AgentImport {
    /// The program, once for each architecture.
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// The version.
    #[arg(long)]
    pub version: AgentVersion,
    /// Devices that have run this release take none that is older than this, whoever asks.
    #[arg(long, value_name = "VERSION")]
    pub oldest: Option<AgentVersion>,
    /// How to show it.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// `agent update`.
#[derive(Debug, Clone, Args)]
pub struct AgentUpdate {
    /// The release.
    #[arg(long, required_unless_present = "installed")]
    pub version: Option<AgentVersion>,
    /// Back to the program that is installed on the device.
    #[arg(long, conflicts_with = "version")]
    pub installed: bool,
    /// One device: `device/NAME` or its name.
    #[arg(long, required_unless_present = "selector")]
    pub device: Option<String>,
    /// All devices with these labels, for example `site=lab`.
    #[arg(long, conflicts_with = "device")]
    pub selector: Option<Selector>,
    /// How to show it.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}
