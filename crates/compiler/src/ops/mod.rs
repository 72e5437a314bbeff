//! The operators: one file each. An operator is built from a node's attributes and knows how to
//! evaluate itself on the host in plain scalar arithmetic: the oracle of the tests, and what
//! folds constants.
//!
//! To add one: write its file with a `build`, and add a line to [`build`].

mod attrs;
mod concat;
mod conv;
mod elementwise;
mod gather;
mod gemm;
mod norm;
mod pool;
mod qlinear;
mod quantize;
mod shape;
mod slice;
mod softmax;
mod transpose;
mod window;

pub(crate) use attrs::Attrs;
pub(crate) use gemm::Transposed;
pub(crate) use quantize::axis_of;
pub(crate) use slice::{Cut, cuts};
pub(crate) use window::{Fitted, Window};

use crate::tensor::Tensor;

/// Inputs of a node in order; an optional input that is left out is `None`.
pub(crate) type Inputs<'a> = [Option<&'a Tensor>];

/// An operator with its attributes.
pub(crate) trait Operator {
    /// Evaluates it. Errors are in words and name what is wrong with the inputs.
    fn eval(&self, inputs: &Inputs<'_>) -> Result<Vec<Tensor>, String>;
}

/// A built operator.
pub(crate) type Built = Result<Box<dyn Operator>, String>;

/// The input at `index`, which must be there.
pub(crate) fn required<'a>(inputs: &Inputs<'a>, index: usize) -> Result<&'a Tensor, String> {
    optional(inputs, index).ok_or_else(|| format!("input {index} is missing"))
}

/// The input at `index`, if it is there.
pub(crate) fn optional<'a>(inputs: &Inputs<'a>, index: usize) -> Option<&'a Tensor> {
    inputs.get(index).copied().flatten()
}

/// An operator that is a plain function of its inputs.
struct Plain<F>(F);

impl<F: Fn(&Inputs<'_>) -> Result<Vec<Tensor>, String>> Operator for Plain<F> {
    fn eval(&self, inputs: &Inputs<'_>) -> Result<Vec<Tensor>, String> {
        (self.0)(inputs)
    }
}

/// Wraps a function as an operator.
pub(crate) fn plain<F>(eval: F) -> Built
where
    F: Fn(&Inputs<'_>) -> Result<Vec<Tensor>, String> + 'static,
{
    Ok(Box::new(Plain(eval)))
}

/// Builds the operator of a node. `domain` is empty for ONNX's own operators.
pub(crate) fn build(domain: &str, op_type: &str, attrs: &Attrs<'_>, opset: i64) -> Built {
    match (domain, op_type) {
        ("" | "ai.onnx", name) => match name {
            "Add" => elementwise::build(|a, b| a + b),
            "Sub" => elementwise::build(|a, b| a - b),
            "Mul" => elementwise::build(|a, b| a * b),
            "Div" => elementwise::build(|a, b| a / b),
            "Relu" => elementwise::unary(|x| if x < 0.0 { 0.0 } else { x }),
            "Sigmoid" => elementwise::unary(|x| 1.0 / (1.0 + (-x).exp())),
            "Tanh" => elementwise::unary(f32::tanh),
            "Clip" => elementwise::clip(attrs),
            "AveragePool" => pool::average(attrs),
            "MaxPool" => pool::max(attrs),
            "GlobalAveragePool" => pool::global_average(),
            "BatchNormalization" => norm::batch(attrs),
            "Concat" => concat::build(attrs),
            "Constant" => shape::constant(attrs),
            "Conv" => conv::build(attrs),
            "DequantizeLinear" => quantize::dequantize(attrs),
            "QuantizeLinear" => quantize::quantize(attrs),
            "Flatten" => shape::flatten(attrs),
            "Gather" => gather::build(attrs),
            "Gemm" => gemm::build(attrs),
            "MatMul" => gemm::matmul(),
            "Identity" | "Dropout" => shape::identity(),
            "Reshape" => shape::reshape(attrs),
            "Squeeze" => shape::squeeze(attrs),
            "Unsqueeze" => shape::unsqueeze(attrs),
            "Shape" => shape::shape(attrs),
            "Slice" => slice::build(),
            "Softmax" => softmax::build(attrs, opset),
            "Transpose" => transpose::build(attrs),
            "QLinearConv" => qlinear::conv(attrs),
            "QLinearMatMul" => qlinear::matmul(),
            _ => Err("this operator is not known".into()),
        },
        ("com.microsoft", name) => match name {
            "QGemm" => qlinear::gemm(attrs),
            "QLinearAdd" => qlinear::binary(|a, b| a + b),
            "QLinearMul" => qlinear::binary(|a, b| a * b),
            "QLinearAveragePool" => qlinear::average_pool(attrs),
            "QLinearGlobalAveragePool" => qlinear::global_average_pool(attrs),
            "QLinearSoftmax" => qlinear::softmax(attrs, opset),
            "QLinearSigmoid" => qlinear::unary(|x| 1.0 / (1.0 + (-x).exp())),
            _ => Err("this operator of com.microsoft is not known".into()),
        },
        ("ai.onnx.ml", _) => {
            Err("trees and other classic models (ai.onnx.ml) are not supported".into())
        }
        (domain, _) => Err(format!("the domain `{domain}` is not known")),
    }
}
