//! `sandpiper-sim`: many seeds, or the hunt for deliberate mistakes.

use clap::Parser;
use sandpiper_sim::batch::{Batch, run_all};
use sandpiper_sim::scenario::{LEAST_DEVICES, LEAST_FAULTS};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Debug, Parser)]
#[command(about = "Simulates whole fleets with faults and checks the invariants after every event")]
struct Args {
    /// Seeds to run.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Devices of each fleet.
    #[arg(long, default_value_t = LEAST_DEVICES, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    devices: u32,
    /// Begin with a seed that nobody has run: one made of the time.
    #[arg(long, conflicts_with = "seed")]
    fresh: bool,
    /// Threads; as many as there are cores when 0.
    #[arg(long, default_value_t = 0)]
    jobs: usize,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Make every deliberate mistake of the core in turn and say which invariant catches it.
    #[cfg(feature = "mutants")]
    #[arg(long)]
    mutants: bool,
    /// Only mistakes whose name contains this text.
    #[cfg(feature = "mutants")]
    #[arg(long, default_value = "")]
    only: String,
}

#[allow(clippy::print_stdout, clippy::print_stderr)]
fn main() -> ExitCode {
    let args = Args::parse();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let batch = Batch {
        first: match args.fresh {
            true => fresh(),
            false => args.seed,
        },
        count: args.seeds,
        devices: args.devices as usize,
        jobs: if args.jobs == 0 { cores } else { args.jobs },
    };
    #[cfg(feature = "mutants")]
    if args.mutants {
        let hunt = sandpiper_sim::hunt::hunt(&batch, &args.only);
        match args.json {
            true => println!("{}", serde_json::json!(hunt)),
            false => println!("{}", sandpiper_sim::hunt::text(&hunt)),
        }
        return ended(hunt.iter().all(|row| row.caught_by.is_some()) && !hunt.is_empty());
    }
    let summary = run_all(&batch);
    match args.json {
        true => println!("{}", serde_json::json!(summary)),
        false => println!("{}", summary.text()),
    }
    // A run that had too little to go through proves too little.
    ended(summary.violations == 0 && summary.least_faults >= LEAST_FAULTS)
}

fn ended(well: bool) -> ExitCode {
    if well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn fresh() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(1, |d| d.as_secs().wrapping_mul(1_000_003))
}
