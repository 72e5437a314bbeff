//! `cargo xtask`: the commands a contributor needs.

mod asm;
mod bench;
mod checks;
mod conformance;
mod cuts;
mod demo;
mod dist;
mod fuzz;
mod model;
mod peer;
mod pi;
mod python;
mod shell;
mod sim;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Commands for contributors")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows the whole job with a controller and six agents on this machine.
    Demo {
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
        /// Record a session of an operator on a terminal into this file, and as text beside it.
        #[arg(long, value_name = "FILE", conflicts_with = "json")]
        record: Option<PathBuf>,
    },
    /// Everything that must pass before a change lands.
    Test {
        /// Run only the checks whose name contains this text.
        #[arg(long)]
        only: Option<String>,
    },
    /// ONNX's own tests of single operators, compiled and run in the sandbox.
    Conformance(conformance::Args),
    /// Whole fleets under a virtual clock, with faults.
    Sim(sim::Args),
    /// Visit every state of a small fleet, and hold the core against a small model of a rollout.
    Model(model::Args),
    /// Power cuts at every point of what a device lives through, with everything that may be lost.
    Cuts,
    /// Random networks against ONNX Runtime, and damaged files.
    Fuzz(fuzz::Args),
    /// Static programs, packages and a container image, in `target/dist`.
    Dist(dist::Args),
    /// Virtual Raspberry Pis: the agent's packages in emulation, held against this machine.
    Pi(pi::Args),
    /// The hot loops of a model's native code.
    Asm(asm::Args),
    /// Figures with both sides and where they come from.
    #[command(subcommand)]
    Bench(bench::Bench),
}

fn main() -> ExitCode {
    match Args::parse().command {
        Command::Demo { json, record } => demo::run(json, record.as_deref()),
        Command::Test { only } => checks::run(only.as_deref()),
        Command::Conformance(args) => conformance::run(&args),
        Command::Sim(args) => sim::run(&args),
        Command::Model(args) => model::run(&args),
        Command::Cuts => cuts::run(),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Dist(args) => dist::run(&args),
        Command::Pi(args) => pi::run(&args),
        Command::Asm(args) => asm::run(&args),
        Command::Bench(what) => bench::run(&what),
    }
}
