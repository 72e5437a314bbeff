//! Entry point: parse, configure, run, exit code.

use clap::Parser;
use sandpiper_agent::cli::{Cli, Command};
use sandpiper_agent::config::Config;
use sandpiper_agent::{app, clock, memory, runner, status};
use std::io::Write;
use std::process::ExitCode;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

fn main() -> ExitCode {
    memory::one_pool();
    let cli = Cli::parse();
    if matches!(cli.command, Command::Runner) {
        return runner::child::main();
    }
    let wanted = std::env::var("RUST_LOG").ok();
    let filter = wanted.and_then(|text| text.parse::<Targets>().ok());
    let filter = filter.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    tracing_subscriber::registry()
        .with(log.with_filter(filter))
        .init();
    let mut err = std::io::stderr();
    let config = match Config::load(&cli.config) {
        Ok(config) => config,
        Err(error) => {
            // Nothing is left to tell when standard error is closed.
            let _ = writeln!(err, "error: {:#}", anyhow::Error::from(error));
            return ExitCode::from(2);
        }
    };
    if let Some(emulated) = &config.emulate {
        clock::set_wrong_by(emulated.clock_offset_s);
    }
    match work(cli.command, config) {
        Ok(text) => {
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(err, "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn work(command: Command, config: Config) -> anyhow::Result<String> {
    app::runtime()?.block_on(async move {
        match command {
            Command::Join { token, name } => {
                let token = app::given(token)?;
                Ok(app::join(&config, &token, name).await? + "\n")
            }
            Command::Run => app::run(config).await.map(|()| String::new()),
            Command::Status { output } => status::status(&config, output == "json").await,
            Command::Runner => Ok(String::new()),
        }
    })
}
