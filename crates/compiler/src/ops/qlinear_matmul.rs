//! QLinearMatMul: a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero. Fast with a constant matrix
//! on the right; of two tensors known at run time a program.

use super::matmul::{columns, multiplied};
use super::matrices::{multiply, product_type, sums};
use super::{Call, Operator};
use crate::emit::range;
use crate::kernels::{Ex, Ty, Un};
use crate::lower::LowerCx;
use crate::lower::dense::product;
use crate::lower::scales::{Quantized, Scale, eight_bit, ending, result_dtype};
use crate::reference;
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};

/// QLinearMatMul.
pub(crate) struct QLinearMatMul;

/// One scale and zero point for each of a, b and y.
fn scales(node: &NodeView<'_>) -> Result<[Scale; 3], String> {
    Ok([
        Scale::at(node, 1)?,
        Scale::at(node, 4)?,
        Scale::at(node, 6)?,
    ])
}

impl Operator for QLinearMatMul {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        if columns(node, 3).is_err() {
            let (a, b) = (node.ty(0)?, node.ty(3)?);
            eight_bit(a.dtype)?;
            eight_bit(b.dtype)?;
            scales(node)?;
            return Ok(vec![product_type(a, b, result_dtype(node, 7)?)?]);
        }
        let columns = columns(node, 3)?;
        Quantized::of(node, 3, columns, |i| i % columns, Scale::at(node, 6)?.scale)?;
        Ok(vec![multiplied(node, columns, result_dtype(node, 7)?)?])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let zero = |i: usize| call.optional(i).map_or(Ok(vec![0]), Tensor::to_i64);
        let (a_zero, b_zero) = (zero(2)?, zero(5)?);
        let (a, b) = ((call.input(0)?, &a_zero[..]), (call.input(3)?, &b_zero[..]));
        let (dims, sums) = sums(a, b)?;
        reference::qlinear::requantized_sums(call.inputs, &dims, &sums)
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let Ok(columns) = columns(&node, 3) else {
            let ([a, b, y], (low, high)) = (scales(&node)?, range(cx.out()?.dtype));
            let factor = a.scale * b.scale / y.scale;
            let finish = |sum: Ex| {
                let steps = (sum.to(Ty::Real) * Ex::Real(factor)).un(Un::Nearest);
                let least = Ex::Real((low - y.zero) as f32);
                let steps = steps.max(least).min(Ex::Real((high - y.zero) as f32));
                steps.to(Ty::Int) + Ex::Int(y.zero)
            };
            return multiply(cx, [0, 3, 2, 5], &finish);
        };
        let y = Scale::at(&node, 6)?;
        let q = Quantized::of(&node, 3, columns, |i| i % columns, y.scale)?;
        let inner = q.values.len() / columns;
        let rows = node.ty(0)?.elements() / inner;
        let weight = |column: usize, k: usize, _: usize| q.values[k * columns + column] as f32;
        let finish = ending(cx, q.multipliers.clone(), Some(y))?;
        let terms = q.terms(columns, |i| i % columns, None, &weight, finish)?;
        product(cx, [rows, columns, inner], &terms)
    }

    fn folds(&self) -> bool {
        false
    }
}
