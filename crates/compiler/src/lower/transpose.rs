//! Transpose. Of channels that lie last already, to channels last, it moves nothing.

use super::{Layout, LowerCx, Lowering};
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

impl Lowering for Transpose {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let ty = node.ty(0)?;
        let dims = permutation(node)?.iter().map(|p| ty.dims[*p]).collect();
        Ok(vec![Type::new(ty.dtype, dims)])
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
