//! How a runner ends and why a request gets no answer.

use sandpiper_sandbox::InferError;
use std::process::ExitStatus;

/// How a runner ended. It has to be started again to be used again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// It was told to stop.
    #[error("it was stopped")]
    Stopped,
    /// The module trapped.
    #[error("the module trapped: {reason}")]
    Trap {
        /// What the module did.
        reason: String,
    },
    /// A call outlived its deadline; the process was killed.
    #[error("a call outlived its deadline")]
    Deadline,
    /// A signal that was not ours killed the process: 11 for a bulk write to its weights, 7 for
    /// weights that the disk could not deliver, 9 from the kernel when memory ran out.
    #[error("signal {signal} killed it")]
    Killed {
        /// Number of the signal.
        signal: i32,
    },
    /// The process exited by itself.
    #[error("it exited with code {code}")]
    Exit {
        /// Exit code.
        code: i32,
    },
    /// It sent what no runner sends; the process was killed.
    #[error("it broke the protocol: {what}")]
    Protocol {
        /// What was wrong.
        what: String,
    },
}

impl End {
    /// From the status of the process.
    pub(crate) fn of(status: ExitStatus) -> Self {
        use std::os::unix::process::ExitStatusExt as _;
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Exit { code },
            (None, Some(signal)) => Self::Killed { signal },
            // Neither exited nor killed: not a status that waiting for an end can give.
            (None, None) => Self::Exit { code: -1 },
        }
    }
}

/// Why a runner was not started, or a request got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunnerError {
    /// The request does not fit the model. Nothing was run.
    #[error(transparent)]
    Request(InferError),
    /// The queue of the runner is full. Nothing was run; try again later.
    #[error("{queued} requests are waiting for this model already, try again later")]
    Busy {
        /// Requests the queue holds.
        queued: usize,
    },
    /// The module returned an error code. The runner goes on.
    #[error("the module returned error code {0}")]
    Code(i32),
    /// The request ended the runner, or the runner ended while it was loading.
    #[error("the runner of this model ended: {0}")]
    Ended(End),
    /// The runner had ended before the request was handed to it. Nothing was run.
    #[error("the runner of this model has ended ({0}), try again later")]
    Gone(End),
    /// The process could not be started.
    #[error("the runner could not be started: {reason}")]
    Spawn {
        /// What the system says.
        reason: String,
    },
    /// The runner could not load the module.
    #[error("the runner could not load the module: {reason}")]
    Refused {
        /// Why, from the sandbox.
        reason: String,
    },
    /// Loading took too long; the process was killed.
    #[error("the runner was not ready after {seconds} s")]
    LoadTimeout {
        /// How long it was given.
        seconds: u64,
    },
}
