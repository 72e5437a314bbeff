//! Min, Max, Sum, Mean of any number of operands that are broadcast.

use super::{Call, Operator};
use crate::kernels::Ex;
use crate::lower::elementwise::broadcast;
use crate::lower::{LowerCx, loops};
use crate::reference::numbers::{self, Number};
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};
use sandpiper_core::tensor::DType;

/// An operator of many operands.
pub(crate) struct Variadic {
    name: &'static str,
    join: fn(Number, Number) -> Number,
    program: fn(Ex, Ex) -> Ex,
    /// Whether the result is divided by the number of operands.
    mean: bool,
}

fn lesser(a: Number, b: Number, greater: bool) -> Number {
    match (a, b) {
        (Number::Int(a), Number::Int(b)) => Number::Int(if greater { a.max(b) } else { a.min(b) }),
        (a, b) if a.float().is_nan() || b.float().is_nan() => Number::Float(f64::NAN),
        (a, b) if (a.float() > b.float()) == greater => a,
        (_, b) => b,
    }
}

fn sum(a: Number, b: Number) -> Number {
    Number::Float(a.float() + b.float())
}

/// Min.
pub(crate) static MIN: Variadic = Variadic {
    name: "min",
    join: |a, b| lesser(a, b, false),
    program: Ex::min,
    mean: false,
};
/// Max.
pub(crate) static MAX: Variadic = Variadic {
    name: "max",
    join: |a, b| lesser(a, b, true),
    program: Ex::max,
    mean: false,
};
/// Sum.
pub(crate) static SUM: Variadic = Variadic {
    name: "sum",
    join: sum,
    program: |a, b| a + b,
    mean: false,
};
/// Mean.
pub(crate) static MEAN: Variadic = Variadic {
    name: "mean",
    join: sum,
    program: |a, b| a + b,
    mean: true,
};

impl Operator for Variadic {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let mut ty = node.ty(0)?.clone();
        let floats = matches!(self.name, "sum" | "mean");
        if ty.dtype == DType::Bool || (floats && ty.dtype != DType::F32) {
            return Err(format!("operands of {}", ty.dtype));
        }
        for index in 1..node.inputs.len() {
            let other = node.ty(index)?;
            if other.dtype != ty.dtype {
                return Err(format!("operands of {} and {}", ty.dtype, other.dtype));
            }
            ty = Type::new(ty.dtype, broadcast(&ty, other)?);
        }
        Ok(vec![ty])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let all: Vec<&Tensor> = (0..call.inputs.len())
            .map(|i| call.input(i))
            .collect::<Result<_, _>>()?;
        let first = call.input(0)?;
        let count = all.len() as f64;
        let join = |v: &[Number]| {
            let joined = v[1..].iter().fold(v[0], |a, b| (self.join)(a, *b));
            match self.mean {
                true => Number::Float(joined.float() / count),
                false => joined,
            }
        };
        Ok(vec![numbers::zip(&all, first.dtype(), &join)?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let inputs: Vec<usize> = (0..cx.view().inputs.len()).collect();
        loops::elementwise(cx, self.name, &inputs, &mut |_, v| {
            let rest = v[1..].iter().cloned();
            let joined = rest.fold(v[0].clone(), |a, b| (self.program)(a, b));
            match self.mean {
                true => joined / Ex::Real(v.len() as f32),
                false => joined,
            }
        })
    }
}
