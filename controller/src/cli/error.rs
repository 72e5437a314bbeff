//! What goes wrong on the command line, and the exit code it gives.

use crate::api::client::CallError;
use crate::import::ImportError;
use crate::import::npz::NpzError;
use crate::import::run::RunError;
use sandpiper_compiler::CompileError;
use std::path::PathBuf;

/// Exit codes. They are part of the interface: scripts rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// Done.
    Ok = 0,
    /// It failed.
    Failure = 1,
    /// Wrong usage or bad input.
    Usage = 2,
    /// The rollout was aborted or went back.
    RolledBack = 3,
    /// The time allowed has passed.
    Timeout = 4,
    /// No such resource.
    NotFound = 5,
    /// The controller cannot be reached.
    Unreachable = 6,
    /// This identity may not do that.
    Denied = 7,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// An argument is wrong.
    #[error("{0}")]
    Usage(String),
    /// A file cannot be read or written.
    #[error("{} cannot be {what}", path.display())]
    File {
        /// `read` or `written`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} is not valid: {why}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A call of the controller failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A NumPy archive cannot be used.
    #[error("{} cannot be used", path.display())]
    Npz {
        /// The file.
        path: PathBuf,
        /// Why.
        source: NpzError,
    },
    /// A version cannot be imported.
    #[error("nothing was imported")]
    Import(#[source] Box<ImportError>),
    /// A model is refused.
    #[error("{} does not compile", path.display())]
    Compile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: CompileError,
    },
    /// A model did not run.
    #[error("{} was not run", path.display())]
    Run {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<RunError>,
    },
    /// No such resource.
    #[error("there is no {0}")]
    NotFound(String),
    /// The rollout did not end well.
    #[error("rollout {name} is {state}: {why}")]
    RolledBack {
        /// The rollout.
        name: String,
        /// Its state.
        state: String,
        /// Why.
        why: String,
    },
    /// The time allowed has passed.
    #[error("rollout {name} is still {state} after {seconds} s")]
    Timeout {
        /// The rollout.
        name: String,
        /// Its state.
        state: String,
        /// The time allowed.
        seconds: u64,
    },
    /// The controller sent a document this program does not understand.
    #[error("the controller's answer cannot be understood; is it of another version? {0}")]
    Answer(String),
    /// Standard output is closed or full.
    #[error("the result cannot be written")]
    Output(#[from] std::io::Error),
}

/// The exit code of a process that ends because of a call to the controller.
fn of_call(error: &CallError) -> ExitCode {
    use tonic::Code;
    match error {
        CallError::Connect(_) => ExitCode::Unreachable,
        CallError::Convert(_) => ExitCode::Failure,
        CallError::Status(status) => match status.code() {
            Code::InvalidArgument | Code::AlreadyExists | Code::OutOfRange => ExitCode::Usage,
            Code::NotFound => ExitCode::NotFound,
            Code::PermissionDenied | Code::Unauthenticated => ExitCode::Denied,
            Code::Unavailable => ExitCode::Unreachable,
            Code::DeadlineExceeded => ExitCode::Timeout,
            _ => ExitCode::Failure,
        },
    }
}

impl From<ImportError> for CliError {
    fn from(error: ImportError) -> Self {
        Self::Import(Box::new(error))
    }
}

impl CliError {
    /// The exit code of the process.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Usage(_)
            | Self::File { .. }
            | Self::Content { .. }
            | Self::Npz { .. }
            | Self::Import(_)
            | Self::Compile { .. }
            | Self::Run { .. } => ExitCode::Usage,
            Self::Call(call) => of_call(call),
            Self::NotFound(_) => ExitCode::NotFound,
            Self::RolledBack { .. } => ExitCode::RolledBack,
            Self::Timeout { .. } => ExitCode::Timeout,
            Self::Answer(_) | Self::Output(_) => ExitCode::Failure,
        }
    }

    /// The message with its causes, on one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }
}
