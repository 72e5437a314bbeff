//! Rollouts: what holds of one, and of one step of it.

use super::{Violation, hold};
use crate::names::DeviceName;
use crate::rollout::{DeviceRollout, Rollout, RolloutState};
use crate::time::Millis;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

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
    let counted = rollout.devices.counts_hold(&rollout.plan);
    hold("counts-are-those-of-a-walk", counted, || {
        rollout.plan.name.to_string()
    })?;
    let state = |device: &DeviceName| rollout.devices.get(device);
    for (index, wave) in rollout.plan.waves.iter().enumerate() {
        for planned in wave {
            let moved = !matches!(
                state(&planned.device),
                Some(DeviceRollout::Waiting | DeviceRollout::Held { .. } | DeviceRollout::Gone)
                    | None
            );
            let reached = match rollout.state {
                RolloutState::Planned => false,
                RolloutState::AwaitingApproval { wave, .. } => index < wave,
                RolloutState::Running { wave, .. } | RolloutState::Paused { wave, .. } => {
                    index <= wave
                }
                _ => true,
            };
            hold("no-device-before-its-wave", reached || !moved, || {
                planned.device.to_string()
            })?;
            let allowed = !rollout.lacks_approval(index);
            hold("no-wave-without-approval", allowed || !moved, || {
                format!("{} of wave {}", planned.device, index + 1)
            })?;
        }
    }
    if rollout.state == RolloutState::Promoted {
        let mut states = rollout.devices.states();
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
                    | DeviceRollout::Parked { .. }
                    | DeviceRollout::Switching { .. }
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

/// What holds of one step of a rollout from this state and these devices to where it is at `now`.
///
/// # Errors
/// The first violation.
pub fn rollout_step(
    state: &RolloutState,
    devices: &BTreeMap<DeviceName, DeviceRollout>,
    rollout: &Rollout,
    now: Millis,
) -> Result<(), Violation> {
    let name = &rollout.plan.name;
    let same = rollout.devices == *devices && *state == rollout.state;
    hold("final-is-final", !state.is_final() || same, || {
        format!("{name}: {} became {}", state.word(), rollout.state.word())
    })?;
    let moves = |device: &DeviceName, to: &DeviceRollout| {
        matches!(to, DeviceRollout::Assigned { .. })
            && devices.get(device).is_some_and(DeviceRollout::is_untouched)
    };
    let moved: Vec<_> = rollout
        .devices
        .iter()
        .filter(|(device, to)| moves(device, to))
        .map(|(device, _)| device)
        .collect();
    let held = matches!(
        (state, &rollout.state),
        (RolloutState::Paused { .. }, RolloutState::Paused { .. })
    );
    hold("a-paused-rollout-holds", !held || moved.is_empty(), || {
        format!("{name}: {moved:?}")
    })?;
    if !moved.is_empty() {
        within_bounds(rollout, &moved)?;
        within_windows(rollout, &moved, now)?;
    }
    let overdue = rollout.overdue(now).filter(|_| is_under_way(rollout));
    hold("every-phase-ends", overdue.is_none(), || {
        format!("{name}: {overdue:?}")
    })?;
    for (device, to) in rollout.devices.iter() {
        if *to == DeviceRollout::Succeeded {
            succeeded(rollout, device, devices.get(device), now)?;
        }
    }
    failures_stop(rollout)
}

/// Whenever devices are sent off, those in flight stay within the bounds: all, and those of the
/// groups that have moved. (One that stops serving is in flight again by itself.)
fn within_bounds(rollout: &Rollout, moved: &[&DeviceName]) -> Result<(), Violation> {
    let (spec, flying) = (&rollout.plan.spec, rollout.in_flight());
    let most = spec.max_in_flight.map_or(usize::MAX, |n| n as usize);
    hold("at-most-so-many-in-flight", flying.total <= most, || {
        format!("{}: {} of {most}", rollout.plan.name, flying.total)
    })?;
    let Some(budget) = &spec.disruption else {
        return Ok(());
    };
    let most = budget.max_unavailable as usize;
    let planned = rollout.plan.waves.iter().flatten();
    let moved: BTreeSet<_> = planned
        .filter(|d| moved.contains(&&d.device))
        .map(|d| d.group.as_deref())
        .collect();
    let mut groups = flying.groups.iter();
    let over = groups.find(|(group, count)| **count > most && moved.contains(*group));
    hold("disruption-budget-is-kept", over.is_none(), || {
        format!("{}: {over:?} of {most}", rollout.plan.name)
    })
}

fn is_under_way(rollout: &Rollout) -> bool {
    matches!(
        rollout.state,
        RolloutState::Running { .. } | RolloutState::AwaitingApproval { .. }
    )
}

/// No device is told to move while its download window is shut.
fn within_windows(rollout: &Rollout, moved: &[&DeviceName], now: Millis) -> Result<(), Violation> {
    if rollout.plan.spec.windows.is_none() {
        return Ok(());
    }
    let planned = rollout.plan.waves.iter().flatten();
    let mut told = planned.filter(|d| moved.contains(&&d.device));
    let early = told.find(|device| !rollout.may_fetch(device, now).is_open());
    hold("told-in-its-window", early.is_none(), || {
        let early = early.map(|d| (&d.device, &d.zone));
        format!("{}: {early:?} at {}", rollout.plan.name, now.0)
    })
}

/// Only what was seen serving, for long enough and with enough inferences, succeeds.
fn succeeded(
    rollout: &Rollout,
    device: &DeviceName,
    before: Option<&DeviceRollout>,
    now: Millis,
) -> Result<(), Violation> {
    let spec = &rollout.plan.spec;
    let bake = Duration::from_secs(spec.bake_s);
    let earned = match before {
        Some(DeviceRollout::Succeeded) => true,
        // Seen serving and judged in one step.
        Some(
            DeviceRollout::Assigned { .. }
            | DeviceRollout::Parked { .. }
            | DeviceRollout::Switching { .. },
        ) => bake.is_zero(),
        Some(DeviceRollout::Serving { since, .. }) => now.since(*since) >= bake,
        _ => false,
    };
    hold("success-has-baked", earned, || {
        format!("{}: {device} after {before:?}", rollout.plan.name)
    })
}

/// No further wave begins, and nothing is promoted, over more failures than are tolerated.
fn failures_stop(rollout: &Rollout) -> Result<(), Violation> {
    let reached = match rollout.state {
        RolloutState::Running { wave, .. } => *rollout.together(wave).start(),
        RolloutState::Promoted => rollout.plan.waves.len(),
        _ => 0,
    };
    let tolerated = rollout.plan.spec.max_failures as usize;
    for (index, wave) in rollout.plan.waves.iter().enumerate().take(reached) {
        let states = wave.iter().filter_map(|d| rollout.devices.get(&d.device));
        let bad = states.filter(|s| !matches!(s, DeviceRollout::Succeeded | DeviceRollout::Gone));
        let bad = bad.count();
        hold("failures-stop-a-rollout", bad <= tolerated, || {
            let wave = index + 1;
            format!(
                "{}: {bad} without success in wave {wave}",
                rollout.plan.name
            )
        })?;
    }
    Ok(())
}
