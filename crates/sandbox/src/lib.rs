//! wasmtime behind one door: native code per target, mapped weights, limits, deadlines.
//!
//! A variant reaches a device as native code made ahead of time; a device carries no compiler.
//! With the default features this crate loads such code ([`Instance::load`]), runs it
//! ([`Instance::infer`]) and locks its process down ([`lockdown`]). With the feature `compile`
//! it also makes the code (`precompile`) and runs a module on the spot (`run_once`).
//!
//! | module | what it holds |
//! |---|---|
//! | `settings` | the one engine configuration of both sides, and the key that names it |
//! | `instance` | loading and running one module |
//! | `crew`, `pages` | several instances over the same pages, each doing its part of a step |
//! | `weights` | the weights file, mapped in place into the linear memory |
//! | `limits`, `watchdog` | what a guest may take: memory and time |
//! | [`lockdown`] | what a process gives up once its module is loaded |
//! | `host` | what this CPU can run |
//! | `inspect`, `precompile`, `once` | feature `compile`: from wasm to native code |
//!
//! **Trust.** Native code is machine code: wasmtime runs whatever bytes it is given, and notices
//! neither flipped bits nor malice. Only bytes whose digest was verified against a signed manifest
//! may reach [`Instance::load`].

mod crew;
mod error;
mod host;
#[cfg(feature = "compile")]
mod inspect;
mod instance;
mod limits;
pub mod lockdown;
#[cfg(feature = "compile")]
mod once;
mod pages;
#[cfg(feature = "compile")]
mod precompile;
mod settings;
mod watchdog;
mod weights;

pub use crew::{Crew, MAX_WORKERS};
pub use error::{InferError, SandboxError};
pub use host::{host_cpu_features, host_target};
pub use instance::{Instance, LoadSpec, Native, Weights, check_inputs};
pub use limits::Limits;
#[cfg(feature = "compile")]
pub use once::{RunError, load_wasm, run_once};
#[cfg(feature = "compile")]
pub use precompile::{Origin, Precompiled, abi_of, precompile};
pub use settings::{COMPILER_EPOCH, runtime_key};
