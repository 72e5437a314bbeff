//! Tests of the stores. [`conformance`] holds what every store must do.
#![allow(clippy::unwrap_used)]

mod conformance;
mod durability;
mod faults;
