//! MaxPool; of bytes as well, since their order is that of what they stand
//! for.

use super::{Call, Operator};
use crate::kernels::Pooling;
use crate::lower::{LowerCx, pooling, pooling_any};
use crate::reference;
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};
use sandpiper_core::tensor::DType;

/// MaxPool.
pub(crate) struct MaxPool;

/// Whether the kernel takes it: without indices, over rows and columns.
fn plain(node: &NodeView<'_>) -> bool {
    let indexed = node.proto.output.get(1).is_some_and(|o| !o.is_empty());
    !indexed && node.ty(0).is_ok_and(|ty| ty.dims.len() <= 4)
}

impl Operator for MaxPool {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let dtype = node.ty(0)?.dtype;
        if node.attrs().int("storage_order", 0) != 0 {
            return Err("storage_order is not supported".into());
        }
        if !matches!(dtype, DType::F32 | DType::I8 | DType::U8) {
            return Err(format!("elements of {dtype} are not supported"));
        }
        if !plain(node) {
            let ty = pooling_any::infer(node, dtype)?;
            let indices = Type::new(DType::I64, ty.dims.clone());
            return Ok(vec![ty, indices]);
        }
        pooling::infer(node, false, dtype)
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        if call.attrs().int("storage_order", 0) != 0 {
            return Err("storage_order is not supported".into());
        }
        call.run(reference::pool::max(&call.attrs()))
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        if !plain(&cx.view()) {
            return pooling_any::lower(cx, None);
        }
        pooling::lower(cx, false, Pooling::Max)
    }

    fn folds(&self) -> bool {
        false
    }
}
