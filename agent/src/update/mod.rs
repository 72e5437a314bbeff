//! Releases of the agent on this device's disk, and the start that chooses between them.
//!
//! ```text
//! STATE/agent/update.json              what is confirmed, what is tried, what has failed
//! STATE/agent/sandpiper-agent-DIGEST   programs that lie ready; never written again
//! ```

mod exec;
mod programs;
mod socket;
mod start;

pub use programs::{Programs, StageError};
pub use socket::inherited;
pub use start::{Running, VERSION, choose, start_again};
