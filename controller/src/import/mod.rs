//! From ONNX files and evaluation data to a signed version.
//!
//! | module | what it does |
//! |---|---|
//! | [`npz`] | reads and writes NumPy archives |
//! | [`evaluate`] | runs a variant in the sandbox: accuracy, latency, golden sample |
//! | [`build`] | compiles and measures variants, and assembles the manifest with its artefacts |
//! | [`run`] | runs one ONNX file once, arrays in and arrays out |

pub mod build;
pub mod evaluate;
pub mod npz;
pub mod run;

pub use build::{Built, ImportError, ImportRequest, VariantSource};
