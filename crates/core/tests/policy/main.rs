//! What a rollout can be asked for besides waves of a size: approvals, deadlines of phases,
//! windows, bandwidth.
#![allow(clippy::unwrap_used)]

mod approval;
mod bandwidth;
mod device;
#[path = "../fixtures/mod.rs"]
mod fixtures;
mod phases;
mod sequences;
mod support;
mod waves;
mod windows;
