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
    let program = Program::parse();
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr);
    match &program.command {
        Command::Serve(_) => log.init(),
        // Who waits at a terminal reads what is done, not when and by which module.
        Command::Init(_) | Command::Operate(_) => {
            log.without_time()
                .with_target(false)
                .with_level(false)
                .init();
        }
    }
    match run(program).await {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err((message, code)) => {
            eprintln!("error: {message}");
            std::process::ExitCode::from(code as u8)
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Commands of `sandpiper` in the blocks of a page, without prompt, comment and `&`.
    fn commands(page: &str) -> Vec<String> {
        let joined = page.replace("\\\n", " ");
        let lines = joined.lines().map(str::trim_start);
        let lines = lines.map(|line| line.strip_prefix("$ ").unwrap_or(line));
        let ours = lines.filter(|line| line.starts_with("sandpiper "));
        let plain = |line: &str| {
            let line = line.split(" > ").next().unwrap_or(line);
            line.trim_end_matches(['&', ' ']).to_owned()
        };
        ours.map(plain).collect()
    }

    #[test]
    fn the_program_understands_every_command_of_its_pages() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let docs = std::fs::read_dir(root.join("docs")).unwrap();
        let docs = docs.map(|entry| entry.unwrap().path());
        let pages = docs.chain([root.join("README.md")]);
        let pages: Vec<_> = pages
            .filter(|page| page.extension().is_some_and(|e| e == "md"))
            .collect();
        let mut understood = 0;
        for page in pages {
            for command in commands(&std::fs::read_to_string(&page).unwrap()) {
                let words = shlex::split(&command).unwrap();
                if let Err(error) = Program::try_parse_from(words) {
                    panic!("{}: `{command}`: {error}", page.display());
                }
                understood += 1;
            }
        }
        assert!(understood >= 20, "{understood} commands were found");
    }
}
