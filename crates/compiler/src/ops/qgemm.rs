//! QGemm: a, a_scale, a_zero, b, b_scale, b_zero, c, y_scale, y_zero. Without a y scale the
//! result is in floats.

use super::gemm::{multiplied, sizes};
use super::{Call, Operator};
use crate::lower::LowerCx;
use crate::lower::dense::product;
use crate::lower::scales::{Quantized, Scale, ending, result_dtype};
use crate::reference;
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};
use sandpiper_core::tensor::DType;

/// QGemm.
pub(crate) struct QGemm;

fn y(node: &NodeView<'_>) -> Result<Option<Scale>, String> {
    node.optional(7).map(|_| Scale::at(node, 7)).transpose()
}

impl Operator for QGemm {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let (sizes @ [_, columns, _], transposed) = sizes(node, 3)?;
        let y = y(node)?;
        let dtype = if y.is_some() {
            result_dtype(node, 8)?
        } else {
            DType::F32
        };
        let y_scale = y.map_or(1.0, |y| y.scale);
        Quantized::of(
            node,
            3,
            columns,
            |i| column(i, transposed.b, sizes),
            y_scale,
        )?;
        if node
            .optional_constant(6)?
            .is_some_and(|c| c.len() != columns && c.len() != 1)
        {
            return Err(format!("C needs {columns} entries"));
        }
        Ok(vec![multiplied(node, columns, dtype)?])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        call.run(reference::qlinear::gemm(&call.attrs()))
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let (sizes @ [_, columns, _], transposed) = sizes(&node, 3)?;
        let channel_of = |i: usize| column(i, transposed.b, sizes);
        let y = y(&node)?;
        let q = Quantized::of(&node, 3, columns, channel_of, y.map_or(1.0, |y| y.scale))?;
        let weight =
            |column: usize, k: usize, _: usize| q.values[transposed.right(k, column, sizes)] as f32;
        let finish = ending(cx, q.multipliers.clone(), y)?;
        let terms = q.terms(
            columns,
            channel_of,
            node.optional_constant(6)?,
            &weight,
            finish,
        )?;
        product(cx, sizes, &terms)
    }

    fn folds(&self) -> bool {
        false
    }
}

/// The column of a flat element of the right operand.
fn column(i: usize, transposed: bool, [_, columns, inner]: [usize; 3]) -> usize {
    if transposed { i / inner } else { i % columns }
}
