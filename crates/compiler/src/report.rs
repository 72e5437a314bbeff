//! What a compilation made.

use sandpiper_core::tensor::{DType, Dim};
use std::collections::BTreeMap;

/// A step of the generated code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepReport {
    /// Kernel.
    pub kernel: &'static str,
    /// Nodes of the file that it does; the first gives it its name.
    pub nodes: Vec<String>,
    /// Dimensions of its result.
    pub shape: Vec<Dim>,
    /// Multiply-accumulates for one item of a batch.
    pub macs: u64,
    /// Type of its arithmetic: `F32` or `I8`.
    pub dtype: DType,
}

/// What a compilation made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Multiply-accumulates for one item, by the type of arithmetic that is used: `F32`, `I8`.
    pub macs: BTreeMap<DType, u64>,
    /// Exact size of the linear memory.
    pub memory_bytes: u64,
    /// Size of the packed weights.
    pub weights_bytes: u64,
    /// Size of the activations' arena, for one item.
    pub arena_bytes: u64,
    /// Size of the module.
    pub wasm_bytes: u64,
    /// Steps in order.
    pub steps: Vec<StepReport>,
    /// Elements of all constants of the file.
    pub params: u64,
    /// Version of ONNX's own operators.
    pub opset: i64,
}
