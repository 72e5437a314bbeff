//! Add, Sub, Mul, Div.

use super::{Call, Operator};
use crate::kernels::{Expr, Store};
use crate::lower::LowerCx;
use crate::lower::elementwise::{Term, broadcast, lower};
use crate::reference;
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};
use sandpiper_core::tensor::DType;

/// An operator of two operands.
pub(crate) struct Binary {
    name: &'static str,
    expr: fn(Expr, Expr) -> Expr,
    apply: fn(f32, f32) -> f32,
}

/// Add.
pub(crate) static ADD: Binary = Binary {
    name: "add",
    expr: Expr::plus,
    apply: |a, b| a + b,
};
/// Sub.
pub(crate) static SUB: Binary = Binary {
    name: "sub",
    expr: Expr::minus,
    apply: |a, b| a - b,
};
/// Mul.
pub(crate) static MUL: Binary = Binary {
    name: "mul",
    expr: Expr::times,
    apply: |a, b| a * b,
};
/// Div.
pub(crate) static DIV: Binary = Binary {
    name: "div",
    expr: Expr::over,
    apply: |a, b| a / b,
};

impl Operator for Binary {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let dims = broadcast(node.float(0)?, node.float(1)?)?;
        Ok(vec![Type::new(DType::F32, dims)])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        call.run(reference::elementwise::build(self.apply))
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let result = (self.expr)(Expr::In(0), Expr::In(1));
        let expr = Expr::Cut(Box::new(result), cx.node.clamp);
        lower(
            cx,
            self.name,
            &[Term::Input(0), Term::Input(1)],
            expr,
            Store::Float,
        )
    }

    fn clamps(&self) -> bool {
        true
    }
}
