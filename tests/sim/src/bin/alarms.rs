//! `sandpiper-alarms`: how often gates fail rollouts without a change beyond their limits.

use clap::Parser;
use sandpiper_core::rollout::FALSE_ALARMS;
use sandpiper_sim::alarms::{Setting, measure, text};
use std::process::ExitCode;

#[derive(Debug, Parser)]
struct Args {
    /// Rollouts of each kind.
    #[arg(long, default_value_t = 1_000)]
    rollouts: u64,
    /// Devices of each rollout.
    #[arg(long, default_value_t = 6)]
    devices: usize,
    /// Windows that each device reports in a wave.
    #[arg(long, default_value_t = 60)]
    windows: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print one JSON array.
    #[arg(long)]
    json: bool,
}

#[allow(clippy::print_stdout, clippy::print_stderr)]
fn main() -> ExitCode {
    let args = Args::parse();
    let setting = Setting {
        rollouts: args.rollouts,
        devices: args.devices,
        windows: args.windows,
        seed: args.seed,
    };
    match measure(&setting) {
        Ok(rows) if args.json => println!("{}", serde_json::json!(rows)),
        Ok(rows) => {
            println!("{}", text(&rows));
            println!(
                "stated: at most {:.0} % for each gate",
                100.0 * FALSE_ALARMS
            );
        }
        Err(error) => {
            eprintln!("nothing was measured: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
