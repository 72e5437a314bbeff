//! `rollout`.

mod diff;
mod file;
mod plan;
mod report;
mod spec;

pub(super) use report::waits;

use super::{Session, connect};
use crate::api::client::{Item, OperatorClient, Watched};
use crate::cli::args::{Format, RolloutCommand};
use crate::cli::columns::text;
use crate::cli::error::CliError;
use sandpiper_core::names::RolloutName;
use sandpiper_proto::convert::{ListQuery, ResourceKind, SteerVerb};
use serde_json::Value;
use std::time::Duration;

pub(super) async fn rollout(
    session: &mut Session<'_>,
    command: RolloutCommand,
) -> Result<(), CliError> {
    match command {
        RolloutCommand::Plan(args) => {
            let spec = spec::read(&args)?;
            let document = connect(session.context).await?.plan_rollout(&spec).await?;
            session.show(&plan::plan(document)?, args.output)
        }
        RolloutCommand::Start(args) => {
            let spec = spec::read(&args)?;
            let name = connect(session.context).await?.start_rollout(&spec).await?;
            session.line(name)
        }
        RolloutCommand::Status {
            name,
            watch,
            timeout,
            output,
        } => status(session, &name, watch, timeout, output).await,
        RolloutCommand::Pause { name } => steer(session, &name, SteerVerb::Pause).await,
        RolloutCommand::Resume { name } => steer(session, &name, SteerVerb::Resume).await,
        RolloutCommand::Approve { name, because } => {
            steer(session, &name, SteerVerb::Approve { why: because }).await
        }
        RolloutCommand::Promote { name, full } => {
            steer(session, &name, SteerVerb::Promote { full }).await
        }
        RolloutCommand::Abort { name } => steer(session, &name, SteerVerb::Abort).await,
        RolloutCommand::Retry { name } => steer(session, &name, SteerVerb::Retry).await,
        RolloutCommand::Undo { name, to } => steer(session, &name, SteerVerb::Undo { to }).await,
        RolloutCommand::Diff { name, with, output } => {
            let mut client = connect(session.context).await?;
            let new = one(&mut client, &name).await?;
            let old = match with {
                Some(with) => one(&mut client, &with).await?,
                None => before(&mut client, &new).await?,
            };
            session.show(&diff::diff(&old, &new), output)
        }
        RolloutCommand::History { name, output } => {
            let item = one(&mut connect(session.context).await?, &name).await?;
            session.show(&report::history(&item), output)
        }
    }
}

async fn steer(
    session: &mut Session<'_>,
    name: &RolloutName,
    verb: SteerVerb,
) -> Result<(), CliError> {
    let mut client = connect(session.context).await?;
    let name = name_of(&one(&mut client, name).await?)?;
    let said = done(&name, &verb);
    client.steer(&name, verb).await?;
    session.line(said)
}

fn done(name: &RolloutName, verb: &SteerVerb) -> String {
    let what = match verb {
        SteerVerb::Pause => "paused",
        SteerVerb::Resume => "resumed",
        SteerVerb::Approve { .. } => "goes on, its wave is approved",
        SteerVerb::Promote { full: false } => "goes on, its gates are waived",
        SteerVerb::Promote { full: true } => "goes on, all waves at once, gates are waived",
        SteerVerb::Abort => "aborting",
        SteerVerb::Retry => "is started once more",
        SteerVerb::Undo { to: None } => "being undone",
        SteerVerb::Undo { to: Some(version) } => {
            return format!("rollout/{name} being undone, to {version}");
        }
    };
    format!("rollout/{name} {what}")
}

fn query(name: &RolloutName) -> ListQuery {
    ListQuery {
        kind: ResourceKind::Rollouts,
        name: Some(name.to_string()),
        selector: None,
    }
}

/// The rollout of this name, or the newest rollout of the deployment of this name.
async fn one(client: &mut OperatorClient, name: &RolloutName) -> Result<Item, CliError> {
    let all = ListQuery {
        kind: ResourceKind::Rollouts,
        name: None,
        selector: None,
    };
    let mut items = client.list(all).await?;
    if let Some(index) = items.iter().position(|i| i.name == name.as_str()) {
        return Ok(items.swap_remove(index));
    }
    items.retain(|i| text(&i.document, "/deployment").as_deref() == Some(name.as_str()));
    let created = |item: &Item| item.document.pointer("/created_at").and_then(Value::as_u64);
    let newest = items.into_iter().max_by_key(created);
    newest.ok_or_else(|| CliError::NotFound(format!("rollout/{name}")))
}

