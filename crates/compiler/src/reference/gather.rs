//! Gather: elements along an axis by index.

use super::quantize::axis_of;
use super::{Built, plain, required};
use crate::onnx::Attrs;

/// Builds the operator: data, indices.
pub(crate) fn build(attrs: &Attrs<'_>) -> Built {
    let axis = attrs.int("axis", 0);
    plain(move |inputs| {
        let (x, at) = (required(inputs, 0)?, required(inputs, 1)?);
        let axis = axis_of(axis, x.dims().len())?;
        let size = x.dims()[axis] as i64;
        let resolve = |i: i64| {
            let index = if i < 0 { i.saturating_add(size) } else { i };
            usize::try_from(index).ok().filter(|n| *n < size as usize)
        };
        let indices: Option<Vec<usize>> = at.to_i64()?.into_iter().map(resolve).collect();
        let indices = indices.ok_or_else(|| format!("an index is outside of {size}"))?;
        let (outer, inner) = (&x.dims()[..axis], &x.dims()[axis + 1..]);
        let dims = [outer, at.dims(), inner].concat();
        let (inner, count): (usize, usize) = (inner.iter().product(), indices.len());
        let source = |i: usize| {
            let (row, column) = (i / inner, i % inner);
            (row / count * size as usize + indices[row % count]) * inner + column
        };
        Ok(vec![x.gathered(dims, source)?])
    })
}
