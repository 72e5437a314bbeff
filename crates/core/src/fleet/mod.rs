//! The fleet as the controller knows it, and every decision about it.
//!
//! [`Fleet`] is a state machine without I/O: its methods take the time and what happened, change
//! the state, and queue in an [`Outbox`] what the driver shall make durable (as one step, first)
//! and what it shall send then. The controller drives it over a store and streams, the
//! simulation over a disk and a network that fail.
//!
//! | module | what it holds |
//! |---|---|
//! | `state` | everything that is known, loaded from the records of a store |
//! | `devices` | joining, live streams, reports, labels, revocation |
//! | `clones` | cards that were copied |
//! | `leader` | which controller acts on a store |
//! | `agents` | releases of the agent, and which device shall run which |
//! | `assign` | desired states with rising generations |
//! | `telemetry` | what windows teach |
//! | `deployments` | which devices shall run which model |
//! | `planning` | what a plan looks at |
//! | `rollouts` | the driver of the rollout machine |
//! | `record`, `rollout_record`, `keys` | what the store keeps, and where |
//! | `outbox` | what a job leaves to be done |

mod agents;
mod assign;
mod clones;
mod deployments;
mod devices;
mod error;
mod keys;
mod leader;
mod outbox;
mod planning;
mod record;
mod rollout_record;
mod rollouts;
mod state;
mod telemetry;
mod windows;

pub use agents::{MAX_RELEASES, OrderedDevices};
pub use devices::{MAX_DEVICES, StreamId};
pub use error::Refused;
pub use leader::Term;
pub use outbox::{Changed, Outbox, ToDevice, Writes};
pub use planning::Draft;
pub use record::{DeploymentRecord, DeviceRecord, Published, PublishedAgent};
pub use state::{Fleet, LoadError, Row};
