//! What each command does.

mod agent;
mod deployment;
mod device;
mod explain;
mod get;
mod model;
mod rollout;
mod top;

use super::args::{Command, Format};
use super::context::connect;
use super::error::CliError;
use super::output::Output;
use super::render::render;
use super::terminal::Terminal;
use std::io::Write;
use std::path::Path;

/// Where results go, and which controller is spoken to.
pub struct Session<'a> {
    context: Option<&'a Path>,
    terminal: Terminal,
    out: &'a mut (dyn Write + Send),
}

impl Session<'_> {
    fn show(&mut self, output: &Output, format: Format) -> Result<(), CliError> {
        render(self.out, output, format)?;
        Ok(self.out.flush()?)
    }

    fn raw(&mut self, text: &str) -> Result<(), CliError> {
        self.out.write_all(text.as_bytes())?;
        Ok(self.out.flush()?)
    }

    fn line(&mut self, text: impl Into<String>) -> Result<(), CliError> {
        self.show(&Output::Line(text.into()), Format::Table)
    }
}

/// Runs a command.
///
/// # Errors
/// [`CliError`].
pub async fn run(
    command: Command,
    context: Option<&Path>,
    terminal: Terminal,
    out: &mut (dyn Write + Send),
) -> Result<(), CliError> {
    let mut session = Session {
        context,
        terminal,
        out,
    };
    let session = &mut session;
    match command {
        Command::JoinToken(command) => device::join_token(session, command).await,
        Command::Get(args) => get::get(session, args).await,
        Command::Describe { resource } => get::describe(session, &resource).await,
        Command::Top(args) => top::top(session, args).await,
        Command::Explain {
            device,
            model,
            version,
            output,
        } => {
            let version = version.as_ref().map_or("", |v| v.as_str());
            explain::explain(session, &device, model.as_str(), version, output).await
        }
        Command::Model(command) => model::model(session, command).await,
        Command::Deployment(command) => deployment::deployment(session, command).await,
        Command::Rollout(command) => rollout::rollout(session, command).await,
        Command::Agent(command) => agent::agent(session, command).await,
        Command::Label { device, changes } => device::label(session, &device, &changes).await,
        Command::Revoke { device } => device::revoke(session, &device).await,
        Command::Release { device } => device::release(session, &device).await,
        Command::Completion { .. } => Err(CliError::Usage(
            "completion speaks of the whole program: `cli::run` answers it".to_owned(),
        )),
    }
}
