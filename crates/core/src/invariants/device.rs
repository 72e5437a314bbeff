//! Devices: what they remember, what they hold, what they serve.

use super::{Violation, assignment, hold};
use crate::assignment::Generation;
use crate::digest::Digest;
use crate::names::{DeviceName, VersionName};
use crate::reconcile::{DeviceState, SlotVersion};
use std::collections::BTreeSet;

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

/// A device that has told a generation, or restored a state, never falls behind it, not even by a
/// power cut.
///
/// # Errors
/// The violation.
pub fn generation_survives(told: Generation, has: Generation) -> Result<(), Violation> {
    hold("generation-survives", has >= told, || {
        format!("{} after {} was told", has.0, told.0)
    })
}

/// Of two cards with one identity not both are listened to for ever: starts (the latest last, of
/// each stay one entry) do not take turns again and again.
///
/// # Errors
/// The violation.
pub fn two_cards_are_not_both_heard(device: &DeviceName, starts: &[u64]) -> Result<(), Violation> {
    /// Far more turns than a card that is merely started again can cause.
    const TURNS: usize = 10;
    let last = starts.len().saturating_sub(TURNS);
    let turns = starts[last..].windows(3).filter(|w| w[0] == w[2]).count();
    hold("two-cards-are-not-both-heard", turns + 2 < TURNS, || {
        format!("{device}: {:?}", &starts[last..])
    })
}

/// A device serves the version that is active or the one before, never something else. While it is
/// up and something is active that has not failed, it serves or a runner is on its way.
///
/// # Errors
/// The first violation.
pub fn serves_old_or_new(
    active: Option<&SlotVersion>,
    previous: Option<&SlotVersion>,
    routed: Option<&VersionName>,
    is_ready: bool,
    is_starting: bool,
) -> Result<(), Violation> {
    let held = [active, previous];
    if let Some(routed) = routed {
        let known = held.into_iter().flatten().any(|v| v.version() == routed);
        hold("serves-old-or-new", known, || {
            format!("{routed} is neither active nor the one before")
        })?;
        hold("requests-reach-a-ready-runner", is_ready, || {
            routed.to_string()
        })?;
    }
    let serves = active.is_none() || routed.is_some() || is_starting;
    hold("never-neither", serves, || {
        let active = active.map(|v| v.version().to_string());
        format!("{active:?} is active and nothing runs")
    })
}

/// Everything that the versions of a device need is on its disk.
///
/// # Errors
/// The violation.
pub fn nothing_live_is_missing(
    device: &DeviceName,
    needed: &BTreeSet<Digest>,
    has: impl Fn(&Digest) -> bool,
) -> Result<(), Violation> {
    let missing = needed.iter().find(|digest| !has(digest));
    hold("nothing-live-is-deleted", missing.is_none(), || {
        format!("{device}: {missing:?}")
    })
}
