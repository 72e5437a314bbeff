//! One child process for each model: it holds the model and nothing else, no keys, no network, no
//! files. What goes wrong in it stays in it.
//!
//! ```text
//!  agent                                   runner (child process)
//!  Runner::spawn ── Load ────────────────► isolate, map code and weights, lock down
//!                ◄──────────────── Ready ─
//!  Runner::infer ── Infer ───────────────► run
//!                ◄─────── Done | Failed ──
//!  Runner::stop  ── end of input ────────► exit
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`parent`] | the agent's side: starts, asks, kills at the deadline, notices the end |
//! | [`child`] | the runner's side: loads, locks down, answers |
//! | `protocol` | the frames between them |
//! | `pages` | the memory with the tensors, which they share |
//! | `spawner`, `stderr` | starting a process that dies with the agent; what it says on standard error |
//!
//! The agent decides what to do about a runner that ended; nothing here starts one again.

pub mod child;
mod error;
mod pages;
pub mod parent;
mod protocol;
mod spawner;
mod stderr;
mod worker;

pub use error::{End, RunnerError};
pub use parent::{Inference, Runner, RunnerSpec};

/// Name of the hidden subcommand of the agent's program that runs [`child::main`].
pub const SUBCOMMAND: &str = "runner";
