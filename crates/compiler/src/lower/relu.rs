//! Relu. NaN stays NaN.

use super::elementwise::{Term, lower};
use super::{LowerCx, Lowering};
use crate::kernels::{Expr, Store};
use crate::typed::{Clamp, NodeView, Type};

/// Relu.
pub(crate) struct Relu;

/// The limits of Relu.
pub(crate) const LIMITS: Clamp = Clamp {
    low: 0.0,
    high: f32::INFINITY,
};

impl Lowering for Relu {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        Ok(vec![node.float(0)?.clone()])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let expr = Expr::Cut(Box::new(Expr::In(0)), LIMITS.then(cx.node.clamp));
        lower(cx, "relu", &[Term::Input(0)], expr, Store::Float)
    }

    fn clamps(&self) -> bool {
        true
    }
}
