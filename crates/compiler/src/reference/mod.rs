//! Operators in plain scalar arithmetic, on the host: slow, and right by inspection.

pub(crate) mod concat;
pub(crate) mod conv;
pub(crate) mod elementwise;
pub(crate) mod gather;
pub(crate) mod gemm;
pub(crate) mod norm;
pub(crate) mod numbers;
pub(crate) mod places;
pub(crate) mod pool;
pub(crate) mod qlinear;
pub(crate) mod quantize;
pub(crate) mod shape;
pub(crate) mod slice;
pub(crate) mod softmax;
pub(crate) mod transpose;
pub(crate) mod window;

pub(crate) use gemm::Transposed;
pub(crate) use quantize::axis_of;
pub(crate) use slice::{Cut, cuts};
pub(crate) use window::{Fitted, Window};

use crate::tensor::Tensor;

/// Inputs of a node in order; an optional input that is left out is `None`.
pub(crate) type Inputs<'a> = [Option<&'a Tensor>];

/// A function of inputs. Errors are in words and name what is wrong with them.
pub(crate) type Evaluator = Box<dyn Fn(&Inputs<'_>) -> Result<Vec<Tensor>, String>>;

/// An evaluator, unless its attributes are wrong.
pub(crate) type Built = Result<Evaluator, String>;

/// The input at `index`, which must be there.
pub(crate) fn required<'a>(inputs: &Inputs<'a>, index: usize) -> Result<&'a Tensor, String> {
    optional(inputs, index).ok_or_else(|| format!("input {index} is missing"))
}

/// The input at `index`, if it is there.
pub(crate) fn optional<'a>(inputs: &Inputs<'a>, index: usize) -> Option<&'a Tensor> {
    inputs.get(index).copied().flatten()
}

/// An evaluator.
pub(crate) fn plain<F>(eval: F) -> Built
where
    F: Fn(&Inputs<'_>) -> Result<Vec<Tensor>, String> + 'static,
{
    Ok(Box::new(eval))
}
