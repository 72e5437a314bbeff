//! QLinearAdd and QLinearMul: a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero. Defined as
//! dequantise, compute, quantise, and computed by exactly these steps.

use super::{Call, Operator};
use crate::kernels::{Expr, Store};
use crate::lower::LowerCx;
use crate::lower::elementwise::{Term, broadcast, lower};
use crate::lower::scales::{Scale, eight_bit, result_dtype};
use crate::reference;
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};

/// A quantised operator of two operands.
pub(crate) struct QLinearBinary {
    name: &'static str,
    expr: fn(Expr, Expr) -> Expr,
    apply: fn(f32, f32) -> f32,
}

/// QLinearAdd.
pub(crate) static ADD: QLinearBinary = QLinearBinary {
    name: "add-i8",
    expr: Expr::plus,
    apply: |a, b| a + b,
};
/// QLinearMul.
pub(crate) static MUL: QLinearBinary = QLinearBinary {
    name: "mul-i8",
    expr: Expr::times,
    apply: |a, b| a * b,
};

fn real(index: usize, Scale { scale, zero }: Scale) -> Expr {
    Expr::In(index)
        .minus(Expr::Const(zero as f32))
        .times(Expr::Const(scale))
}

impl Operator for QLinearBinary {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let (a, b) = (node.ty(0)?, node.ty(3)?);
        eight_bit(a.dtype)?;
        eight_bit(b.dtype)?;
        for index in [1, 4, 6] {
            Scale::at(node, index)?;
        }
        Ok(vec![Type::new(result_dtype(node, 7)?, broadcast(a, b)?)])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        call.run(reference::qlinear::binary(self.apply))
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let [a, b, y] = [
            Scale::at(&node, 1)?,
            Scale::at(&node, 4)?,
            Scale::at(&node, 6)?,
        ];
        let result = (self.expr)(real(0, a), real(1, b));
        let expr = Expr::Cut(Box::new(result), cx.node.clamp).over(Expr::Const(y.scale));
        let store = Store::Quantized {
            dtype: cx.out()?.dtype,
            zero: y.zero,
        };
        lower(
            cx,
            self.name,
            &[Term::Input(0), Term::Input(3)],
            expr,
            store,
        )
    }
}
