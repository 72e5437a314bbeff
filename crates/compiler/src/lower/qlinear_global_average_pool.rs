//! QLinearGlobalAveragePool: x, x_scale, x_zero, y_scale, y_zero.

use super::{LowerCx, Lowering, qlinear_average_pool};
use crate::typed::{NodeView, Type};

/// QLinearGlobalAveragePool.
pub(crate) struct QLinearGlobalAveragePool;

impl Lowering for QLinearGlobalAveragePool {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        qlinear_average_pool::infer(node, true)
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        qlinear_average_pool::lower(cx, true)
    }

    fn folds(&self) -> bool {
        false
    }
}
