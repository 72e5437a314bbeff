//! The domain of Sandpiper: what decides, without doing.
//!
//! Nothing here is asynchronous, performs I/O, reads a clock or throws dice: time and
//! randomness are arguments. The controller and the agent drive what is decided here.
//!
//! | module | what it decides or describes |
//! |---|---|
//! | [`manifest`], [`signed`], [`abi`], [`tensor`], [`target`], [`digest`], [`chunks`] | what a version is |
//! | [`profile`], [`telemetry`], [`sketch`], [`outputs`], [`energy`] | what a device is and reports |
//! | [`policy`], [`selection`], [`ladder`], [`learning`] | which variant a device shall run |
//! | [`rollout`], [`rungs`], [`assignment`] | how a fleet moves from one version to another |
//! | [`fleet`] | everything the controller knows and decides |
//! | [`reconcile`] | how a device gets from what it has to what it shall have |
//! | [`ring`], [`backoff`] | what a device does while the controller is out of reach |
//! | [`event`], [`view`] | what operators are told |
//! | [`invariants`] | what must hold after every step, in tests and in production |

pub mod abi;
pub mod assignment;
pub mod backoff;
pub mod bandwidth;
pub mod chunks;
pub mod digest;
pub mod energy;
pub mod event;
pub mod fleet;
pub mod invariants;
pub mod ladder;
pub mod learning;
pub mod manifest;
#[cfg(feature = "mutants")]
pub mod mutants;
#[cfg(not(feature = "mutants"))]
#[allow(dead_code, unreachable_pub)]
mod mutants;
pub mod names;
pub mod outputs;
pub mod policy;
mod pool;
pub mod profile;
pub mod reconcile;
pub mod ring;
pub mod rollout;
pub mod rungs;
pub mod selection;
pub mod signed;
pub mod sketch;
pub mod target;
pub mod telemetry;
pub mod tensor;
pub mod time;
pub mod update;
pub mod view;
pub mod window;

#[cfg(test)]
extern crate self as sandpiper_core;
// The documents that tests from outside use.
#[cfg(test)]
#[path = "../tests/fixtures/mod.rs"]
#[allow(clippy::unwrap_used)]
mod fixtures;
#[cfg(test)]
mod testing;
