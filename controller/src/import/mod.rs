//! From files of ONNX or wasm and evaluation data to a signed version.
//!
//! | module | what it does |
//! |---|---|
//! | [`npz`] | reads and writes NumPy archives |
//! | [`evaluate`] | runs a variant in the sandbox: accuracy, latency, golden sample |
//! | [`build`] | compiles and measures variants, and assembles the manifest with its artefacts |
//! | [`module`] | a module of a file: compiled from ONNX, or brought as wasm |
//! | [`run`] | runs one file once, arrays in and arrays out |

pub mod build;
pub mod evaluate;
pub mod module;
pub mod npz;
pub mod run;

pub use build::{Built, ImportError, ImportRequest, VariantSource};
