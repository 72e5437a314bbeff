//! `join-token`, `label`, `revoke`, `release`.

use super::{Session, connect};
use crate::api::client::MadeToken;
use crate::cli::args::{Format, JoinToken};
use crate::cli::error::CliError;
use crate::cli::output::{Grid, Output};
use crate::cli::parse;
use sandpiper_proto::convert::{JoinTokenRequest, ListQuery, ResourceKind};
use std::io::Write as _;

pub(super) async fn join_token(
    session: &mut Session<'_>,
    command: JoinToken,
) -> Result<(), CliError> {
    match command {
        JoinToken::Create {
            ttl,
            labels,
            description,
            output,
        } => {
            if ttl.as_secs() == 0 {
                return Err(CliError::Usage("--ttl must be at least 1s".to_owned()));
            }
            let labels = parse::labels(&labels)?;
            let request = JoinTokenRequest {
                ttl,
                labels,
                description,
            };
            let made = connect(session.context)
                .await?
                .create_join_token(request)
                .await?;
            made_token(session, made, output)
        }
        JoinToken::List { output } => {
            let query = ListQuery {
                kind: ResourceKind::JoinTokens,
                name: None,
                selector: None,
            };
            let items = connect(session.context).await?.list(query).await?;
            let kind = ResourceKind::JoinTokens;
            session.show(
                &Output::Resources {
                    kind,
                    items,
                    single: false,
                },
                output,
            )
        }
        JoinToken::Revoke { id } => {
            let id = parse::name_of("join-token", &id)?;
            connect(session.context)
                .await?
                .revoke_join_token(id)
                .await?;
            session.line(format!("join-token/{id} revoked"))
        }
    }
}

/// The token alone is data, for `$(...)`; what to do with it is said beside it.
fn made_token(
    session: &mut Session<'_>,
    made: MadeToken,
    output: Option<Format>,
) -> Result<(), CliError> {
    match output {
        Some(Format::Name) => session.line(format!("join-token/{}", made.id)),
        Some(format @ (Format::Json | Format::Yaml)) => {
            let report = Output::Report {
                name: format!("join-token/{}", made.id),
                document: serde_json::to_value(&made).map_err(std::io::Error::from)?,
                table: Grid::default(),
                notes: Vec::new(),
            };
            session.show(&report, format)
        }
        None | Some(Format::Table | Format::Wide) => {
            session.line(made.token)?;
            if let Some(command) = made.install {
                let mut hint = std::io::stderr();
                // The token has been given; nobody is there to read the rest.
                let _ = writeln!(
                    hint,
                    "\nTo install and join a device, run there:\n\n  {command}\n"
                );
            }
            Ok(())
        }
    }
}

pub(super) async fn label(
    session: &mut Session<'_>,
    device: &str,
    changes: &[String],
) -> Result<(), CliError> {
    let device = parse::name_of("device", device)?;
    let (set, remove) = parse::label_changes(changes)?;
    connect(session.context)
        .await?
        .set_labels(device, set, remove)
        .await?;
    session.line(format!("device/{device} labelled"))
}

pub(super) async fn revoke(session: &mut Session<'_>, device: &str) -> Result<(), CliError> {
    let device = parse::name_of("device", device)?;
    connect(session.context)
        .await?
        .revoke_device(device)
        .await?;
    session.line(format!("device/{device} revoked"))
}

pub(super) async fn release(session: &mut Session<'_>, device: &str) -> Result<(), CliError> {
    let device = parse::name_of("device", device)?;
    connect(session.context)
        .await?
        .release_device(device)
        .await?;
    session.line(format!("device/{device} released"))
}