/// The rollout of the same deployment that was made before this one.
async fn before(client: &mut OperatorClient, new: &Item) -> Result<Item, CliError> {
    let all = ListQuery {
        kind: ResourceKind::Rollouts,
        name: None,
        selector: None,
    };
    let deployment = |item: &Item| text(&item.document, "/deployment");
    let created = |item: &Item| item.document.pointer("/created_at").and_then(Value::as_u64);
    let mut items = client.list(all).await?;
    items.retain(|i| deployment(i) == deployment(new) && created(i) < created(new));
    let last = items.into_iter().max_by_key(created);
    last.ok_or_else(|| CliError::NotFound(format!("a rollout before rollout/{}", new.name)))
}

fn name_of(item: &Item) -> Result<RolloutName, CliError> {
    RolloutName::new(item.name.clone()).map_err(|e| CliError::Answer(e.to_string()))
}

fn state_of(item: &Item) -> Result<String, CliError> {
    let state = item
        .document
        .pointer("/state/state")
        .and_then(Value::as_str);
    let state = state.ok_or_else(|| CliError::Answer("a rollout without state".to_owned()))?;
    Ok(state.replace('_', "-"))
}

/// `None` while it goes on.
fn verdict(item: &Item) -> Result<Option<Result<(), CliError>>, CliError> {
    let state = state_of(item)?;
    Ok(match state.as_str() {
        "promoted" => Some(Ok(())),
        "rolled-back" | "superseded" => {
            let why = item
                .document
                .pointer("/state/why")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let (name, why) = (item.name.clone(), why.to_owned());
            Some(Err(CliError::RolledBack { name, state, why }))
        }
        _ => None,
    })
}

async fn status(
    session: &mut Session<'_>,
    name: &RolloutName,
    watch: bool,
    timeout: Option<Duration>,
    format: Format,
) -> Result<(), CliError> {
    let mut client = connect(session.context).await?;
    let first = one(&mut client, name).await?;
    if !watch {
        let verdict = verdict(&first)?;
        session.show(&report::status(first), format)?;
        return verdict.unwrap_or(Ok(()));
    }
    let name = &name_of(&first)?;
    let mut last = first.clone();
    let following = follow(session, &mut client, name, format, &mut last);
    match timeout {
        None => following.await,
        Some(limit) => match tokio::time::timeout(limit, following).await {
            Ok(done) => done,
            Err(_) => Err(CliError::Timeout {
                name: name.to_string(),
                state: state_of(&last)?,
                seconds: limit.as_secs(),
            }),
        },
    }
}

async fn follow(
    session: &mut Session<'_>,
    client: &mut OperatorClient,
    name: &RolloutName,
    format: Format,
    last: &mut Item,
) -> Result<(), CliError> {
    let mut watch = client.watch(query(name)).await?;
    let mut printed = None;
    while let Some(change) = watch.next().await? {
        match change {
            Watched::Now(item) => {
                last.clone_from(&item);
                if printed.as_ref() == Some(&item) {
                    continue;
                }
                let verdict = verdict(&item)?;
                session.show(&report::status(item.clone()), format)?;
                printed = Some(item);
                if let Some(verdict) = verdict {
                    return verdict;
                }
            }
            Watched::Synced => {}
            Watched::Gone(_) => return Err(CliError::NotFound(format!("rollout/{name}"))),
        }
    }
    Err(CliError::Answer(
        "the controller ended the watch".to_owned(),
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use sandpiper_core::names::VersionName;

    #[test]
    fn every_verb_says_what_it_did() {
        let name = RolloutName::new("activity-2").unwrap();
        let all = [
            SteerVerb::Pause,
            SteerVerb::Resume,
            SteerVerb::Approve { why: None },
            SteerVerb::Promote { full: false },
            SteerVerb::Promote { full: true },
            SteerVerb::Abort,
            SteerVerb::Retry,
            SteerVerb::Undo { to: None },
            SteerVerb::Undo {
                to: Some(VersionName::new("v1").unwrap()),
            },
        ];
        let said: Vec<String> = all.iter().map(|verb| done(&name, verb)).collect();
        insta::assert_snapshot!(said.join("\n"), @r"
        rollout/activity-2 paused
        rollout/activity-2 resumed
        rollout/activity-2 goes on, its wave is approved
        rollout/activity-2 goes on, its gates are waived
        rollout/activity-2 goes on, all waves at once, gates are waived
        rollout/activity-2 aborting
        rollout/activity-2 is started once more
        rollout/activity-2 being undone
        rollout/activity-2 being undone, to v1
        ");
    }
}
