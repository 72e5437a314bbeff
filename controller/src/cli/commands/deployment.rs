//! `deployment`.

use super::{Session, connect};
use crate::cli::args::{Apply, DeploymentCommand};
use crate::cli::error::CliError;
use sandpiper_core::policy::{Deployment, Policy};

pub(super) async fn deployment(
    session: &mut Session<'_>,
    command: DeploymentCommand,
) -> Result<(), CliError> {
    match command {
        DeploymentCommand::Apply(args) => {
            let deployment = read(*args)?;
            connect(session.context)
                .await?
                .apply_deployment(&deployment)
                .await?;
            session.line(format!("deployment/{} applied", deployment.name))
        }
        DeploymentCommand::Delete { name } => {
            connect(session.context)
                .await?
                .delete_deployment(name.as_str())
                .await?;
            session.line(format!("deployment/{name} deleted"))
        }
    }
}

fn read(args: Apply) -> Result<Deployment, CliError> {
    if let Some(path) = args.file {
        let text = std::fs::read_to_string(&path).map_err(|source| CliError::File {
            what: "read",
            path: path.clone(),
            source,
        })?;
        return serde_norway::from_str(&text).map_err(|e| CliError::Content {
            path,
            why: e.to_string(),
        });
    }
    let missing = || CliError::Usage("give NAME and --model, or -f FILE.yaml".to_owned());
    let latency_slo_us = match args.latency_slo {
        None => None,
        Some(slo) => match u32::try_from(slo.as_micros()) {
            Ok(us @ 1..) => Some(us),
            _ => {
                return Err(CliError::Usage(
                    "--latency-slo must lie between 1ms and 1h".to_owned(),
                ));
            }
        },
    };
    if args
        .accuracy_floor
        .is_some_and(|floor| !(0.0..=1.0).contains(&floor))
    {
        return Err(CliError::Usage(
            "--accuracy-floor is a share in 0..=1, for example 0.9".to_owned(),
        ));
    }
    let policy = Policy {
        objective: args.objective,
        accuracy_floor: args.accuracy_floor,
        latency_slo_us,
        energy_budget_uj: args.energy_budget_uj,
        battery_life_hours: args.battery_life_hours,
        ..Policy::default()
    };
    Ok(Deployment {
        name: args.name.ok_or_else(missing)?,
        model: args.model.ok_or_else(missing)?,
        selector: args.selector,
        policy,
    })
}
