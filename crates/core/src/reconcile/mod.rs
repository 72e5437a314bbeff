//! The agent's machine: from the signed assignment to runners that serve.
//!
//! It takes events and the time and queues effects. The driver performs them **in order**; a
//! [`DeviceEffect::Persist`] comes first whenever the state changed, so that nothing is done
//! that a power loss would forget. What runs is volatile and found anew after a reboot by one
//! [`DeviceEvent::Tick`]. An effect that fails waits in a [`Backlog`], and all that follow it with
//! it; meanwhile nothing is told.
//!
//! A new version moves through *pending* (fetch everything the ladder names, then load and
//! self-test the rung of the present power state) and becomes *active* only when its runner is
//! ready; until then the old one serves. The version before stays as *previous* to go back to, and
//! its runner beside the new one for [`PROBATION`], to answer what the new one fails on.
//! Where the assignment names windows, the device fetches and switches within them, by the time that
//! it was told and not by its own clock: without one it serves on what it serves.
//! Code that failed is never tried again on this device. A device may wake up as another board: it goes
//! on with the code that it has, as far as it may run it, and gets itself better code (`code.rs`).

mod accept;
mod backlog;
mod clocks;
mod code;
mod failure;
mod machine;
#[cfg(test)]
mod moved;
#[cfg(test)]
mod properties;
mod state;
mod status;

pub use backlog::{Backlog, TRY_AGAIN};
pub use failure::{
    DEATH_WINDOW, FETCH_RETRY, HANG_WINDOW, MAX_DEATHS, MAX_FETCH_FAILURES, MAX_HANGS,
};
pub use machine::{PROBATION, Reconciler};
pub use state::{
    DeviceEffect, DeviceEvent, DeviceState, FailedCode, MAX_FAILED, ModelSlot, Refusal, SlotVersion,
};
