//! Compiles a module for this host and runs it here: what import and `model run` need.

use crate::error::{InferError, SandboxError};
use crate::host::host_target;
use crate::instance::{Instance, LoadSpec, Native, Weights};
use crate::limits::Limits;
use crate::precompile::{Origin, precompile};
use std::time::Duration;

/// How long one call of [`run_once`] may take if the module is not bounded: generous, since it
/// only has to tell an endless loop from a slow model.
const ONCE_DEADLINE: Duration = Duration::from_secs(60);

/// Why [`run_once`] gave no result.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The module could not be compiled or loaded.
    #[error("the module could not be loaded")]
    Load(#[from] SandboxError),
    /// It was loaded, but the call failed.
    #[error("the module gave no result")]
    Infer(#[from] InferError),
}

/// Compiles a module for this host and loads it into this process. `weights` is empty exactly if
/// the module has none. The same code runs here as on a device with this CPU.
///
/// # Errors
/// See [`precompile`] and [`Instance::load`].
pub fn load_wasm(
    wasm: &[u8],
    weights: &[u8],
    origin: Origin,
    deadline: Duration,
) -> Result<Instance, SandboxError> {
    let made = precompile(wasm, host_target(), origin)?;
    let limits = Limits {
        memory_bytes: made.abi.memory_bytes,
        deadline,
    };
    let has_region = made.abi.weights.is_some();
    let weights = (has_region || !weights.is_empty()).then_some(Weights::Bytes(weights));
    Instance::load(LoadSpec {
        native: Native::Bytes(&made.native),
        abi: made.abi,
        weights,
        limits,
    })
}

/// Loads a module and runs one batch; gives the bytes of every output.
///
/// # Errors
/// [`RunError`].
pub fn run_once(
    wasm: &[u8],
    weights: &[u8],
    origin: Origin,
    batch: u32,
    inputs: &[&[u8]],
) -> Result<Vec<Vec<u8>>, RunError> {
    let mut instance = load_wasm(wasm, weights, origin, ONCE_DEADLINE)?;
    let mut outputs = vec![Vec::new(); instance.abi().outputs.len()];
    instance.infer(batch, inputs, &mut outputs)?;
    Ok(outputs)
}
