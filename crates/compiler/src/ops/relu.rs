//! Relu. NaN stays NaN.

use super::{Call, Operator};
use crate::kernels::{Expr, Store};
use crate::lower::LowerCx;
use crate::lower::elementwise::{Term, lower};
use crate::reference;
use crate::tensor::Tensor;
use crate::typed::{Clamp, NodeView, Type};

/// Relu.
pub(crate) struct Relu;

/// The limits of Relu.
pub(crate) const LIMITS: Clamp = Clamp {
    low: 0.0,
    high: f32::INFINITY,
};

impl Operator for Relu {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        Ok(vec![node.float(0)?.clone()])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        call.run(reference::elementwise::unary(
            |x| if x < 0.0 { 0.0 } else { x },
        ))
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let expr = Expr::Cut(Box::new(Expr::In(0)), LIMITS.then(cx.node.clamp));
        lower(cx, "relu", &[Term::Input(0)], expr, Store::Float)
    }

    fn clamps(&self) -> bool {
        true
    }
}
