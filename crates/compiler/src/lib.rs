//! From an ONNX file to a sandboxed module: typed graph, memory plan, wasm code and packed weights.
//!
//! [`compile()`] makes a module that keeps ABI v1 of `sandpiper_core::abi`, and its weights;
//! [`evaluate`] computes the same model in plain scalar arithmetic, which tests hold it against.
//!
//! | module | what it holds |
//! |---|---|
//! | `onnx` | the file format: messages, bounds, tensors; [`build`] writes files |
//! | `ops` | the operators, a file each: typing, evaluation, lowering |
//! | `graph`, `eval`, `reference` | the graph as it was imported, evaluated in scalar arithmetic |
//! | `typed` | the graph that is compiled: every value has a type, constants are folded |
//! | `rewrite` | quantised dialects to one integer form, batch norm and activations fused |
//! | `lower` | what lowering needs: the program, layouts, what families of operators share |
//! | `kernels` | what generated code consists of: convolution, pooling, elementwise .. |
//! | `plan` | an address for everything, and the exact memory |
//! | `emit` | functions, vector idioms, the module |
//!
//! To add an operator: a file of `ops`, a line in its registry, and a test.
//!
//! No input makes it panic: files are bounded, decoded with checks, and refused with a message.

mod compile;
mod emit;
mod error;
mod eval;
mod graph;
mod kernels;
mod lower;
mod math;
mod onnx;
mod ops;
mod options;
mod plan;
mod reference;
mod report;
mod rewrite;
pub mod tensor;
mod typed;

pub use compile::{Compiled, check, compile, evaluate};
pub use error::{CompileError, Refusal};
pub use onnx::build;
pub use options::{MAX_BATCH, Options};
pub use report::{Report, StepReport};
pub use tensor::Tensor;

use sandpiper_core::tensor::TensorSpec;
use std::collections::BTreeMap;

/// A model that was read and whose every operator is known.
pub struct Model(graph::Graph);

/// What a model is, before it is compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Inputs, with a free first dimension as the batch.
    pub inputs: Vec<TensorSpec>,
    /// Names of the outputs.
    pub outputs: Vec<String>,
    /// Number of nodes by operator.
    pub operators: BTreeMap<String, usize>,
    /// Elements of all constants.
    pub params: u64,
    /// Version of ONNX's own operators.
    pub opset: i64,
}

impl Model {
    /// Reads an ONNX file.
    ///
    /// # Errors
    /// [`CompileError`]: not an ONNX file, too large, or with operators that are not supported,
    /// all of which are listed.
    pub fn read(onnx: &[u8]) -> Result<Self, CompileError> {
        graph::Graph::import(onnx).map(Self)
    }

    /// What it is.
    pub fn summary(&self) -> Summary {
        let mut operators = BTreeMap::new();
        for node in &self.0.nodes {
            *operators.entry(node.operator.clone()).or_insert(0) += 1;
        }
        Summary {
            inputs: self.0.inputs.iter().map(|(spec, _)| spec.clone()).collect(),
            outputs: self
                .0
                .outputs
                .iter()
                .map(|(name, _)| name.clone())
                .collect(),
            operators,
            params: self.0.constants.values().map(|t| t.len() as u64).sum(),
            opset: self.0.opset,
        }
    }

    /// Evaluates it in plain scalar arithmetic: slow, and right by inspection.
    ///
    /// # Errors
    /// [`CompileError`] when an input is missing, superfluous or of another type or shape, or
    /// when a node cannot take the shapes that reach it.
    pub fn evaluate(
        &self,
        inputs: &BTreeMap<String, Tensor>,
    ) -> Result<BTreeMap<String, Tensor>, CompileError> {
        eval::evaluate(&self.0, inputs)
    }
}
