//! QLinearAveragePool: x, x_scale, x_zero, y_scale, y_zero.

use super::{Call, Operator};
use crate::kernels::Pooling;
use crate::lower::scales::{Scale, eight_bit, result_dtype};
use crate::lower::{LowerCx, pooling};
use crate::reference;
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};

/// QLinearAveragePool.
pub(crate) struct QLinearAveragePool;

/// The type of the result of a quantised mean.
pub(crate) fn infer(node: &NodeView<'_>, global: bool) -> Result<Vec<Type>, String> {
    eight_bit(node.ty(0)?.dtype)?;
    Scale::at(node, 1)?;
    Scale::at(node, 3)?;
    pooling::infer(node, global, result_dtype(node, 4)?)
}

/// Adds the kernel of a quantised mean.
pub(crate) fn lower(cx: &mut LowerCx<'_>, global: bool) -> Result<(), String> {
    let node = cx.view();
    let (x, y) = (Scale::at(&node, 1)?, Scale::at(&node, 3)?);
    let mean = Pooling::QuantizedMean {
        with_padding: !global && pooling::with_padding(&node),
        x_zero: x.zero,
        scale: x.scale / y.scale,
        y_zero: y.zero,
        dtype: cx.out()?.dtype,
    };
    pooling::lower(cx, global, mean)
}

impl Operator for QLinearAveragePool {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        infer(node, false)
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        call.run(reference::qlinear::average_pool(&call.attrs()))
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        lower(cx, false)
    }

    fn folds(&self) -> bool {
        false
    }
}
