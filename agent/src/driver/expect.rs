//! What is told of a model while it does not serve.

use crate::serve::routes::Expected;
use sandpiper_core::reconcile::Reconciler;
use sandpiper_core::telemetry::{ModelPhase, ModelStatus};
use std::collections::BTreeMap;
use std::time::Duration;

/// A model that starts is there within a second or a few.
const SOON: Duration = Duration::from_secs(1);
/// What is fetched, or has failed and waits for an operator, takes longer.
const LATER: Duration = Duration::from_secs(30);

/// Every model that is assigned, with what to tell while it does not serve.
pub(crate) fn expected(machine: &Reconciler) -> BTreeMap<String, Expected> {
    let statuses = machine.statuses().into_iter();
    let of = |status: ModelStatus| (status.model.to_string(), one(machine, &status));
    statuses.map(of).collect()
}

fn one(machine: &Reconciler, status: &ModelStatus) -> Expected {
    let slot = machine.state().models.get(&status.model);
    let held = slot.map(|s| [&s.pending, &s.active]);
    let held = held.into_iter().flatten().flatten();
    let mut versions: Vec<_> = held.map(|v| v.version().clone()).collect();
    versions.push(status.wanted.clone());
    let restarts = slot.is_some_and(|s| s.active.is_some());
    let (why, retry_after) = match (&status.failure, status.phase) {
        (Some(failure), _) if !restarts => (format!("does not serve: {}", failure.message), LATER),
        _ if restarts => ("is being restarted".to_owned(), SOON),
        (_, ModelPhase::Fetching) => ("is being fetched".to_owned(), LATER),
        (
            _,
            ModelPhase::AwaitingDownload | ModelPhase::AwaitingSwitch | ModelPhase::AwaitingClock,
        ) => ("waits for its maintenance window".to_owned(), LATER),
        _ => ("is being started".to_owned(), SOON),
    };
    Expected {
        versions,
        why,
        retry_after,
    }
}
