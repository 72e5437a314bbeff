//! The typed graph: what is rewritten and lowered.
//!
//! Every value has an element type and dimensions, of which only the first may be the batch. The
//! items of a batch never meet: a node that would mix them is refused on import, so that code for
//! one item, run once per item, is the whole model.

pub(crate) mod control;
mod edit;
mod import;
mod input;
mod order;

pub(crate) use edit::{Uses, replacement};

use crate::onnx::Attrs;
use crate::onnx::NodeProto;
use crate::ops::Operator;
use crate::tensor::Tensor;
use sandpiper_core::tensor::{DType, Dim};
use std::rc::Rc;

/// Stands for the batch among constant integers, as the operator Shape makes them. Nothing
/// computes with it: see [`Operator::moves`].
pub(crate) const BATCH_MARK: i64 = i64::MIN + 0x5a9d;

/// Element type and dimensions of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Type {
    /// Element type.
    pub(crate) dtype: DType,
    /// Dimensions, outermost first.
    pub(crate) dims: Vec<Dim>,
}

impl Type {
    /// A type.
    pub(crate) fn new(dtype: DType, dims: Vec<Dim>) -> Self {
        Self { dtype, dims }
    }

    /// The dimensions of one item of a batch.
    pub(crate) fn item(&self) -> Vec<usize> {
        let size = |d: &Dim| match d {
            Dim::Batch => 1,
            Dim::Fixed(n) => *n as usize,
        };
        self.dims.iter().map(size).collect()
    }

    /// Elements of one item.
    pub(crate) fn elements(&self) -> usize {
        self.item().iter().product()
    }

    /// Bytes of one item.
    pub(crate) fn bytes(&self) -> usize {
        self.elements() * self.dtype.size_bytes()
    }

    /// Whether the first dimension is the batch.
    pub(crate) fn has_batch(&self) -> bool {
        self.dims.first() == Some(&Dim::Batch)
    }
}

/// Dimensions of constants.
pub(crate) fn fixed(dims: &[usize]) -> Vec<Dim> {
    // Tensors hold at most 2^28 elements, so that a dimension fits unless another one is 0.
    let size = |d: &usize| Dim::Fixed(u32::try_from(*d).unwrap_or(u32::MAX));
    dims.iter().map(size).collect()
}

/// Index of a value in its graph.
pub(crate) type ValueId = usize;

/// What flows between nodes.
#[derive(Debug, Clone)]
pub(crate) struct Value {
    /// Name in the file, or of the node that a rewrite made it for.
    pub(crate) name: String,
    /// Type.
    pub(crate) ty: Type,
    /// What it is, if that is known.
    pub(crate) constant: Option<Rc<Tensor>>,
    /// Whether it is known or will be once quantised constants are dequantised.
    pub(crate) frozen: bool,
}

/// Limits of a result, applied before it is stored: a fused Relu or Clip.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Clamp {
    /// Least value.
    pub(crate) low: f32,
    /// Greatest value.
    pub(crate) high: f32,
}

impl Clamp {
    /// No limits.
    pub(crate) const NONE: Self = Self {
        low: f32::NEG_INFINITY,
        high: f32::INFINITY,
    };

    /// These limits, then those of `other`.
    pub(crate) fn then(self, other: Self) -> Self {
        let cut = |v: f32| v.max(other.low).min(other.high);
        Self {
            low: cut(self.low),
            high: cut(self.high),
        }
    }
}

/// An operator over values.
#[derive(Clone)]
pub(crate) struct Node {
    /// Name in the file, or its place if it has none.
    pub(crate) name: String,
    /// Operator for messages, with its domain unless it is the default one.
    pub(crate) operator: String,
    /// Operator and attributes.
    pub(crate) proto: Rc<NodeProto>,
    /// How it is typed and lowered.
    pub(crate) op: &'static dyn Operator,
    /// What it reads; `None` is an optional input left out.
    pub(crate) inputs: Vec<Option<ValueId>>,
    /// What it writes; `None` is an output nobody wants.
    pub(crate) outputs: Vec<Option<ValueId>>,
    /// Limits of its result.
    pub(crate) clamp: Clamp,
    /// Names of the nodes that rewriting made part of it.
    pub(crate) fused: Vec<String>,
}

impl Node {
    /// Whether this is an operator of ONNX itself.
    pub(crate) fn is(&self, op_type: &str) -> bool {
        matches!(self.proto.domain.as_str(), "" | "ai.onnx") && self.proto.op_type == op_type
    }

    /// Its attributes.
    pub(crate) fn attrs(&self) -> Attrs<'_> {
        Attrs::of(&self.proto)
    }
}

/// A typed graph; nodes are in an order in which each reads only what is there.
pub(crate) struct Graph {
    /// Values.
    pub(crate) values: Vec<Value>,
    /// Nodes.
    pub(crate) nodes: Vec<Node>,
    /// Inputs in order.
    pub(crate) inputs: Vec<ValueId>,
    /// Outputs in order.
    pub(crate) outputs: Vec<ValueId>,
    /// Version of ONNX's own operators.
    pub(crate) opset: i64,
    /// Elements of all constants of the file.
    pub(crate) params: u64,
}

/// What an operator sees of its node when it is typed.
pub(crate) struct NodeView<'a> {
    /// Operator and attributes.
    pub(crate) proto: &'a NodeProto,
    /// Inputs in order.
    pub(crate) inputs: Vec<Option<&'a Value>>,
    /// Version of ONNX's own operators.
    pub(crate) opset: i64,
}

impl<'a> NodeView<'a> {
    /// Attributes.
    pub(crate) fn attrs(&self) -> Attrs<'a> {
        Attrs::of(self.proto)
    }

    /// The input at `index`, if it is there.
    pub(crate) fn optional(&self, index: usize) -> Option<&'a Value> {
        self.inputs.get(index).copied().flatten()
    }

    /// The input at `index`.
    pub(crate) fn input(&self, index: usize) -> Result<&'a Value, String> {
        self.optional(index)
            .ok_or_else(|| format!("input {index} is missing"))
    }

    /// The type of the input at `index`.
    pub(crate) fn ty(&self, index: usize) -> Result<&'a Type, String> {
        Ok(&self.input(index)?.ty)
    }

    /// The input at `index`, which must be a constant.
    pub(crate) fn constant(&self, index: usize) -> Result<&'a Tensor, String> {
        let known = self.input(index)?.constant.as_deref();
        known.ok_or_else(|| format!("input {index} must be a constant"))
    }

    /// Dimensions of the input at `index`, which must be a constant or become one.
    pub(crate) fn frozen(&self, index: usize) -> Result<Vec<usize>, String> {
        let value = self.input(index)?;
        if value.frozen {
            Ok(value.ty.item())
        } else {
            Err(format!("input {index} must be a constant"))
        }
    }

    /// The constant at `index`, if the input is there; an error if it is no constant.
    pub(crate) fn optional_constant(&self, index: usize) -> Result<Option<&'a Tensor>, String> {
        match self.optional(index) {
            Some(_) => self.constant(index).map(Some),
            None => Ok(None),
        }
    }

    /// The type at `index`, which must be of f32.
    pub(crate) fn float(&self, index: usize) -> Result<&'a Type, String> {
        let ty = self.ty(index)?;
        if ty.dtype == DType::F32 {
            Ok(ty)
        } else {
            Err(format!(
                "input {index} is {}, only f32 is supported here",
                ty.dtype
            ))
        }
    }
}
