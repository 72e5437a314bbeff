//! Operators that only rename dimensions.

use super::quantize::axis_of;
use super::{Built, Inputs, optional, plain, required};
use crate::onnx::Attrs;
use crate::tensor::{Data, Tensor};

/// The value of a Constant, from any of its attributes.
pub(crate) fn constant_value(attrs: &Attrs<'_>) -> Result<Tensor, String> {
    if let Some(tensor) = attrs.tensor("value")? {
        return Ok(tensor);
    }
    if let Some(float) = attrs.float("value_float") {
        return Tensor::f32(&[], vec![float]);
    }
    if let Some(floats) = attrs.floats("value_floats") {
        return Tensor::f32(&[floats.len()], floats);
    }
    if attrs.has("value_int") {
        return Tensor::new(Vec::new(), Data::I64(vec![attrs.int("value_int", 0)]));
    }
    if let Some(ints) = attrs.ints("value_ints") {
        return Tensor::new(vec![ints.len()], Data::I64(ints));
    }
    Err("only a tensor, floats or integers are supported".into())
}

/// The dimensions that Shape gives, of all: from `start` to `end`.
pub(crate) fn shape_range(attrs: &Attrs<'_>, rank: usize) -> std::ops::Range<usize> {
    let (rank, whole) = (rank as i64, rank);
    let resolve = |at: i64| if at < 0 { at + rank } else { at }.clamp(0, rank) as usize;
    let start = resolve(attrs.int("start", 0));
    let end = if attrs.has("end") {
        resolve(attrs.int("end", 0))
    } else {
        whole
    };
    start..end.max(start)
}

/// Shape.
pub(crate) fn shape(dims: &[usize], attrs: &Attrs<'_>) -> Result<Tensor, String> {
    let dims = &dims[shape_range(attrs, dims.len())];
    let longs = dims.iter().map(|d| *d as i64).collect();
    Tensor::new(vec![dims.len()], Data::I64(longs))
}

/// Flatten to a matrix.
pub(crate) fn flatten(attrs: &Attrs<'_>) -> Built {
    let axis = attrs.int("axis", 1);
    plain(move |inputs| {
        let x = required(inputs, 0)?;
        let rank = x.dims().len();
        let axis = if axis == rank as i64 {
            rank
        } else {
            axis_of(axis, rank)?
        };
        let (outer, inner) = x.dims().split_at(axis);
        Ok(vec![x.reshaped(vec![
            outer.iter().product(),
            inner.iter().product(),
        ])?])
    })
}

/// Reshape: 0 keeps a dimension, -1 takes the rest.
pub(crate) fn reshape(attrs: &Attrs<'_>) -> Built {
    let literal_zero = attrs.int("allowzero", 0) != 0;
    plain(move |inputs| {
        let x = required(inputs, 0)?;
        let wanted = required(inputs, 1)?.to_i64()?;
        let mut dims = Vec::new();
        let mut open = None;
        for (i, want) in wanted.iter().enumerate() {
            dims.push(match *want {
                -1 if open.is_none() => {
                    open = Some(i);
                    1
                }
                0 if !literal_zero => *x.dims().get(i).ok_or("0 stands for no dimension")?,
                n => usize::try_from(n).map_err(|_| format!("{wanted:?} is not a shape"))?,
            });
        }
        if let Some(open) = open {
            let known = crate::tensor::elements(&dims)
                .filter(|n| *n > 0)
                .ok_or("-1 has no meaning")?;
            dims[open] = x.len() / known;
        }
        Ok(vec![x.reshaped(dims)?])
    })
}

/// Axes: an attribute up to opset 12, an input since.
fn axes(attr: Option<&Vec<i64>>, inputs: &Inputs<'_>) -> Result<Option<Vec<i64>>, String> {
    optional(inputs, 1).map_or_else(|| Ok(attr.cloned()), |t| t.to_i64().map(Some))
}

/// Squeeze.
pub(crate) fn squeeze(attrs: &Attrs<'_>) -> Built {
    let attr = attrs.ints("axes");
    plain(move |inputs| {
        let x = required(inputs, 0)?;
        let rank = x.dims().len();
        let drop: Vec<usize> = match axes(attr.as_ref(), inputs)? {
            Some(axes) => axes
                .iter()
                .map(|a| axis_of(*a, rank))
                .collect::<Result<_, _>>()?,
            None => (0..rank).filter(|i| x.dims()[*i] == 1).collect(),
        };
        let kept = x
            .dims()
            .iter()
            .enumerate()
            .filter(|(i, _)| !drop.contains(i));
        Ok(vec![x.reshaped(kept.map(|(_, d)| *d).collect())?])
    })
}

/// Unsqueeze.
pub(crate) fn unsqueeze(attrs: &Attrs<'_>) -> Built {
    let attr = attrs.ints("axes");
    plain(move |inputs| {
        let x = required(inputs, 0)?;
        let axes = axes(attr.as_ref(), inputs)?.ok_or("axes are missing")?;
        let rank = x.dims().len() + axes.len();
        let new: Vec<usize> = axes
            .iter()
            .map(|a| axis_of(*a, rank))
            .collect::<Result<_, _>>()?;
        let mut old = x.dims().iter().copied();
        let dims = (0..rank).map(|i| {
            if new.contains(&i) {
                1
            } else {
                old.next().unwrap_or(1)
            }
        });
        Ok(vec![x.reshaped(dims.collect())?])
    })
}
