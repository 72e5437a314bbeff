//! The operators: one file each (or a family that differs in a formula), with its typing, its
//! evaluation on the host, and its lowering to kernels.
//!
//! To add one: write its file, add a line to [`find`], and a test in `tests/`.

mod average_pool;
mod batch_normalization;
mod binary;
mod clip;
mod concat;
mod constant;
mod conv;
mod dequantize_linear;
mod flatten;
mod gather;
mod gemm;
mod global_average_pool;
mod identity;
mod matmul;
mod max_pool;
mod qgemm;
mod qlinear_average_pool;
mod qlinear_binary;
mod qlinear_conv;
mod qlinear_global_average_pool;
mod qlinear_matmul;
mod qlinear_softmax;
mod quantize_linear;
mod relu;
mod reshape;
mod shape;
mod slice;
mod softmax;
mod squeeze;
mod transpose;
mod unsqueeze;

pub(crate) use batch_normalization::affine as batch_norm_affine;
pub(crate) use clip::limits as clip_limits;
pub(crate) use relu::LIMITS as RELU_LIMITS;

use crate::lower::LowerCx;
use crate::onnx::{Attrs, NodeProto};
use crate::reference::{Built, Inputs};
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};

/// A node to be evaluated.
pub(crate) struct Call<'a> {
    /// Operator and attributes.
    pub(crate) proto: &'a NodeProto,
    /// Version of ONNX's own operators.
    pub(crate) opset: i64,
    /// Inputs in order.
    pub(crate) inputs: &'a Inputs<'a>,
}

impl<'a> Call<'a> {
    /// Attributes.
    pub(crate) fn attrs(&self) -> Attrs<'a> {
        Attrs::of(self.proto)
    }

    /// Applies a function of the reference.
    pub(crate) fn run(&self, built: Built) -> Result<Vec<Tensor>, String> {
        built?(self.inputs)
    }
}

/// What the compiler has to know about an operator. Errors are in words and name what is not
/// supported, and the way out if there is one.
pub(crate) trait Operator: Sync {
    /// Types of the outputs. Refuses what cannot be lowered.
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String>;

    /// Evaluates it in plain scalar arithmetic: folds constants, and is the oracle of the tests. So
    /// it shares with lowering how attributes are read, and nothing of how results are computed.
    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String>;

    /// Adds the kernels of the node that `cx` stands at.
    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String>;

    /// Whether it only moves elements: it then works on any type, and on the mark that stands for
    /// the batch among constants.
    fn moves(&self) -> bool {
        false
    }

    /// Whether it is folded when all of its inputs are constants.
    fn folds(&self) -> bool {
        true
    }

    /// Whether it applies the node's limits, so that a Relu or Clip can become part of it.
    fn clamps(&self) -> bool {
        false
    }

    /// Outputs that are known although the inputs are not.
    fn known(&self, _node: &NodeView<'_>) -> Result<Option<Vec<Tensor>>, String> {
        Ok(None)
    }
}

/// The operator of this name; the domain is empty for ONNX's own.
pub(crate) fn find(domain: &str, op_type: &str) -> Result<&'static dyn Operator, String> {
    Ok(match (domain, op_type) {
        ("" | "ai.onnx", name) => match name {
            "Add" => &binary::ADD,
            "Sub" => &binary::SUB,
            "Mul" => &binary::MUL,
            "Div" => &binary::DIV,
            "AveragePool" => &average_pool::AveragePool,
            "BatchNormalization" => &batch_normalization::BatchNormalization,
            "Clip" => &clip::Clip,
            "Concat" => &concat::Concat,
            "Constant" => &constant::Constant,
            "Conv" => &conv::Conv,
            "DequantizeLinear" => &dequantize_linear::DequantizeLinear,
            "Flatten" => &flatten::Flatten,
            "Gather" => &gather::Gather,
            "Gemm" => &gemm::Gemm,
            "GlobalAveragePool" => &global_average_pool::GlobalAveragePool,
            "Identity" | "Dropout" => &identity::Identity,
            "MatMul" => &matmul::MatMul,
            "MaxPool" => &max_pool::MaxPool,
            "QLinearConv" => &qlinear_conv::QLinearConv,
            "QLinearMatMul" => &qlinear_matmul::QLinearMatMul,
            "QuantizeLinear" => &quantize_linear::QuantizeLinear,
            "Relu" => &relu::Relu,
            "Reshape" => &reshape::Reshape,
            "Shape" => &shape::Shape,
            "Slice" => &slice::Slice,
            "Softmax" => &softmax::Softmax,
            "Squeeze" => &squeeze::Squeeze,
            "Transpose" => &transpose::Transpose,
            "Unsqueeze" => &unsqueeze::Unsqueeze,
            _ => return Err("this operator is not known".into()),
        },
        ("com.microsoft", name) => match name {
            "QGemm" => &qgemm::QGemm,
            "QLinearAdd" => &qlinear_binary::ADD,
            "QLinearMul" => &qlinear_binary::MUL,
            "QLinearAveragePool" => &qlinear_average_pool::QLinearAveragePool,
            "QLinearGlobalAveragePool" => &qlinear_global_average_pool::QLinearGlobalAveragePool,
            "QLinearSoftmax" => &qlinear_softmax::QLinearSoftmax,
            _ => return Err("this operator of com.microsoft is not known".into()),
        },
        ("ai.onnx.ml", _) => {
            return Err("trees and other classic models (ai.onnx.ml) are not supported".into());
        }
        (domain, _) => return Err(format!("the domain `{domain}` is not known")),
    })
}
