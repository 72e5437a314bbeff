//! Split along an axis other than the batch.

use super::{Call, Operator};
use crate::kernels::Copy;
use crate::lower::{Layout, LowerCx};
use crate::onnx::Attrs;
use crate::reference::axis_of;
use crate::reference::places::{places, ravel};
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type, fixed};

/// Split along an axis other than the batch, into equal parts or parts of given sizes.
pub(crate) struct Split;

fn parts(
    attrs: &Attrs<'_>,
    given: Option<&Tensor>,
    outputs: usize,
    size: usize,
) -> Result<Vec<usize>, String> {
    let sizes = match given {
        Some(tensor) => Some(tensor.to_i64()?),
        None => attrs.ints("split"),
    };
    if let Some(sizes) = sizes {
        let sizes: Option<Vec<usize>> = sizes.iter().map(|s| usize::try_from(*s).ok()).collect();
        return sizes
            .filter(|s| s.iter().sum::<usize>() == size)
            .ok_or_else(|| format!("the parts do not add up to {size}"));
    }
    let count = usize::try_from(attrs.int("num_outputs", outputs as i64))
        .unwrap_or(0)
        .max(1);
    let each = size.div_ceil(count);
    Ok((0..count)
        .map(|i| each.min(size.saturating_sub(i * each)))
        .collect())
}

fn split_of(node: &NodeView<'_>) -> Result<(usize, Vec<usize>), String> {
    let ty = node.ty(0)?;
    let axis = super::extreme::item_axis(node, 0)?;
    let outputs = node.proto.output.len();
    let given = node.optional_constant(1)?;
    Ok((axis, parts(&node.attrs(), given, outputs, ty.item()[axis])?))
}

impl Operator for Split {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let ((axis, parts), ty) = (split_of(node)?, node.ty(0)?);
        let part = |n: &usize| {
            let mut dims = ty.dims.clone();
            dims[axis] = fixed(&[*n])[0];
            Type::new(ty.dtype, dims)
        };
        Ok(parts.iter().map(part).collect())
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let (x, attrs) = (call.input(0)?, call.attrs());
        let axis = axis_of(attrs.int("axis", 0), x.dims().len())?;
        let parts = parts(
            &attrs,
            call.optional(1),
            call.proto.output.len(),
            x.dims()[axis],
        )?;
        let mut first = 0;
        let mut all = Vec::new();
        for n in parts {
            let mut dims = x.dims().to_vec();
            dims[axis] = n;
            let sources: Vec<usize> = places(&dims)
                .map(|mut place| {
                    place[axis] += first;
                    ravel(&place, x.dims())
                })
                .collect();
            all.push(x.gathered(dims, |i| sources[i])?);
            first += n;
        }
        Ok(all)
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let ((axis, parts), ty) = (split_of(&node)?, node.ty(0)?);
        let (dims, size) = (ty.item(), ty.dtype.size_bytes());
        let bytes = |dims: &[usize]| -> Vec<i64> {
            let strides = Layout::Plain.strides(dims);
            strides.into_iter().map(|s| (s * size) as i64).collect()
        };
        let src = cx.read(0, Layout::Plain)?;
        let from = bytes(&dims);
        let mut first = 0;
        for (i, n) in parts.into_iter().enumerate() {
            let start = (first * from[axis]) as u32;
            first += n as i64;
            let Some(dst) = cx.write_output(i) else {
                continue;
            };
            let mut part = dims.clone();
            part[axis] = n;
            let kernel = Copy {
                name: "split",
                src,
                dst,
                size,
                from: (start, from.clone()),
                to: (0, bytes(&part)),
                dims: part,
                fill: None,
            };
            cx.push(kernel.simplified(), 0)?;
        }
        Ok(())
    }

    fn moves(&self) -> bool {
        true
    }
}
