//! The agent of Sandpiper: runs on each device.
//!
//! | module | what it does |
//! |---|---|
//! | [`config`] | the configuration, checked as a whole |
//! | [`assemble`] | from what the disk holds to a driver that can run |
//! | [`driver`] | performs what the core's reconciler decides |
//! | [`depot`] | the only module that stores artefacts and state |
//! | [`attach`], [`identity`], [`renewal`] | the way to the controller |
//! | [`fetch`], [`fetcher`] | artefacts, one download each |
//! | [`guest`], [`launch`], [`runner`] | loaded models, each in a process of its own |
//! | [`notify`], [`sentinel`] | tells the service manager that the agent lives, and what it hung over |
//! | [`serve`] | the Open Inference Protocol for local programs |
//! | [`memory`] | gives back what only the start needed |
//! | [`probe`], [`energy`] | what the device is, how it is, what it uses |
//! | [`update`] | releases of the agent itself, and which one a start runs |
//! | [`tally`], [`telemetry`] | what was served, kept until acknowledged |

pub mod app;
pub mod assemble;
pub mod attach;
pub mod cli;
pub mod clock;
pub mod config;
pub mod depot;
pub mod driver;
pub mod energy;
pub mod fetch;
pub mod fetcher;
pub mod guest;
pub mod identity;
pub mod launch;
pub mod memory;
pub mod notify;
pub mod probe;
pub mod renewal;
pub mod runner;
pub mod sentinel;
pub mod serve;
pub mod status;
pub mod tally;
pub mod telemetry;
pub mod update;
mod words;
