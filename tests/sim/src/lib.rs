//! Whole fleets under a virtual clock.
//!
//! What decides is the production code of `sandpiper-core`: the controller's fleet, the agents'
//! reconciler, ladder, ring and backoff. What acts is this world: a network that delays, loses,
//! doubles and reorders, disks that tear, power cuts in the middle of writes, a controller that is
//! killed before and after commits, clocks that jump, devices that are silent or lie, batteries
//! and heat. One seed determines a run bit for bit. After every event the invariants of
//! [`sandpiper_core::invariants`] are checked, the same that production checks, and those that
//! compare with what really happened. A run that fails is shortened to the faults that it needs.
//!
//! | module | what it holds |
//! |---|---|
//! | [`scenario`], [`fault`], [`truth`] | what a run is about, what goes wrong, what is true |
//! | [`world`] | the loop, faults, operators, the end |
//! | [`controller`], [`device`] | drivers of the core's machines |
//! | [`outside`], [`link`], [`queue`], [`event`] | time and the network |
//! | [`disk`], [`sign`], [`dice`] | what may fail, what may not be forged, chance |
//! | [`check`], [`shrink`], [`batch`] | invariants, short lists, many seeds |
//! | [`planning`] | how long planning takes |

pub mod batch;
pub mod check;
pub mod controller;
pub mod device;
pub mod dice;
pub mod disk;
pub mod event;
pub mod fault;
#[cfg(feature = "mutants")]
pub mod hunt;
pub mod link;
pub mod outside;
pub mod planning;
pub mod queue;
pub mod scenario;
pub mod shrink;
pub mod sign;
pub mod truth;
pub mod world;
