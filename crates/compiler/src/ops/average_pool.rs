//! AveragePool.

use super::{Call, Operator};
use crate::kernels::Pooling;
use crate::lower::{LowerCx, pooling, pooling_any};
use crate::reference;
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};
use sandpiper_core::tensor::DType;

/// AveragePool.
pub(crate) struct AveragePool;

impl Operator for AveragePool {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        node.float(0)?;
        if node.ty(0)?.dims.len() > 4 {
            return Ok(vec![pooling_any::infer(node, DType::F32)?]);
        }
        pooling::infer(node, false, DType::F32)
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        call.run(reference::pool::average(&call.attrs()))
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        if cx.ty(0)?.dims.len() > 4 {
            let with_padding = pooling::with_padding(&cx.view());
            return pooling_any::lower(cx, Some(with_padding));
        }
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
