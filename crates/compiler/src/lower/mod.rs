//! From operators to kernels: one file per operator, with its typing and its lowering.
//!
//! To add an operator: write its file here, its evaluation in `ops`, and add a line to each
//! registry.

mod average_pool;
mod batch_normalization;
mod binary;
mod clip;
mod concat;
mod constant;
mod context;
mod conv;
mod dense;
mod dequantize_linear;
mod elementwise;
mod flatten;
mod gather;
mod gemm;
mod global_average_pool;
mod identity;
mod layout;
mod matmul;
mod max_pool;
mod pooling;
mod program;
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
mod scales;
mod shape;
mod slice;
mod softmax;
mod squeeze;
mod transpose;
mod unsqueeze;
mod window;

pub(crate) use batch_normalization::affine as batch_norm_affine;
pub(crate) use clip::limits as clip_limits;
pub(crate) use context::LowerCx;
pub(crate) use layout::Layout;
pub(crate) use program::{Buffer, Home, Program, Step};
pub(crate) use relu::LIMITS as RELU_LIMITS;

use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};

/// What the compiler has to know about an operator, besides how it is evaluated. Errors are in
/// words and name what is not supported, and the way out if there is one.
pub(crate) trait Lowering: Sync {
    /// Types of the outputs. Refuses what cannot be lowered.
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String>;

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
pub(crate) fn find(domain: &str, op_type: &str) -> Option<&'static dyn Lowering> {
    Some(match (domain, op_type) {
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
            _ => return None,
        },
        ("com.microsoft", name) => match name {
            "QGemm" => &qgemm::QGemm,
            "QLinearAdd" => &qlinear_binary::ADD,
            "QLinearMul" => &qlinear_binary::MUL,
            "QLinearAveragePool" => &qlinear_average_pool::QLinearAveragePool,
            "QLinearGlobalAveragePool" => &qlinear_global_average_pool::QLinearGlobalAveragePool,
            "QLinearSoftmax" => &qlinear_softmax::QLinearSoftmax,
            _ => return None,
        },
        _ => return None,
    })
}
