//! GlobalAveragePool.

use super::{Call, Operator};
use crate::kernels::Pooling;
use crate::lower::{LowerCx, pooling};
use crate::reference;
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};
use sandpiper_core::tensor::DType;

/// GlobalAveragePool.
pub(crate) struct GlobalAveragePool;

impl Operator for GlobalAveragePool {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        node.float(0)?;
        pooling::infer(node, true, DType::F32)
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        call.run(reference::pool::global_average())
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
