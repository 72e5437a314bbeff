//! QLinearMatMul: a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero.

use super::matmul::{columns, multiplied};
use super::{Call, Operator};
use crate::lower::LowerCx;
use crate::lower::dense::product;
use crate::lower::scales::{Quantized, Scale, ending, result_dtype};
use crate::reference;
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};

/// QLinearMatMul.
pub(crate) struct QLinearMatMul;

impl Operator for QLinearMatMul {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let columns = columns(node, 3)?;
        Quantized::of(node, 3, columns, |i| i % columns, Scale::at(node, 6)?.scale)?;
        Ok(vec![multiplied(node, columns, result_dtype(node, 7)?)?])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        call.run(reference::qlinear::matmul())
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let columns = columns(&node, 3)?;
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
