//! From wasm to native code for one target.

use crate::error::SandboxError;
use crate::inspect::inspect;
use crate::settings::{Settings, engine_error, runtime_key};
use sandpiper_core::abi::ModuleAbi;
use sandpiper_core::target::Target;
use wasmtime::Engine;

/// Who made a module, and so what is believed of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// This program's own compiler made it just now: its word that every loop ends is taken.
    OwnCompiler,
    /// Somebody else made it. Whatever it says of itself, it is compiled with checks that let a
    /// deadline interrupt it.
    Brought,
}

/// Native code and what goes into the manifest with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Precompiled {
    /// The code. Same module, target and version: same bytes.
    pub native: Vec<u8>,
    /// The ABI of the module; `bounded` is true only for [`Origin::OwnCompiler`].
    pub abi: ModuleAbi,
    /// Names the runtime that can load it.
    pub runtime_key: String,
}

/// The ABI of a module that keeps every rule of ABI v1; `bounded` is true only for
/// [`Origin::OwnCompiler`].
///
/// # Errors
/// [`SandboxError`] naming the rule that the module breaks.
pub fn abi_of(wasm: &[u8], origin: Origin) -> Result<ModuleAbi, SandboxError> {
    let mut abi = inspect(wasm)?;
    abi.bounded &= origin == Origin::OwnCompiler;
    Ok(abi)
}

/// Checks a module against ABI v1 and makes native code of it. Works for every target on every
/// host; the CPU of this host plays no part.
///
/// # Errors
/// [`SandboxError`] naming the rule of the ABI that the module breaks, or what the compiler says.
pub fn precompile(
    wasm: &[u8],
    target: Target,
    origin: Origin,
) -> Result<Precompiled, SandboxError> {
    let abi = abi_of(wasm, origin)?;
    let config = Settings::of(target, abi.bounded).compiling()?;
    let engine = Engine::new(&config).map_err(engine_error)?;
    let native = engine
        .precompile_module(wasm)
        .map_err(|error| SandboxError::Compile {
            target,
            reason: format!("{error:#}"),
        })?;
    Ok(Precompiled {
        native,
        runtime_key: runtime_key(target, abi.bounded),
        abi,
    })
}
