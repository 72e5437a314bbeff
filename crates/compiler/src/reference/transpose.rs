//! Transpose.

use super::window::unravel;
use super::{Built, plain, required};
use crate::onnx::Attrs;

/// Builds the operator; without `perm` the dimensions are reversed.
pub(crate) fn build(attrs: &Attrs<'_>) -> Built {
    let perm = attrs.sizes("perm")?;
    plain(move |inputs| {
        let x = required(inputs, 0)?;
        let rank = x.dims().len();
        let perm = perm.clone().unwrap_or_else(|| (0..rank).rev().collect());
        let mut sorted = perm.clone();
        sorted.sort_unstable();
        if !sorted.iter().copied().eq(0..rank) {
            return Err(format!("{perm:?} is no permutation of {rank} dimensions"));
        }
        let dims: Vec<_> = perm.iter().map(|p| x.dims()[*p]).collect();
        let source = |index: usize| {
            let place = unravel(index, &dims);
            let mut from = vec![0; rank];
            perm.iter()
                .zip(&place)
                .for_each(|(axis, at)| from[*axis] = *at);
            x.dims().iter().zip(&from).fold(0, |at, (d, p)| at * d + p)
        };
        Ok(vec![x.gathered(dims.clone(), source)?])
    })
}
