//! Why a module cannot be loaded, and why a call of it failed.

use sandpiper_core::abi::AbiError;
use std::path::PathBuf;

/// Why a module was refused, could not be compiled, or could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The bytes are not a wasm module, or not a valid one.
    #[error("this is not a valid wasm module: {reason}")]
    NotWasm {
        /// What the parser or validator says.
        reason: String,
    },
    /// The module is larger than any this build accepts.
    #[error(
        "the module has {size_bytes} bytes, at most {limit_bytes} are accepted; weights belong into the weights blob"
    )]
    TooLarge {
        /// Its length.
        size_bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// The module asks its host for something.
    #[error(
        "the module imports `{module}` `{name}`, but a variant may import nothing; build it for a target without a system, such as wasm32v1-none"
    )]
    Import {
        /// Module part of the import.
        module: String,
        /// Name part of the import.
        name: String,
    },
    /// An export that the ABI wants is absent or of another kind.
    #[error("the module must export `{name}` as {expected}, found {found}")]
    Export {
        /// Name of the export.
        name: &'static str,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// The module breaks a rule of the sandbox.
    #[error("the module is refused: {why}")]
    Refused {
        /// The rule.
        why: String,
    },
    /// The module has no ABI section, or several.
    #[error("the module has {found} custom sections `sandpiper.abi`, exactly one is needed")]
    AbiSection {
        /// How many it has.
        found: usize,
    },
    /// The ABI section, or the ABI in a manifest, breaks a rule.
    #[error("the module's ABI is refused")]
    Abi(#[from] AbiError),
    /// Cranelift failed.
    #[error("no native code for {target} could be made: {reason}")]
    Compile {
        /// The target.
        target: sandpiper_core::target::Target,
        /// What the compiler says.
        reason: String,
    },
    /// The configuration of wasmtime was not accepted.
    #[error("the runtime could not be set up: {reason}")]
    Engine {
        /// What wasmtime says.
        reason: String,
    },
    /// The bytes are not native code, or were made by another version or for another CPU.
    #[error(
        "the native code does not fit this runtime ({runtime}): {reason}; it has to be made again by the same version and for this CPU"
    )]
    Native {
        /// Version and epoch of this runtime.
        runtime: String,
        /// What does not fit.
        reason: String,
    },
    /// Instantiation failed.
    #[error("the module could not be instantiated: {reason}")]
    Instantiate {
        /// What wasmtime says.
        reason: String,
    },
    /// The module needs more memory than its limits allow.
    #[error("the module needs {needed_bytes} bytes of memory, its limit is {limit_bytes}")]
    MemoryLimit {
        /// What its ABI says.
        needed_bytes: u64,
        /// What the limits allow.
        limit_bytes: u64,
    },
    /// The memory of the module is not the one its ABI describes.
    #[error("the module has {actual_bytes} bytes of memory, its ABI says {abi_bytes}")]
    MemorySize {
        /// What the module has.
        actual_bytes: u64,
        /// What the ABI says.
        abi_bytes: u64,
    },
    /// Weights were given to a module without a weights region, or the other way round.
    #[error("{0}")]
    WeightsPresence(&'static str),
    /// The weights have another length than the ABI says.
    #[error("the weights have {actual_bytes} bytes, the module's ABI says {abi_bytes}")]
    WeightsSize {
        /// Length found.
        actual_bytes: u64,
        /// Length expected.
        abi_bytes: u64,
    },
    /// A file could not be opened, read or mapped.
    #[error("{what} {} failed", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A system call that no particular file is to blame for failed.
    #[error("{what} failed")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
}

/// Why an inference gave no result. After [`InferError::is_fatal`] the instance is lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InferError {
    /// The guest did something that is not allowed: read outside its memory, divided by zero,
    /// overflowed its stack, wrote to its weights.
    #[error("the module trapped: {reason}")]
    Trap {
        /// What it did.
        reason: String,
    },
    /// The guest ran for longer than its deadline.
    #[error("the module ran for longer than its deadline")]
    Deadline,
    /// An earlier call trapped or ran out of time: the memory of the guest is in no known state.
    #[error("an earlier call ended the module; it has to be loaded again")]
    Poisoned,
    /// The guest returned an error code.
    #[error("the module returned error code {0}")]
    Code(i32),
    /// The batch is 0 or larger than the module's maximum.
    #[error("batch {batch} is not in 1..={max}")]
    BadBatch {
        /// The batch asked for.
        batch: u32,
        /// The largest the module accepts.
        max: u32,
    },
    /// Another number of tensors than the module has.
    #[error("{actual} {kind} were given, the module has {expected}")]
    WrongCount {
        /// `inputs` or `outputs`.
        kind: &'static str,
        /// How many the module has.
        expected: usize,
        /// How many were given.
        actual: usize,
    },
    /// An input has another length than its shape for this batch.
    #[error(
        "input `{tensor}` has {actual_bytes} bytes, {expected_bytes} are expected for this batch"
    )]
    WrongSize {
        /// Name of the input.
        tensor: String,
        /// Length its shape gives.
        expected_bytes: usize,
        /// Length given.
        actual_bytes: usize,
    },
}

impl InferError {
    /// The instance cannot be used any more and has to be loaded again.
    pub fn is_fatal(&self) -> bool {
        match self {
            Self::Trap { .. } | Self::Deadline | Self::Poisoned => true,
            Self::Code(_)
            | Self::BadBatch { .. }
            | Self::WrongCount { .. }
            | Self::WrongSize { .. } => false,
        }
    }
}
