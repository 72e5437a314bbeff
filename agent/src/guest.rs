//! A loaded model as the rest of the agent sees it, whoever runs it.

use sandpiper_core::abi::ModuleAbi;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// A boxed future, for traits that are used as objects.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a guest needs to be loaded. The digests of the files were verified by the caller.
#[derive(Debug, Clone)]
pub struct LaunchSpec {
    /// `model/version/variant`, for logs.
    pub label: String,
    /// File of the native code.
    pub native: PathBuf,
    /// File of the weights, if the module has any.
    pub weights: Option<PathBuf>,
    /// Places of the tensors, memory, weights.
    pub abi: ModuleAbi,
    /// Longest time one request may take; the guest is killed then.
    pub deadline: Duration,
}

/// The answer to one request.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Outputs in the order of the ABI, each as long as the batch needs.
    pub outputs: Vec<Vec<u8>>,
    /// Time in the guest in microseconds.
    pub latency_us: u32,
    /// CPU time of the runner in microseconds.
    pub cpu_us: u64,
}

/// Why a guest did not load or answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GuestError {
    /// It did not load.
    #[error("the model did not load: {0}")]
    Load(String),
    /// Its queue is full; nothing was tried.
    #[error("the model is busy: try again later")]
    Busy,
    /// The request does not fit the model; the guest lives.
    #[error("{0}")]
    BadRequest(String),
    /// The module answered with an error code; the guest lives.
    #[error("the model answered with error code {0}")]
    Code(i32),
    /// It had ended before the request was handed to it; nothing was tried.
    #[error("the model is being restarted ({0}): try again later")]
    Gone(String),
    /// It trapped, died, or overran its deadline; it is gone.
    #[error("the model died: {0}")]
    Died(String),
}

/// A loaded model. Dropping the last handle ends it.
pub trait Guest: Send + Sync {
    /// Resolves once the guest has ended: with the reason if it died, with `None` if it was
    /// stopped. Does not keep the guest alive.
    fn end(&self) -> Boxed<'static, Option<String>>;

    /// How far it is locked down: measure -> `applied` or why not.
    fn lockdown(&self) -> BTreeMap<String, String>;

    /// Runs one batch; `inputs` in the order of the ABI, each exactly as long as the batch needs.
    fn infer(&self, batch: u32, inputs: Vec<Vec<u8>>) -> Boxed<'_, Result<Answer, GuestError>>;
}

/// Loads guests.
pub trait Launcher: Send + Sync {
    /// Loads one.
    fn launch(&self, spec: LaunchSpec) -> Boxed<'_, Result<Arc<dyn Guest>, GuestError>>;
}
