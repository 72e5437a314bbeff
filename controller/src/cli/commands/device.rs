//! `join-token`, `label`, `revoke`, `release`.

use super::{Session, connect};
use crate::cli::args::{Format, JoinToken};
use crate::cli::error::CliError;
use crate::cli::output::Output;
use crate::cli::parse;
use sandpiper_proto::convert::{JoinTokenRequest, ListQuery, ResourceKind};

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
            let (id, token) = connect(session.context)
                .await?
                .create_join_token(request)
                .await?;
            match output {
                Some(Format::Name) => session.line(format!("join-token/{id}")),
                _ => session.line(token),
            }
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
