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
//! | `journal` | writes of one job as one step, however many |
//! | `telemetry` | what windows teach |
//! | `rollouts` | the driver of the rollout machine |
//! | `rollout_record` | rollouts as the store keeps them |
//! | `documents` | what operators see |

mod actor;
mod assign;
mod devices;
mod documents;
mod enrol;
mod error;
mod journal;
mod keys;
mod outbox;
mod record;
mod rollout_record;
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
