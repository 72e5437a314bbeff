//! Runner processes: good modules are served, whatever bad ones do next to them.
#![allow(clippy::unwrap_used)]

mod broken_into;
#[path = "../../../crates/sandbox/tests/common/mod.rs"]
mod common;
mod hostile;
mod served;
mod workers;
mod workshop;
