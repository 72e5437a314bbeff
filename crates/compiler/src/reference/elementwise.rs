//! Elementwise operators with broadcasting.

use super::window::unravel;
use super::{Built, optional, plain, required};
use crate::onnx::Attrs;
use crate::tensor::{Data, Tensor};

/// Dimensions of two broadcast operands, by the rules of numpy.
pub(crate) fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>, String> {
    let rank = a.len().max(b.len());
    let at = |dims: &[usize], i: usize| (i + dims.len()).checked_sub(rank).map_or(1, |i| dims[i]);
    let dim = |i| match (at(a, i), at(b, i)) {
        (x, y) if x == y => Ok(x),
        (1, y) => Ok(y),
        (x, 1) => Ok(x),
        _ => Err(format!("{a:?} and {b:?} cannot be broadcast")),
    };
    (0..rank).map(dim).collect()
}

/// The element of an operand of `dims` that element `index` of the broadcast `out` uses.
pub(crate) fn source(index: usize, out: &[usize], dims: &[usize]) -> usize {
    let place = unravel(index, out);
    let place = &place[out.len() - dims.len()..];
    dims.iter()
        .zip(place)
        .fold(0, |at, (d, p)| at * d + if *d == 1 { 0 } else { *p })
}

/// Applies `f` to every pair.
pub(crate) fn zip(a: &Tensor, b: &Tensor, f: fn(f32, f32) -> f32) -> Result<Tensor, String> {
    let dims = broadcast(a.dims(), b.dims())?;
    let (x, y) = (a.as_f32()?, b.as_f32()?);
    let n = crate::tensor::elements(&dims).ok_or("the output is too large")?;
    let one = |i| f(x[source(i, &dims, a.dims())], y[source(i, &dims, b.dims())]);
    Tensor::f32(&dims, (0..n).map(one).collect())
}

/// Two operands.
pub(crate) fn build(f: fn(f32, f32) -> f32) -> Built {
    plain(move |inputs| Ok(vec![zip(required(inputs, 0)?, required(inputs, 1)?, f)?]))
}

/// Applies `f` to every element.
pub(crate) fn map(x: &Tensor, f: impl Fn(f32) -> f32) -> Result<Tensor, String> {
    Tensor::new(
        x.dims().to_vec(),
        Data::F32(x.as_f32()?.iter().map(|v| f(*v)).collect()),
    )
}

/// One operand.
pub(crate) fn unary(f: fn(f32) -> f32) -> Built {
    plain(move |inputs| Ok(vec![map(required(inputs, 0)?, f)?]))
}

/// Clip: limits are attributes up to opset 10 and inputs since.
pub(crate) fn clip(attrs: &Attrs<'_>) -> Built {
    let (low, high) = (attrs.float("min"), attrs.float("max"));
    plain(move |inputs| {
        let limit = |index: usize, attr: Option<f32>, open: f32| -> Result<f32, String> {
            match optional(inputs, index) {
                Some(t) => t
                    .as_f32()?
                    .first()
                    .copied()
                    .ok_or_else(|| "a limit is empty".into()),
                None => Ok(attr.unwrap_or(open)),
            }
        };
        let low = limit(1, low, f32::NEG_INFINITY)?;
        let high = limit(2, high, f32::INFINITY)?;
        Ok(vec![map(required(inputs, 0)?, |x| x.max(low).min(high))?])
    })
}
