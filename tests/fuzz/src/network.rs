//! A model as nodes over values of known shape.

use anyhow::{Result, anyhow};
use sandpiper_compiler::Tensor;
use sandpiper_compiler::build::{Attribute, ModelBuilder};
use sandpiper_core::tensor::DType;
use std::collections::BTreeMap;

/// Version of ONNX's own operators that is used.
pub const OPSET: i64 = 17;

/// A node with one output.
#[derive(Debug, Clone)]
pub struct Node {
    /// Operator.
    pub operator: &'static str,
    /// Names of values and constants.
    pub inputs: Vec<String>,
    /// Name of its value.
    pub output: String,
    /// Attributes.
    pub attributes: Vec<(&'static str, Attribute)>,
}

/// A network of f32 with one input.
#[derive(Debug, Clone)]
pub struct Network {
    /// The input and its value; the first dimension is a batch of 1.
    pub input: (String, Tensor),
    /// Whether the file leaves the batch free.
    pub free_batch: bool,
    /// Constants by name.
    pub constants: BTreeMap<String, Tensor>,
    /// Nodes in order.
    pub nodes: Vec<Node>,
    /// Names of the outputs.
    pub outputs: Vec<String>,
}

/// A file, the value of its only input, and how near results must be.
#[derive(Debug, Clone)]
pub struct Case {
    /// ONNX.
    pub onnx: Vec<u8>,
    /// Value of the input.
    pub input: Tensor,
    /// Operators in order, to say what a finding is about.
    pub operators: Vec<&'static str>,
    /// Whether activations go through quantisation.
    pub quantised: bool,
    /// How near results must be.
    pub tolerance: Tolerance,
}

/// How far a result may be off, as a share of the largest value of the reference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// At any element.
    pub largest: f64,
    /// In the mean.
    pub mean: f64,
}

impl Network {
    /// A file with the input and constants of this network, to which nodes are added.
    pub fn header(&self) -> ModelBuilder {
        let (name, value) = &self.input;
        let size = |d: &usize| u32::try_from(*d).ok();
        let mut dims: Vec<Option<u32>> = value.dims().iter().map(size).collect();
        if self.free_batch {
            dims[0] = None;
        }
        ModelBuilder::new(OPSET).input(name, DType::F32, &dims)
    }

    /// The file.
    pub fn onnx(&self) -> Vec<u8> {
        let mut file = self.header();
        for (name, tensor) in &self.constants {
            file = file.constant(name, tensor);
        }
        for node in &self.nodes {
            file = add(file, node);
        }
        for output in &self.outputs {
            file = file.output(output);
        }
        file.finish()
    }

    /// Every value of the network, by the compiler's scalar evaluation.
    ///
    /// # Errors
    /// When the network is not valid.
    pub fn values(&self) -> Result<BTreeMap<String, Tensor>> {
        let all = Self {
            outputs: self.nodes.iter().map(|n| n.output.clone()).collect(),
            ..self.clone()
        };
        let inputs = BTreeMap::from([self.input.clone()]);
        let mut values = sandpiper_compiler::evaluate(&all.onnx(), &Default::default(), &inputs)
            .map_err(|e| anyhow!("{e}"))?;
        values.extend(inputs);
        Ok(values)
    }

    /// As something to be run.
    pub fn case(&self) -> Case {
        Case {
            onnx: self.onnx(),
            input: self.input.1.clone(),
            operators: self.nodes.iter().map(|n| n.operator).collect(),
            quantised: false,
            // Engines sum in other orders, and compute exponentials to other precisions.
            tolerance: Tolerance {
                largest: 1e-4,
                mean: 1e-5,
            },
        }
    }
}

/// Adds a node to a file.
pub fn add(file: ModelBuilder, node: &Node) -> ModelBuilder {
    let inputs: Vec<&str> = node.inputs.iter().map(String::as_str).collect();
    let attributes = node.attributes.iter().cloned();
    file.node(node.operator, &inputs, &[&node.output], attributes)
}
