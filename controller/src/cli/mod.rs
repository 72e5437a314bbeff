//! The command line of operators and publishers.
//!
//! A command returns an [`output::Output`]; [`render`] writes it. Data goes to standard output,
//! everything else to standard error. Exit codes are those of [`error::ExitCode`].
//!
//! | module | what it holds |
//! |---|---|
//! | [`args`], [`asked`], [`agents`] | commands and their flags |
//! | [`parse`] | labels, durations, waves, resource names |
//! | [`context`] | which controller, with which certificate |
//! | [`commands`] | what each command does |
//! | [`output`], [`columns`], [`render`], [`terminal`] | what is shown, and how |

pub mod agents;
pub mod args;
pub mod asked;
pub mod columns;
pub mod commands;
pub mod context;
pub mod error;
pub mod output;
pub mod parse;
pub mod render;
pub mod terminal;

use args::Command;
use error::CliError;
use std::io::Write;
use std::path::Path;
use terminal::Terminal;

/// Runs a command and writes what it gives to `out`. `program` is the whole command line, of which
/// `completion` speaks; `terminal` is what `out` leads to.
///
/// # Errors
/// [`CliError`]; its exit code is that of the process.
pub async fn run(
    command: Command,
    context: Option<&Path>,
    mut program: clap::Command,
    terminal: Terminal,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    if let Command::Completion { shell } = command {
        // Generated into memory: the generator panics when a pipe closes.
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut program, "sandpiper", &mut script);
        return Ok(out.write_all(&script)?);
    }
    commands::run(command, context, terminal, out).await
}
