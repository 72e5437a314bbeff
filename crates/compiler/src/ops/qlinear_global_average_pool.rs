//! QLinearGlobalAveragePool: x, x_scale, x_zero, y_scale, y_zero.

use super::{Call, Operator, qlinear_average_pool};
use crate::lower::LowerCx;
use crate::reference;
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};

/// QLinearGlobalAveragePool.
pub(crate) struct QLinearGlobalAveragePool;

impl Operator for QLinearGlobalAveragePool {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        qlinear_average_pool::infer(node, true)
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        call.run(reference::qlinear::global_average_pool(&call.attrs()))
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        qlinear_average_pool::lower(cx, true)
    }

    fn folds(&self) -> bool {
        false
    }
}
