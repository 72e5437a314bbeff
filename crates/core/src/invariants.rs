//! What must hold after every step, in tests and in production.

use crate::assignment::{Assignment, Generation};
use crate::names::DeviceName;
use crate::reconcile::DeviceState;
use crate::rollout::{DeviceRollout, Rollout, RolloutState};
use std::collections::BTreeSet;

/// A broken invariant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invariant `{name}` is broken: {detail}")]
pub struct Violation {
    /// Its name.
    pub name: &'static str,
    /// What was found.
    pub detail: String,
}

fn hold(name: &'static str, holds: bool, detail: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds {
        Ok(())
    } else {
        Err(Violation {
            name,
            detail: detail(),
        })
    }
}

/// A device's generation never falls.
///
/// # Errors
/// The violation.
pub fn generation_rises(old: Generation, new: Generation) -> Result<(), Violation> {
    hold("generation-rises", new > old, || {
        format!("{} after {}", new.0, old.0)
    })
}

/// An assignment is for one device, and every ladder has a rung for the mains.
///
/// # Errors
/// The first violation.
pub fn assignment(assignment: &Assignment, device: &DeviceName) -> Result<(), Violation> {
    hold(
        "assignment-names-its-device",
        assignment.device == *device,
        || format!("{} got the assignment of {}", device, assignment.device),
    )?;
    for (name, model) in &assignment.models {
        hold("assignment-key-is-model", *name == model.model, || {
            name.to_string()
        })?;
        let mains = model
            .ladder
            .rungs
            .contains_key(&crate::profile::PowerState::Mains);
        hold("ladder-has-mains-rung", mains, || name.to_string())?;
    }
    Ok(())
}

/// What holds of a rollout at any time.
///
/// # Errors
/// The first violation.
pub fn rollout(rollout: &Rollout) -> Result<(), Violation> {
    let planned: Vec<_> = rollout
        .plan
        .waves
        .iter()
        .flatten()
        .map(|d| &d.device)
        .collect();
    let unique: BTreeSet<_> = planned.iter().collect();
    hold("device-in-one-wave", unique.len() == planned.len(), || {
        rollout.plan.name.to_string()
    })?;
    let state = |device: &DeviceName| rollout.devices.get(device);
    for (index, wave) in rollout.plan.waves.iter().enumerate() {
        for planned in wave {
            let moved = !matches!(
                state(&planned.device),
                Some(DeviceRollout::Waiting | DeviceRollout::Gone) | None
            );
            let reached = match rollout.state {
                RolloutState::Planned => false,
                RolloutState::Running { wave, .. } | RolloutState::Paused { wave, .. } => {
                    index <= wave
                }
                _ => true,
            };
            hold("no-device-before-its-wave", reached || !moved, || {
                planned.device.to_string()
            })?;
        }
    }
    if rollout.state == RolloutState::Promoted {
        let mut states = rollout.devices.values();
        let succeeded = states.any(|s| *s == DeviceRollout::Succeeded);
        hold("promotion-has-a-success", succeeded, || {
            rollout.plan.name.to_string()
        })?;
        let unfinished = rollout.devices.iter().filter(|(_, s)| {
            !matches!(
                s,
                DeviceRollout::Succeeded | DeviceRollout::Gone | DeviceRollout::Failed { .. }
            )
        });
        let tolerated = (rollout.plan.spec.max_failures as usize) * rollout.plan.waves.len();
        let unfinished: Vec<_> = unfinished.map(|(d, _)| d.to_string()).collect();
        hold(
            "silence-is-no-success",
            unfinished.len() <= tolerated,
            || unfinished.join(", "),
        )?;
    }
    if let RolloutState::RollingBack { .. } | RolloutState::RolledBack { .. } = rollout.state {
        let left = rollout.devices.iter().find(|(_, s)| {
            matches!(
                s,
                DeviceRollout::Assigned { .. }
                    | DeviceRollout::Serving { .. }
                    | DeviceRollout::Succeeded
                    | DeviceRollout::Failed { .. }
            )
        });
        hold("rollback-reaches-all", left.is_none(), || {
            format!("{left:?}")
        })?;
    }
    Ok(())
}

/// What a device remembers agrees with its assignment; every rung is a variant of the version
/// that it belongs to; what failed is not waited for.
///
/// # Errors
/// The first violation.
pub fn device_state(state: &DeviceState) -> Result<(), Violation> {
    if let Some(assigned) = &state.assignment {
        assignment(assigned, &assigned.device)?;
        hold(
            "state-has-the-assignment's-generation",
            assigned.generation == state.generation,
            || format!("{} and {}", assigned.generation.0, state.generation.0),
        )?;
    }
    for (name, slot) in &state.models {
        let assigned = state.assignment.as_ref();
        let assigned = assigned.is_some_and(|a| a.models.contains_key(name));
        hold("held-model-is-assigned", assigned, || name.to_string())?;
        let versions = [&slot.active, &slot.previous, &slot.pending];
        for version in versions.into_iter().flatten() {
            let ladder = &version.ladder;
            let mains = ladder.rung(crate::profile::PowerState::Mains).is_some();
            hold("ladder-has-mains-rung", mains, || name.to_string())?;
            let mut rungs = ladder.rungs.values();
            let missing = rungs.find(|v| version.manifest.variant(v).is_none());
            hold("rung-is-a-variant", missing.is_none(), || {
                format!("{name} {}: {missing:?}", version.version())
            })?;
        }
        let both = slot.pending.is_some() && slot.failure.is_some();
        hold("failed-is-not-pending", !both, || name.to_string())?;
    }
    Ok(())
}
