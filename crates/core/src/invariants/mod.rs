//! What must hold after every step, in tests and in production. Each has a name, and a deliberate
//! mistake of `mutants` that breaks it.
//!
//! Those that look at one state are checked by production itself; those that compare two states,
//! or a state with what really happened, are checked by the simulation after every event.

mod device;
mod fleet;
mod rollout;

pub use device::{
    device_state, generation_survives, nothing_live_is_missing, serves_old_or_new,
    two_cards_are_not_both_heard,
};
pub use fleet::{counted_once, nothing_forgotten, one_open_rollout, success_was_served};
pub use rollout::{rollout, rollout_step};

use crate::assignment::{Assignment, Generation};
use crate::names::DeviceName;

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

/// Of each generation of a device there is one assignment only, whichever controller made it.
///
/// # Errors
/// The violation.
pub fn one_assignment_of_a_generation(a: &Assignment, b: &Assignment) -> Result<(), Violation> {
    let same = a.device != b.device || a.generation != b.generation || a == b;
    hold("a-generation-is-one-assignment", same, || {
        format!("{} has two of generation {}", a.device, a.generation.0)
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
