//! Gather: shape arithmetic, picking channels or frames, and rows of a table.

use super::MIXES;
use super::{Call, Operator};
use crate::kernels::Copy;
use crate::lower::{Layout, LowerCx};
use crate::reference;
use crate::reference::axis_of;
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type, fixed};
use sandpiper_core::tensor::DType;

/// Gather.
pub(crate) struct Gather;

/// Most indices: each is a piece of code.
const MAX_INDICES: usize = 256;

fn parts(node: &NodeView<'_>) -> Result<(usize, Vec<usize>), String> {
    let ty = node.ty(0)?;
    let axis = axis_of(node.attrs().int("axis", 0), ty.dims.len())?;
    if axis == 0 && ty.has_batch() {
        return Err("it picks items of the batch; give the input a fixed shape".into());
    }
    let size = ty.item()[axis] as i64;
    let index = |i: &i64| {
        let at = if *i < 0 { *i + size } else { *i };
        if (0..size).contains(&at) {
            Ok(at as usize)
        } else {
            Err(format!("index {i} is outside of {size}"))
        }
    };
    let indices = node.constant(1)?.to_i64()?;
    Ok((axis, indices.iter().map(index).collect::<Result<_, _>>()?))
}

/// The type of what is picked by indices that are not known. One of both may have a batch: rows of
/// a table by the items' indices, or the same rows of each item.
fn unknown(node: &NodeView<'_>) -> Result<Vec<Type>, String> {
    let (x, at) = (node.ty(0)?, node.ty(1)?);
    if !matches!(at.dtype, DType::I32 | DType::I64) {
        return Err(format!("indices of {}", at.dtype));
    }
    let axis = axis_of(node.attrs().int("axis", 0), x.dims.len())?;
    if x.has_batch() && (axis == 0 || at.has_batch()) {
        return Err(MIXES.into());
    }
    let (outer, inner) = x.dims.split_at(axis);
    Ok(vec![Type::new(
        x.dtype,
        [outer, &at.dims, &inner[1..]].concat(),
    )])
}

impl Operator for Gather {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let at = node.input(1)?;
        if at.constant.is_none() {
            return unknown(node);
        }
        let ((axis, indices), ty) = (parts(node)?, node.ty(0)?);
        if indices.len() > MAX_INDICES && node.input(0)?.constant.is_none() {
            return Err(format!("more than {MAX_INDICES} indices are not supported"));
        }
        let (outer, inner) = ty.dims.split_at(axis);
        let picked = fixed(node.constant(1)?.dims());
        Ok(vec![Type::new(
            ty.dtype,
            [outer, &picked, &inner[1..]].concat(),
        )])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        call.run(reference::gather::build(&call.attrs()))
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        if node.input(1)?.constant.is_none() {
            let axis = axis_of(node.attrs().int("axis", 0), node.ty(0)?.dims.len())?;
            return super::lookup::gather(cx, axis);
        }
        let (axis, indices) = parts(&node)?;
        let ty = node.ty(0)?;
        let (dims, size) = (ty.item(), ty.dtype.size_bytes());
        let outer: usize = dims[..axis].iter().product();
        let inner = dims[axis + 1..].iter().product::<usize>() * size;
        let src = cx.read(0, Layout::Plain)?;
        let dst = cx.write(Layout::Plain)?;
        let count = indices.len();
        for (at, index) in indices.into_iter().enumerate() {
            let from = (
                (index * inner) as u32,
                vec![(dims[axis] * inner) as i64, size as i64],
            );
            let to = (
                (at * inner) as u32,
                vec![(count * inner) as i64, size as i64],
            );
            let dims = vec![outer, inner / size];
            cx.push(
                Copy {
                    name: "gather",
                    src,
                    dst,
                    size,
                    dims,
                    from,
                    to,
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
