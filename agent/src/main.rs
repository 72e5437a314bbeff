//! Entry point: parse, configure, run, exit code.

use anyhow::Context as _;
use clap::Parser;
use sandpiper_agent::cli::{Cli, Command};
use sandpiper_agent::config::Config;
use sandpiper_agent::driver::Ended;
use sandpiper_agent::{app, clock, memory, runner, status, update};
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

/// Jobs on the disk that have not ended by then are left alone.
const SHUTDOWN: Duration = Duration::from_secs(2);

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

/// Runs until it is stopped. Another program of the agent takes the process over here, before
/// anything runs in it or after everything has ended.
fn run(config: Config) -> anyhow::Result<()> {
    let running = update::choose(&config.state_dir).context("cannot find this program")?;
    let runtime = app::runtime()?;
    let (ended, socket) = runtime.block_on(app::run(config, &running))?;
    runtime.shutdown_timeout(SHUTDOWN);
    match ended {
        Ended::Stopped => Ok(()),
        Ended::Restart => Err(update::start_again(&running, Some(&socket)))
            .context("the installed program of the agent cannot be started"),
    }
}

fn work(command: Command, config: Config) -> anyhow::Result<String> {
    if matches!(command, Command::Run) {
        return run(config).map(|()| String::new());
    }
    app::runtime()?.block_on(async move {
        match command {
            Command::Join { token, name } => {
                let token = app::given(token)?;
                Ok(app::join(&config, &token, name).await? + "\n")
            }
            Command::Status { output } => status::status(&config, output == "json").await,
            Command::Run | Command::Runner => Ok(String::new()),
        }
    })
}
