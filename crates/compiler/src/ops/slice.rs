//! Slice with constant bounds (inputs since opset 10).

use super::{Call, Operator};
use crate::lower::LowerCx;
use crate::reference;
use crate::reference::{Cut, cuts};
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};
use sandpiper_core::tensor::Dim;

/// Slice.
pub(crate) struct Slice;

fn bounds(node: &NodeView<'_>) -> Result<Vec<Cut>, String> {
    let ty = node.ty(0)?;
    let constants = [node.constant(1)?, node.constant(2)?].map(|t| t.to_i64());
    let [starts, ends] = constants;
    let axes = node.optional_constant(3)?.map(|t| t.to_i64()).transpose()?;
    let steps = node.optional_constant(4)?.map(|t| t.to_i64()).transpose()?;
    let cuts = cuts(&ty.item(), &starts?, &ends?, axes, steps)?;
    if ty.has_batch() && cuts.first().is_some_and(|c| *c != Cut::whole(1)) {
        return Err("it slices the batch; give the input a fixed shape".into());
    }
    Ok(cuts)
}

impl Operator for Slice {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let ty = node.ty(0)?;
        let size = |(cut, dim): (Cut, &Dim)| match dim {
            Dim::Batch => Dim::Batch,
            Dim::Fixed(_) => Dim::Fixed(u32::try_from(cut.size).unwrap_or(u32::MAX)),
        };
        let dims = bounds(node)?.into_iter().zip(&ty.dims).map(size).collect();
        Ok(vec![Type::new(ty.dtype, dims)])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        call.run(reference::slice::build())
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let cuts = bounds(&cx.view())?;
        let layout = cx.layout(0);
        let strides = layout.strides(&cx.ty(0)?.item());
        let pairs = || cuts.iter().zip(&strides);
        let first = pairs().map(|(c, s)| c.start * s).sum();
        let steps = pairs().map(|(c, s)| c.step * *s as i64).collect();
        cx.rearrange("slice", (0, layout), (first, steps), layout)
    }

    fn moves(&self) -> bool {
        true
    }
}
