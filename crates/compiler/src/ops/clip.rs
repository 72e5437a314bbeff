//! Clip: limits are attributes up to opset 10 and inputs since. NaN stays NaN.

use super::{Call, Operator};
use crate::kernels::{Expr, Store};
use crate::lower::elementwise::{Term, lower};
use crate::lower::{LowerCx, loops};
use crate::reference;
use crate::reference::numbers::{Number, numbers, zip};
use crate::tensor::Tensor;
use crate::typed::{Clamp, NodeView, Type};
use sandpiper_core::tensor::DType;

/// Clip.
pub(crate) struct Clip;

/// The limits of a Clip.
pub(crate) fn limits(node: &NodeView<'_>) -> Result<Clamp, String> {
    let limit = |index: usize, name: &str, open: f32| -> Result<f32, String> {
        let value = match node.optional_constant(index)? {
            Some(tensor) => *tensor.as_f32()?.first().ok_or("a limit is empty")?,
            None => node.attrs().float(name).unwrap_or(open),
        };
        if value.is_nan() {
            Err("a limit is not a number".into())
        } else {
            Ok(value)
        }
    };
    let clamp = Clamp {
        low: limit(1, "min", f32::NEG_INFINITY)?,
        high: limit(2, "max", f32::INFINITY)?,
    };
    Ok(clamp)
}

/// Whether it cuts floats to constant limits, which other kernels can take over.
fn constant(node: &NodeView<'_>) -> bool {
    node.float(0).is_ok() && limits(node).is_ok()
}

/// Integers, or limits that are known only when the module runs.
fn program(cx: &mut LowerCx<'_>) -> Result<(), String> {
    let node = cx.view();
    let given: Vec<usize> = [1, 2]
        .into_iter()
        .filter(|i| node.optional(*i).is_some())
        .collect();
    let inputs: Vec<usize> = std::iter::once(0).chain(given.iter().copied()).collect();
    loops::elementwise(cx, "clip", &inputs, &mut |_, v| {
        let limits = given.iter().zip(&v[1..]);
        limits.fold(v[0].clone(), |x, (which, limit)| match which {
            1 => x.max(limit.clone()),
            _ => x.min(limit.clone()),
        })
    })
}

impl Operator for Clip {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let ty = node.ty(0)?;
        if ty.dtype == DType::Bool {
            return Err("an operand of bool".into());
        }
        if !constant(node) {
            for limit in [1, 2].into_iter().filter_map(|i| node.optional(i)) {
                if limit.ty.dtype != ty.dtype || limit.ty.elements() != 1 {
                    return Err(format!("a limit of {} {:?}", limit.ty.dtype, limit.ty.dims));
                }
            }
        }
        Ok(vec![ty.clone()])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let x = call.input(0)?;
        if x.dtype() == DType::F32 {
            return call.run(reference::elementwise::clip(&call.attrs()));
        }
        let limit = |i: usize| call.optional(i).and_then(|t| numbers(t).first().copied());
        let (low, high) = (limit(1), limit(2));
        let cut = |v: &[Number]| {
            let v = low.map_or(v[0].int(), |low| v[0].int().max(low.int()));
            Number::Int(high.map_or(v, |high| v.min(high.int())))
        };
        Ok(vec![zip(&[x], x.dtype(), &cut)?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        if !constant(&cx.view()) {
            return program(cx);
        }
        let clamp = limits(&cx.view())?.then(cx.node.clamp);
        let expr = Expr::Cut(Box::new(Expr::In(0)), clamp);
        lower(cx, "clip", &[Term::Input(0)], expr, Store::Float)
    }

    fn clamps(&self) -> bool {
        true
    }
}
