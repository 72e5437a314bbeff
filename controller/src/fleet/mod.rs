//! The fleet: one task owns all state, handles one job at a time, persists what the job
//! changed, and only then sends and answers.
//!
//! | module | what it holds |
//! |---|---|
//! | `actor` | the task, its mailbox and its clock |
//! | `state` | everything that is known, loaded from the store |
//! | `enrol` | join tokens and new devices |
//! | `devices` | live streams, reports, labels, revocation |
//! | `assign` | desired states with rising generations |
//! | `telemetry` | what windows teach |
//! | `rollouts` | the driver of the rollout machine |
//! | `documents` | what operators see |

mod actor;
mod assign;
mod devices;
mod documents;
mod enrol;
mod error;
mod keys;
mod outbox;
mod record;
mod rollouts;
mod state;
mod telemetry;

pub use actor::{FleetHandle, Running, spawn};
pub use devices::StreamId;
pub use documents::Shown;
pub use enrol::NewToken;
pub use error::FleetError;
pub use outbox::Changed;
pub use record::{DeploymentRecord, DeviceRecord, TokenRecord};
pub use state::{Authority, LoadError, State};
