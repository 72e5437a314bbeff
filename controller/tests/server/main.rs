//! The controller as its peers see it: a server in this process on loopback ports, spoken to
//! with the generated clients. Devices are played by hand, so that they can misbehave.
#![allow(clippy::unwrap_used)]

mod agents;
mod artefacts;
mod clones;
mod golden;
mod identity;
mod large;
mod names;
mod policy;
mod restart;
mod revocation;
mod rollouts;
mod support;
mod telemetry;
mod tokens;
