//! GlobalAveragePool.

use super::{LowerCx, Lowering, pooling};
use crate::kernels::Pooling;
use crate::typed::{NodeView, Type};
use sandpiper_core::tensor::DType;

/// GlobalAveragePool.
pub(crate) struct GlobalAveragePool;

impl Lowering for GlobalAveragePool {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        node.float(0)?;
        pooling::infer(node, true, DType::F32)
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        pooling::lower(cx, true, Pooling::Mean { with_padding: true })
    }

    fn folds(&self) -> bool {
        false
    }

    fn clamps(&self) -> bool {
        true
    }
}
