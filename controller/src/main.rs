//! Entry point: parse, configure, run, drain, exit code.

use clap::Parser;
use sandpiper::init::{InitArgs, init};
use sandpiper::serve::{ServeArgs, Server, signals};

/// The controller of a Sandpiper fleet.
#[derive(Debug, Parser)]
#[command(name = "sandpiper", version)]
enum Command {
    /// Make a new fleet: authority, keys, configuration, first operator
    Init(InitArgs),
    /// Serve devices and operators
    Serve(ServeArgs),
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Init(args) => {
            let context = init(&args, sandpiper::clock::now())?;
            tracing::info!(context = %context.display(), "the fleet is made");
        }
        Command::Serve(args) => Server::start(&args.data).await?.run(signals()?).await?,
    }
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .init();
    run(Command::parse()).await
}
