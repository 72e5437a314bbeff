//! Concat along an axis other than the batch.

use super::MIXES;
use super::{Call, Operator};
use crate::emit::Ref;
use crate::kernels::Copy;
use crate::lower::{Layout, LowerCx};
use crate::reference;
use crate::reference::axis_of;
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};
use sandpiper_core::tensor::Dim;

/// Concat.
pub(crate) struct Concat;

fn axis(node: &NodeView<'_>) -> Result<usize, String> {
    axis_of(node.attrs().int("axis", 0), node.ty(0)?.dims.len())
}

/// The type of tensors joined along an axis.
pub(super) fn joined(types: &[&Type], axis: usize) -> Result<Type, String> {
    let first = *types.first().ok_or("it has no input")?;
    let mut size = 0u32;
    for (index, ty) in types.iter().enumerate() {
        let other = |t: &Type| {
            let dims = t.dims.iter().copied().enumerate();
            let others: Vec<_> = dims.filter(|(i, _)| *i != axis).collect();
            (t.dtype, t.dims.len(), others)
        };
        if other(ty) != other(first) {
            return Err(format!(
                "input {index} of {:?} does not fit {:?}",
                ty.dims, first.dims
            ));
        }
        let Dim::Fixed(n) = ty.dims[axis] else {
            return Err(MIXES.into());
        };
        size = size.checked_add(n).ok_or("its result is too large")?;
    }
    let mut dims = first.dims.clone();
    dims[axis] = Dim::Fixed(size);
    Ok(Type::new(first.dtype, dims))
}

/// Adds the copies that join parts, each with its order and dimensions, to the first output. It lies
/// with channels last if every part does.
pub(super) fn join(
    cx: &mut LowerCx<'_>,
    axis: usize,
    parts: Vec<(Ref, Layout, Vec<usize>)>,
) -> Result<(), String> {
    let out = cx.out()?;
    let size = out.dtype.size_bytes();
    let last = parts.iter().all(|(_, layout, _)| *layout == Layout::Last);
    let layout = if last { Layout::Last } else { Layout::Plain };
    let order = layout.order(out.dims.len());
    let bytes = |strides: Vec<usize>| -> Vec<i64> {
        order.iter().map(|a| (strides[*a] * size) as i64).collect()
    };
    let strides = layout.strides(&out.item());
    let dst = cx.write(layout)?;
    let mut first = 0;
    for (src, from, dims) in parts {
        let start = (first * strides[axis] * size) as u32;
        first += dims[axis];
        let copy = Copy {
            name: "concat",
            src,
            dst,
            size,
            from: (0, bytes(from.strides(&dims))),
            to: (start, bytes(strides.clone())),
            dims: order.iter().map(|a| dims[*a]).collect(),
            fill: None,
        };
        cx.push(copy.simplified(), 0)?;
    }
    Ok(())
}

impl Operator for Concat {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let types: Result<Vec<&Type>, String> =
            (0..node.inputs.len()).map(|i| node.ty(i)).collect();
        Ok(vec![joined(&types?, axis(node)?)?])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        call.run(reference::concat::build(&call.attrs()))
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let last = |i: usize| cx.layout(i) == Layout::Last || cx.is_constant(i);
        let inputs = 0..node.inputs.len();
        // With channels last if that is how all that is computed lies.
        let layout = match inputs.clone().all(last) && !inputs.clone().all(|i| cx.is_constant(i)) {
            true => Layout::Last,
            false => Layout::Plain,
        };
        let mut parts = Vec::new();
        for i in inputs {
            parts.push((cx.read(i, layout)?, layout, node.ty(i)?.item()));
        }
        join(cx, axis(&node)?, parts)
    }

    fn moves(&self) -> bool {
        true
    }
}
