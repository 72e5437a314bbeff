//! Updates of the agent itself: what a release is, and how a device comes to run one and goes back.
//!
//! ```text
//! order ─► fetching ─► staged ─► trying ─┬─► confirmed
//!             │           │         │    └─► fell back: the program before runs
//!             └───────────┴─► refused
//! ```
//!
//! The program that is installed starts first, always. It reads [`UpdateRecord`], which says what
//! shall run, and hands its process over to that. An attempt is counted and written down before the
//! process is handed over, so a program that cannot even start uses its attempts up and no device
//! is lost with it.
//!
//! | part | what it decides |
//! |---|---|
//! | [`AgentRelease`], [`AgentOrder`] | what a publisher signs, what an operator asks for |
//! | [`UpdateRecord`] | which program a start runs |
//! | [`Updater`] | what the program that runs does about an order, and about its own trial |
//! | [`elf`] | for which boards a program was built |

pub mod elf;
mod machine;
mod record;
mod release;
mod status;

pub use machine::{Models, StageFailure, UpdateEffect, UpdateEvent, Updater};
pub use record::{
    MAX_STARTS, MAX_TRIAL_STARTS, Outcome, SETTLED_AFTER, Settled, Staged, Start, Trial,
    UpdateRecord,
};
pub use release::{
    AgentOrder, AgentRelease, AgentVersion, AgentVersionError, MAX_AGENT_BYTES, ReleaseError,
};
pub use status::{AgentStatus, UpdatePhase};

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
