//! The command line.

use clap::{Parser, Subcommand};
use sandpiper_core::names::DeviceName;
use std::path::PathBuf;

/// The agent of Sandpiper: runs models on this device.
#[derive(Debug, Parser)]
#[command(name = "sandpiper-agent", version)]
pub struct Cli {
    /// Configuration file (TOML).
    #[arg(long, global = true, default_value = "/etc/sandpiper/agent.toml")]
    pub config: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Join a fleet with a one-time token.
    Join {
        /// The token that `sandpiper join-token create` printed; `-` reads it from standard
        /// input, where no other user of this device sees it.
        token: String,
        /// Name of this device; its host name otherwise.
        #[arg(long)]
        name: Option<DeviceName>,
    },
    /// Serve models until stopped.
    Run,
    /// Show what the running agent does.
    Status {
        /// `text` or `json`.
        #[arg(short, long, default_value = "text", value_parser = ["text", "json"])]
        output: String,
    },
    /// Holds one model; started by the agent itself.
    #[command(hide = true)]
    Runner,
}
