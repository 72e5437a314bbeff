//! A variant's module, whoever made it: compiled from ONNX here, or brought as wasm.

use sandpiper_compiler::{CompileError, Options};
use sandpiper_core::abi::ModuleAbi;
use sandpiper_core::target::Target;
use sandpiper_core::tensor::DType;
use sandpiper_sandbox::{Instance, Origin, Precompiled, SandboxError, load_wasm, precompile};
use std::collections::BTreeMap;
use std::time::Duration;

/// What every wasm file begins with.
const WASM_MAGIC: &[u8] = b"\0asm";

/// A module that keeps the ABI, with what is known of it.
#[derive(Debug, Clone)]
pub struct Module {
    /// The wasm.
    pub wasm: Vec<u8>,
    /// Bytes of the region that its ABI calls weights; empty without one.
    pub weights: Vec<u8>,
    /// Places of the tensors; `bounded` only for our own compiler.
    pub abi: ModuleAbi,
    /// Multiply-adds of one item by type. A brought module does not tell.
    pub macs: BTreeMap<DType, u64>,
    /// Number of parameters. A brought module does not tell.
    pub params: u64,
    origin: Origin,
}

/// Why a file is no module.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// The ONNX file is refused.
    #[error("it does not compile")]
    Compile(#[from] CompileError),
    /// The sandbox refuses the module.
    #[error("the sandbox refuses it")]
    Sandbox(#[from] SandboxError),
    /// An ONNX file carries its weights.
    #[error("an ONNX file brings its weights itself: --weights is for modules of wasm")]
    Weights,
}

impl Module {
    /// A module of the bytes of an ONNX file, which is compiled, or of a wasm file, which is held
    /// against the ABI. `weights`: those of a brought module.
    ///
    /// # Errors
    /// [`ModuleError`].
    pub fn of(file: &[u8], weights: Option<&[u8]>, options: &Options) -> Result<Self, ModuleError> {
        if file.starts_with(WASM_MAGIC) {
            return Self::brought(file, weights.unwrap_or_default());
        }
        if weights.is_some() {
            return Err(ModuleError::Weights);
        }
        let compiled = sandpiper_compiler::compile(file, options)?;
        Ok(Self {
            wasm: compiled.wasm,
            weights: compiled.weights,
            abi: compiled.abi,
            macs: compiled.report.macs,
            params: compiled.report.params,
            origin: Origin::OwnCompiler,
        })
    }

    fn brought(wasm: &[u8], weights: &[u8]) -> Result<Self, ModuleError> {
        let origin = Origin::Brought;
        Ok(Self {
            wasm: wasm.to_vec(),
            weights: weights.to_vec(),
            abi: sandpiper_sandbox::abi_of(wasm, origin)?,
            macs: BTreeMap::new(),
            params: 0,
            origin,
        })
    }

    /// Makes it runnable here.
    ///
    /// # Errors
    /// [`SandboxError`], also when the weights are not those that the ABI names.
    pub fn load(&self, deadline: Duration) -> Result<Instance, SandboxError> {
        load_wasm(&self.wasm, &self.weights, self.origin, deadline)
    }

    /// Native code for a target.
    ///
    /// # Errors
    /// [`SandboxError`].
    pub fn native(&self, target: Target) -> Result<Precompiled, SandboxError> {
        precompile(&self.wasm, target, self.origin)
    }
}
