//! MaxPool, without the indices; of bytes as well, since their order is that of what they stand
//! for.

use super::{Call, Operator};
use crate::kernels::Pooling;
use crate::lower::{LowerCx, pooling};
use crate::reference;
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};
use sandpiper_core::tensor::DType;

/// MaxPool.
pub(crate) struct MaxPool;

impl Operator for MaxPool {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let dtype = node.ty(0)?.dtype;
        if !matches!(dtype, DType::F32 | DType::I8 | DType::U8) {
            return Err(format!("elements of {dtype} are not supported"));
        }
        pooling::infer(node, false, dtype)
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        call.run(reference::pool::max(&call.attrs()))
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        pooling::lower(cx, false, Pooling::Max)
    }

    fn folds(&self) -> bool {
        false
    }
}
