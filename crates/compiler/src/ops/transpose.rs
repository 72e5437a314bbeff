//! Transpose. Of channels that lie last already, to channels last, it moves nothing.

use super::{Call, Operator};
use crate::lower::{Layout, LowerCx};
use crate::reference;
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};

/// Transpose.
pub(crate) struct Transpose;

fn permutation(node: &NodeView<'_>) -> Result<Vec<usize>, String> {
    let rank = node.ty(0)?.dims.len();
    let perm = node
        .attrs()
        .sizes("perm")?
        .unwrap_or_else(|| (0..rank).rev().collect());
    let mut sorted = perm.clone();
    sorted.sort_unstable();
    if sorted.iter().copied().eq(0..rank) {
        Ok(perm)
    } else {
        Err(format!("{perm:?} is no permutation of {rank} dimensions"))
    }
}

impl Operator for Transpose {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let ty = node.ty(0)?;
        let dims = permutation(node)?.iter().map(|p| ty.dims[*p]).collect();
        Ok(vec![Type::new(ty.dtype, dims)])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        call.run(reference::transpose::build(&call.attrs()))
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let perm = permutation(&cx.view())?;
        let from = cx.layout(0);
        let strides = from.strides(&cx.ty(0)?.item());
        let turned = perm.iter().map(|p| strides[*p] as i64).collect();
        cx.rearrange("transpose", (0, from), (0, turned), Layout::Plain)
    }

    fn moves(&self) -> bool {
        true
    }
}
