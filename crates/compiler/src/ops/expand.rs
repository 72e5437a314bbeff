//! Expand: broadcasting to a constant shape.

use super::{Call, Operator};
use crate::lower::loops::broadcast_strides;
use crate::lower::{Layout, LowerCx};
use crate::reference::elementwise::{broadcast, source};
use crate::tensor::Tensor;
use crate::typed::{BATCH_MARK, NodeView, Type};
use sandpiper_core::tensor::Dim;

/// Expand to a constant shape.
pub(crate) struct Expand;

impl Operator for Expand {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let ty = node.ty(0)?;
        let shape = node.constant(1)?.to_i64()?;
        let dim = |d: &i64| match u32::try_from(*d) {
            _ if *d == BATCH_MARK => Ok(Dim::Batch),
            Ok(n) => Ok(Dim::Fixed(n)),
            Err(_) => Err(format!("{shape:?} is not a shape")),
        };
        let shape = Type::new(ty.dtype, shape.iter().map(dim).collect::<Result<_, _>>()?);
        let dims = crate::lower::elementwise::broadcast(ty, &shape)?;
        Ok(vec![Type::new(ty.dtype, dims)])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let x = call.input(0)?;
        let size = |d: i64| usize::try_from(d).map_err(|_| format!("a dimension of {d}"));
        let shape = call.input(1)?.to_i64()?;
        let shape: Vec<usize> = shape.into_iter().map(size).collect::<Result<_, _>>()?;
        let dims = broadcast(x.dims(), &shape)?;
        let from = dims.clone();
        Ok(vec![x.gathered(dims, |i| source(i, &from, x.dims()))?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let rank = cx.out()?.dims.len();
        let strides = broadcast_strides(&cx.ty(0)?.item(), rank);
        let strides = strides.into_iter().map(|s| s as i64).collect();
        cx.rearrange("expand", (0, Layout::Plain), (0, strides), Layout::Plain)
    }

    fn moves(&self) -> bool {
        true
    }
}
