//! The fleet: what the controller knows against what it knew and what really happened.

use super::{Violation, hold};
use crate::fleet::{DeviceRecord, Fleet};
use crate::names::{DeploymentName, DeviceName, RolloutName};
use std::collections::BTreeMap;

/// A newer rollout supersedes: of a deployment at most one is under way.
///
/// # Errors
/// The violation.
pub fn one_open_rollout(fleet: &Fleet) -> Result<(), Violation> {
    let mut open: BTreeMap<&DeploymentName, &RolloutName> = BTreeMap::new();
    for (name, rollout) in fleet.rollouts() {
        if rollout.state.is_final() {
            continue;
        }
        let other = open.insert(&rollout.plan.spec.deployment, name);
        hold("one-rollout-of-a-deployment", other.is_none(), || {
            format!("{name} and {other:?}")
        })?;
    }
    Ok(())
}

/// A controller that was started anew knows everything that it had committed. What it observed
/// besides the state of models (conditions, when a device last spoke) is not committed.
///
/// # Errors
/// The first violation.
pub fn nothing_forgotten(before: &Fleet, after: &Fleet) -> Result<(), Violation> {
    const NAME: &str = "a-restart-forgets-nothing";
    for (name, rollout) in before.rollouts() {
        let same = after.rollouts().get(name) == Some(rollout);
        hold(NAME, same, || format!("rollout {name}"))?;
    }
    let known = |a: usize, b: usize, what: &str| {
        hold(NAME, a == b, || format!("{b} {what} instead of {a}"))
    };
    known(before.rollouts().len(), after.rollouts().len(), "rollouts")?;
    known(before.events().len(), after.events().len(), "events")?;
    known(before.versions().len(), after.versions().len(), "versions")?;
    let same = before.deployments() == after.deployments();
    hold(NAME, same, || "deployments".to_owned())?;
    known(before.devices().len(), after.devices().len(), "devices")?;
    for (name, record) in before.devices() {
        let same = after
            .devices()
            .get(name)
            .is_some_and(|r| same_record(record, r));
        hold(NAME, same, || format!("device {name}"))?;
        let same = before.learned().get(name) == after.learned().get(name);
        hold(NAME, same, || format!("what was learned of {name}"))?;
        let same = before.rungs().get(name) == after.rungs().get(name);
        hold(NAME, same, || format!("what {name} measured on each rung"))?;
    }
    Ok(())
}

fn same_record(a: &DeviceRecord, b: &DeviceRecord) -> bool {
    a.assignment() == b.assignment()
        && a.previous == b.previous
        && a.since == b.since
        && a.served == b.served
        && a.failed == b.failed
        && a.acknowledged == b.acknowledged
        && a.labels == b.labels
        && a.revoked_by == b.revoked_by
        && a.quarantined == b.quarantined
}

/// A device that has succeeded really served as many inferences under the version since it was
/// assigned.
///
/// # Errors
/// The violation.
pub fn success_was_served(
    rollout: &RolloutName,
    device: &DeviceName,
    served: u64,
    least: u64,
) -> Result<(), Violation> {
    hold("success-was-served", served >= least, || {
        format!("{rollout}: {device} served {served} of {least}")
    })
}

/// No inference is counted twice.
///
/// # Errors
/// The violation.
pub fn counted_once(device: &DeviceName, counted: u64, really: u64) -> Result<(), Violation> {
    hold("counted-once", counted <= really, || {
        format!("{device}: {counted} counted, {really} closed in windows")
    })
}
