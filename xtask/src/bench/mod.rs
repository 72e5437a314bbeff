//! `cargo xtask bench`: figures with both sides and where they come from. Nothing is asserted: a
//! time depends on the machine.

mod agent;
mod alarms;
mod goals;
mod http;
mod inference;
mod memory;
mod plan;
mod provenance;
mod stats;

use anyhow::Result;
use clap::Subcommand;
use std::process::ExitCode;

/// What is measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Our code in the sandbox against ONNX Runtime, tract and rten: batch 1, one thread.
    Inference {
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
        /// Only models whose name contains this text.
        #[arg(long, default_value = "")]
        only: String,
    },
    /// How long planning takes as a fleet grows.
    Plan {
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
        /// Devices of the fleet, once for each size.
        #[arg(long = "devices", default_values_t = [10_000, 100_000, 1_000_000])]
        sizes: Vec<usize>,
    },
    /// How often gates fail rollouts without a change beyond their limits, from fixed seeds.
    Alarms {
        /// Print one JSON array.
        #[arg(long)]
        json: bool,
        /// Rollouts of each kind.
        #[arg(long, default_value_t = 1_000)]
        rollouts: u64,
    },
    /// Memory, answers and wear of one agent against the goals.
    Agent(agent::Args),
}

/// Measures and prints.
#[allow(clippy::print_stdout, clippy::print_stderr)]
pub(crate) fn run(what: &Bench) -> ExitCode {
    match printed(what) {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("the benchmark did not come to its end: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn printed(what: &Bench) -> Result<String> {
    match what {
        Bench::Inference { json, only } => {
            let report = inference::measure(only)?;
            if *json {
                Ok(serde_json::to_string_pretty(&report)?)
            } else {
                Ok(report.text()?)
            }
        }
        Bench::Plan { json, sizes } => {
            let report = plan::measure(sizes)?;
            if *json {
                Ok(serde_json::to_string_pretty(&report)?)
            } else {
                report.text()
            }
        }
        Bench::Alarms { json, rollouts } => alarms::measure(*rollouts, *json),
        Bench::Agent(args) => {
            let report = agent::measure(args)?;
            if args.json {
                Ok(serde_json::to_string_pretty(&report)?)
            } else {
                report.text()
            }
        }
    }
}

/// Tells how far it is, beside the result.
#[allow(clippy::print_stderr)]
fn say(what: &str) {
    eprintln!("bench: {what}");
}
