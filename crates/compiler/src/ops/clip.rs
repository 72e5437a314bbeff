//! Clip: limits are attributes up to opset 10 and constant inputs since. NaN stays NaN.

use super::{Call, Operator};
use crate::kernels::{Expr, Store};
use crate::lower::LowerCx;
use crate::lower::elementwise::{Term, lower};
use crate::reference;
use crate::tensor::Tensor;
use crate::typed::{Clamp, NodeView, Type};

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

impl Operator for Clip {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        limits(node)?;
        Ok(vec![node.float(0)?.clone()])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        call.run(reference::elementwise::clip(&call.attrs()))
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let clamp = limits(&cx.view())?.then(cx.node.clamp);
        let expr = Expr::Cut(Box::new(Expr::In(0)), clamp);
        lower(cx, "clip", &[Term::Input(0)], expr, Store::Float)
    }

    fn clamps(&self) -> bool {
        true
    }
}
