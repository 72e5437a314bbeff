//! `sandpiper-plan`: how long planning takes, as one JSON object.

use clap::Parser;
use std::process::ExitCode;

#[derive(Debug, Parser)]
struct Args {
    /// Devices of the fleet.
    #[arg(long)]
    devices: usize,
    /// Variants of the version.
    #[arg(long, default_value_t = 16)]
    variants: usize,
}

#[allow(clippy::print_stdout, clippy::print_stderr)]
fn main() -> ExitCode {
    let args = Args::parse();
    match sandpiper_sim::planning::measure(args.devices, args.variants) {
        Ok(figures) => {
            println!("{}", serde_json::json!(figures));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("nothing was measured: {error}");
            ExitCode::FAILURE
        }
    }
}
