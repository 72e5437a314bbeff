//! Places of elements in arrays.

use super::window::unravel;

/// Every place of an array of these extents, in row-major order.
pub(crate) fn places(dims: &[usize]) -> impl Iterator<Item = Vec<usize>> {
    let total: usize = dims.iter().product();
    let dims = dims.to_vec();
    (0..total).map(move |flat| unravel(flat, &dims))
}

/// The index of a place in row-major order.
pub(crate) fn ravel(place: &[usize], dims: &[usize]) -> usize {
    place
        .iter()
        .zip(dims)
        .fold(0, |flat, (at, n)| flat * n + at)
}
