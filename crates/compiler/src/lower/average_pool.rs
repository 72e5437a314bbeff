//! AveragePool.

use super::{LowerCx, Lowering, pooling};
use crate::kernels::Pooling;
use crate::typed::{NodeView, Type};
use sandpiper_core::tensor::DType;

/// AveragePool.
pub(crate) struct AveragePool;

impl Lowering for AveragePool {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        node.float(0)?;
        pooling::infer(node, false, DType::F32)
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let with_padding = pooling::with_padding(&cx.view());
        pooling::lower(cx, false, Pooling::Mean { with_padding })
    }

    fn folds(&self) -> bool {
        false
    }

    fn clamps(&self) -> bool {
        true
    }
}
