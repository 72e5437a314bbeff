//! Concat along an axis other than the batch.

use super::MIXES;
use super::{Call, Operator};
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

impl Operator for Concat {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let (axis, first) = (axis(node)?, node.ty(0)?);
        let mut size = 0u32;
        for index in 0..node.inputs.len() {
            let ty = node.ty(index)?;
            let other = |t: &Type| {
                (
                    t.dtype,
                    t.dims.len(),
                    t.dims
                        .iter()
                        .copied()
                        .enumerate()
                        .filter(|(i, _)| *i != axis)
                        .collect::<Vec<_>>(),
                )
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
        Ok(vec![Type::new(first.dtype, dims)])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        call.run(reference::concat::build(&call.attrs()))
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let (axis, out) = (axis(&node)?, cx.out()?);
        let size = out.dtype.size_bytes();
        // Where the order of channels last is at hand it stays: no input has to be turned.
        let last = (0..node.inputs.len()).any(|i| cx.layout(i) == Layout::Last);
        let layout = if last { Layout::Last } else { Layout::Plain };
        let order = layout.order(out.dims.len());
        let bytes = |strides: &[usize]| -> Vec<i64> {
            order.iter().map(|a| (strides[*a] * size) as i64).collect()
        };
        let strides = layout.strides(&out.item());
        let sources: Vec<_> = (0..node.inputs.len())
            .map(|i| cx.read(i, layout))
            .collect::<Result<_, _>>()?;
        let dst = cx.write(layout)?;
        let mut first = 0;
        for (index, src) in sources.into_iter().enumerate() {
            let dims = node.ty(index)?.item();
            let start = (first * strides[axis] * size) as u32;
            first += dims[axis];
            cx.push(
                Copy {
                    name: "concat",
                    src,
                    dst,
                    size,
                    dims: order.iter().map(|a| dims[*a]).collect(),
                    from: (0, bytes(&layout.strides(&dims))),
                    to: (start, bytes(&strides)),
                    fill: None,
                }
                .simplified(),
                0,
            )?;
        }
        Ok(())
    }

    fn moves(&self) -> bool {
        true
    }
}
