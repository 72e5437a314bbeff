//! Entry point: parse, configure, run, exit code.

use clap::{CommandFactory, Parser};
use sandpiper::cli::{self, error::ExitCode};
use sandpiper::init::{InitArgs, init};
use sandpiper::serve::{ServeArgs, Server, signals};
use std::path::PathBuf;

/// The controller of a Sandpiper fleet, and the command line of its operators.
#[derive(Debug, Parser)]
#[command(name = "sandpiper", version)]
struct Program {
    /// File that says which controller to speak to, and as whom.
    #[arg(long, global = true, env = "SANDPIPER_CONTEXT")]
    context: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a new fleet: authority, keys, configuration, first operator
    Init(InitArgs),
    /// Serve devices and operators
    Serve(ServeArgs),
    #[command(flatten)]
    Operate(cli::args::Command),
}

async fn run(program: Program) -> Result<(), (String, ExitCode)> {
    let failed = |error: anyhow::Error| (format!("{error:#}"), ExitCode::Failure);
    match program.command {
        Command::Init(args) => {
            let context = init(&args, sandpiper::clock::now()).map_err(|e| failed(e.into()))?;
            tracing::info!(context = %context.display(), "the fleet is made");
            Ok(())
        }
        Command::Serve(args) => serve(&args).await.map_err(failed),
        Command::Operate(command) => {
            let mut out = std::io::stdout();
            cli::run(
                command,
                program.context.as_deref(),
                Program::command(),
                cli::terminal::Terminal::of_stdout(),
                &mut out,
            )
            .await
            .map_err(|error| (error.chain(), error.exit_code()))
        }
    }
}

async fn serve(args: &ServeArgs) -> anyhow::Result<()> {
    let server = Server::start_with(&args.data, args.packages.as_deref()).await?;
    Ok(server.run(signals()?).await?)
}

#[tokio::main]
#[allow(clippy::print_stderr)]
async fn main() -> std::process::ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    match run(Program::parse()).await {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err((message, code)) => {
            eprintln!("error: {message}");
            std::process::ExitCode::from(code as u8)
        }
    }
}
