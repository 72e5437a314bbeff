//! The controller's driver of the fleet: one task owns all state, handles one job at a time,
//! persists what the job changed, and only then sends and answers. What decides is
//! [`sandpiper_core::fleet`].
//!
//! | module | what it holds |
//! |---|---|
//! | `actor` | the task, its mailbox and its clock |
//! | `state` | the fleet with the controller's keys, streams and tokens |
//! | `enrol`, `token` | join tokens and new devices |
//! | `journal` | writes of one job as one step, however many |
//! | `documents` | what operators see |

mod actor;
mod documents;
mod enrol;
mod error;
mod journal;
mod refusals;
mod state;
mod token;

pub use actor::{FleetHandle, Running, spawn};
pub use documents::Shown;
pub use enrol::NewToken;
pub use error::FleetError;
pub use sandpiper_core::fleet::{Changed, StreamId};
pub use state::{Authority, LoadError, State};
pub use token::TokenRecord;
