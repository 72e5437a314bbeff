//! The controller of Sandpiper and its command line.
//!
//! | module | what it holds |
//! |---|---|
//! | [`config`], [`context`], [`init`] | a fleet's files |
//! | [`serve`] | binding, serving, stopping |
//! | [`api`] | gRPC; the only place with generated types |
//! | [`fleet`] | the state and the task that owns it |
//! | [`catalogue`] | versions and artefacts |
//! | [`packages`] | what devices are installed from |
//! | [`store`] | what survives |

pub mod api;
pub mod catalogue;
pub mod cli;
pub mod clock;
pub mod config;
pub mod context;
pub mod fleet;
pub mod import;
pub mod init;
pub mod packages;
pub mod serve;
pub mod store;
