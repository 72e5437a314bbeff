//! Softmax along an axis: fast along the last one (of more than one element); before opset 13 over all dimensions
//! from the axis on.

use super::MIXES;
use super::{Call, Operator};
use crate::kernels;
use crate::lower::{Layout, LowerCx};
use crate::reference;
use crate::reference::axis_of;
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};

/// Softmax.
pub(crate) struct Softmax;

/// Rows and elements of a row; the batch is not among the elements.
pub(crate) fn rows(node: &NodeView<'_>, opset: i64) -> Result<(usize, usize), String> {
    let ty = node.ty(0)?;
    let dims = ty.item();
    let axis = axis_of(
        node.attrs().int("axis", if opset >= 13 { -1 } else { 1 }),
        dims.len(),
    )?;
    if axis == 0 && ty.has_batch() {
        return Err(MIXES.into());
    }
    let (outer, inner) = dims.split_at(axis);
    if opset >= 13 && inner[1..].iter().any(|d| *d != 1) {
        return Err(format!(
            "axis {axis} of {dims:?}: only the last axis is supported"
        ));
    }
    Ok((outer.iter().product(), inner.iter().product()))
}

impl Operator for Softmax {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        super::extreme::item_axis(node, if node.opset >= 13 { -1 } else { 1 })?;
        Ok(vec![node.float(0)?.clone()])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        call.run(reference::softmax::build(&call.attrs(), call.opset))
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let Ok((rows, len)) = rows(&node, node.opset) else {
            return super::lanes::softmax(cx, false);
        };
        let src = cx.read(0, Layout::Plain)?;
        let dst = cx.write(Layout::Plain)?;
        cx.push(
            kernels::Softmax {
                src,
                dst,
                rows,
                len,
            },
            0,
        )
    }
}
