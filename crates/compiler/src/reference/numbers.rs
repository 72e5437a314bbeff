//! Elements of any type as 64-bit numbers, and back.

use super::elementwise::{broadcast, source};
use crate::tensor::{Data, Tensor, elements};
use sandpiper_core::tensor::DType;

/// A number of either kind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Number {
    /// Of f32.
    Float(f64),
    /// Of integers and booleans.
    Int(i64),
}

impl Number {
    /// As a float.
    pub(crate) fn float(self) -> f64 {
        match self {
            Self::Float(v) => v,
            Self::Int(v) => v as f64,
        }
    }

    /// As an integer: floats are truncated, and saturate.
    pub(crate) fn int(self) -> i64 {
        match self {
            Self::Float(v) => v as i64,
            Self::Int(v) => v,
        }
    }

    /// Whether it is not 0.
    pub(crate) fn truth(self) -> bool {
        match self {
            Self::Float(v) => v != 0.0,
            Self::Int(v) => v != 0,
        }
    }
}

/// All elements.
pub(crate) fn numbers(tensor: &Tensor) -> Vec<Number> {
    match tensor.data() {
        Data::F32(v) => v.iter().map(|x| Number::Float(f64::from(*x))).collect(),
        Data::I8(v) => v.iter().map(|x| Number::Int(i64::from(*x))).collect(),
        Data::U8(v) | Data::Bool(v) => v.iter().map(|x| Number::Int(i64::from(*x))).collect(),
        Data::I32(v) => v.iter().map(|x| Number::Int(i64::from(*x))).collect(),
        Data::I64(v) => v.iter().map(|x| Number::Int(*x)).collect(),
    }
}

/// A tensor of numbers; integers wrap around to the width of the type.
pub(crate) fn tensor(dtype: DType, dims: Vec<usize>, values: &[Number]) -> Result<Tensor, String> {
    let each = values.iter();
    let data = match dtype {
        DType::F32 => Data::F32(each.map(|v| v.float() as f32).collect()),
        DType::I8 => Data::I8(each.map(|v| v.int() as i8).collect()),
        DType::U8 => Data::U8(each.map(|v| v.int() as u8).collect()),
        DType::I32 => Data::I32(each.map(|v| v.int() as i32).collect()),
        DType::I64 => Data::I64(each.map(|v| v.int()).collect()),
        DType::Bool => Data::Bool(each.map(|v| u8::from(v.truth())).collect()),
    };
    Tensor::new(dims, data)
}

/// Applies a function to the elements of operands that are broadcast.
pub(crate) fn zip(
    inputs: &[&Tensor],
    dtype: DType,
    f: &dyn Fn(&[Number]) -> Number,
) -> Result<Tensor, String> {
    let mut dims = Vec::new();
    for input in inputs {
        dims = broadcast(&dims, input.dims())?;
    }
    let n = elements(&dims).ok_or("the output is too large")?;
    let all: Vec<Vec<Number>> = inputs.iter().map(|t| numbers(t)).collect();
    let mut values = Vec::with_capacity(n);
    let mut now = Vec::with_capacity(inputs.len());
    for i in 0..n {
        now.clear();
        let pairs = all.iter().zip(inputs);
        now.extend(pairs.map(|(v, t)| v[source(i, &dims, t.dims())]));
        values.push(f(&now));
    }
    tensor(dtype, dims, &values)
}
