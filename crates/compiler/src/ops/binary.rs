//! Add, Sub, Mul, Div, of floats or integers. Integers wrap around; a quotient by 0 is 0.

use super::{Call, Operator};
use crate::kernels::{Ex, Expr, Store};
use crate::lower::elementwise::{Term, broadcast, lower};
use crate::lower::{LowerCx, loops};
use crate::reference;
use crate::reference::numbers::{self, Number};
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};
use sandpiper_core::tensor::DType;

/// An operator of two operands.
pub(crate) struct Binary {
    name: &'static str,
    expr: fn(Expr, Expr) -> Expr,
    apply: fn(f32, f32) -> f32,
    integers: fn(i64, i64) -> i64,
    program: fn(Ex, Ex) -> Ex,
}

/// Add.
pub(crate) static ADD: Binary = Binary {
    name: "add",
    expr: Expr::plus,
    apply: |a, b| a + b,
    integers: i64::wrapping_add,
    program: |a, b| a + b,
};
/// Sub.
pub(crate) static SUB: Binary = Binary {
    name: "sub",
    expr: Expr::minus,
    apply: |a, b| a - b,
    integers: i64::wrapping_sub,
    program: |a, b| a - b,
};
/// Mul.
pub(crate) static MUL: Binary = Binary {
    name: "mul",
    expr: Expr::times,
    apply: |a, b| a * b,
    integers: i64::wrapping_mul,
    program: |a, b| a * b,
};
/// Div.
pub(crate) static DIV: Binary = Binary {
    name: "div",
    expr: Expr::over,
    apply: |a, b| a / b,
    integers: |a, b| if b == 0 { 0 } else { a.wrapping_div(b) },
    program: Ex::divided,
};

impl Operator for Binary {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let (a, b) = (node.ty(0)?, node.ty(1)?);
        if a.dtype != b.dtype || a.dtype == DType::Bool {
            return Err(format!("operands of {} and {}", a.dtype, b.dtype));
        }
        Ok(vec![Type::new(a.dtype, broadcast(a, b)?)])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let a = call.input(0)?;
        if a.dtype() == DType::F32 {
            return call.run(reference::elementwise::build(self.apply));
        }
        let pair = |v: &[Number]| Number::Int((self.integers)(v[0].int(), v[1].int()));
        Ok(vec![numbers::zip(&[a, call.input(1)?], a.dtype(), &pair)?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        if cx.out()?.dtype != DType::F32 {
            return loops::elementwise(cx, self.name, &[0, 1], &mut |_, v| {
                (self.program)(v[0].clone(), v[1].clone())
            });
        }
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

    // Only floats are ever cut: a Relu or Clip of integers is not fused.
    fn clamps(&self) -> bool {
        true
    }
}
