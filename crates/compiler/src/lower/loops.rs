//! Elementwise programs over scalars: operands that are broadcast, of any type.

use super::{Layout, LowerCx};
use crate::kernels::{Ex, Scalar, index};

/// Dimensions with leading ones, up to `rank`.
pub(crate) fn aligned(dims: &[usize], rank: usize) -> Vec<usize> {
    let mut full = vec![1; rank.saturating_sub(dims.len())];
    full.extend_from_slice(dims);
    full
}

/// Strides of an operand that is broadcast to `rank` dimensions.
pub(crate) fn broadcast_strides(dims: &[usize], rank: usize) -> Vec<usize> {
    let dims = aligned(dims, rank);
    let mut strides = Layout::Plain.strides(&dims);
    strides
        .iter_mut()
        .zip(&dims)
        .filter(|(_, d)| **d == 1)
        .for_each(|(s, _)| *s = 0);
    strides
}

/// Joins neighbouring dimensions along which every operand runs on without a gap.
pub(crate) fn joined(dims: &[usize], strides: &mut [Vec<usize>]) -> Vec<usize> {
    let mut out: Vec<usize> = Vec::new();
    let mut kept: Vec<Vec<usize>> = vec![Vec::new(); strides.len()];
    for (axis, n) in dims.iter().copied().enumerate().filter(|(_, n)| *n != 1) {
        let runs_on = strides
            .iter()
            .zip(&kept)
            .all(|(s, k)| k.last().is_some_and(|last| *last == s[axis] * n));
        match out.last_mut() {
            Some(last) if runs_on => {
                *last *= n;
                kept.iter_mut().for_each(|k| {
                    k.pop();
                });
            }
            _ => out.push(n),
        }
        kept.iter_mut()
            .zip(strides.iter())
            .for_each(|(k, s)| k.push(s[axis]));
    }
    strides.iter_mut().zip(kept).for_each(|(s, k)| *s = k);
    out
}

/// Adds a program that computes the node's first output, element by element, from the elements of
/// these inputs that belong to it.
pub(crate) fn elementwise(
    cx: &mut LowerCx<'_>,
    name: &'static str,
    inputs: &[usize],
    body: &mut dyn FnMut(&mut Scalar, &[Ex]) -> Ex,
) -> Result<(), String> {
    let (dims, dtype) = (cx.out()?.item(), cx.out()?.dtype);
    let mut operands = Vec::with_capacity(inputs.len());
    let mut strides = vec![Layout::Plain.strides(&dims)];
    for input in inputs {
        let ty = cx.ty(*input)?;
        operands.push((cx.read(*input, Layout::Plain)?, ty.dtype));
        strides.push(broadcast_strides(&ty.item(), dims.len()));
    }
    let dst = cx.write(Layout::Plain)?;
    let dims = joined(&dims, &mut strides);
    let mut program = Scalar::new(name);
    program.nest(&dims, &mut |s, place| {
        let values: Vec<Ex> = operands
            .iter()
            .zip(&strides[1..])
            .map(|((at, dtype), strides)| {
                let value = s.load(*at, *dtype, index(place, strides));
                s.once(value)
            })
            .collect();
        let value = body(s, &values);
        s.store(dst, dtype, index(place, &strides[0]), value);
    });
    cx.push(program, 0)
}

/// The elements along an axis through one place of the others.
pub(crate) struct Lane {
    /// Number of elements.
    pub(crate) len: usize,
    outer: Ex,
    inner: Ex,
    stride: usize,
}

impl Lane {
    /// The index of an element by its number.
    pub(crate) fn at(&self, i: Ex) -> Ex {
        let size = (self.len * self.stride) as i32;
        let base = self.outer.clone() * Ex::Int(size) + self.inner.clone();
        base + i * Ex::Int(self.stride as i32)
    }

    /// The same lane of a tensor with another number of elements along the axis.
    pub(crate) fn resized(&self, len: usize) -> Self {
        Self {
            len,
            outer: self.outer.clone(),
            inner: self.inner.clone(),
            stride: self.stride,
        }
    }

    /// The index of the lane among all lanes, in row-major order.
    pub(crate) fn reduced(&self) -> Ex {
        self.outer.clone() * Ex::Int(self.stride as i32) + self.inner.clone()
    }
}

/// Does `body` for every lane along an axis.
pub(crate) fn along(
    s: &mut Scalar,
    dims: &[usize],
    axis: usize,
    body: &mut dyn FnMut(&mut Scalar, &Lane),
) {
    let outer: usize = dims[..axis].iter().product();
    let stride: usize = dims[axis + 1..].iter().product();
    s.nest(&[outer, stride], &mut |s, place| {
        let lane = Lane {
            len: dims[axis],
            outer: place[0].clone(),
            inner: place[1].clone(),
            stride,
        };
        body(s, &lane);
    });
}

/// How a window lies over one axis of its source.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    /// Elements of the axis.
    pub(crate) size: usize,
    /// From one window to the next.
    pub(crate) stride: usize,
    /// From one element of a window to the next.
    pub(crate) dilation: usize,
    /// Padding before the first element.
    pub(crate) begin: usize,
}

impl Span {
    /// The element of the source that an element of a window sees, and whether it is there: where it
    /// is padding, the nearest element stands for it, so that loading is always safe.
    pub(crate) fn source(self, s: &mut Scalar, window: &Ex, tap: &Ex) -> (Ex, Ex) {
        let first = window.clone() * Ex::Int(self.stride as i32);
        let step = tap.clone() * Ex::Int(self.dilation as i32);
        let at = s.once(first + step - Ex::Int(self.begin as i32));
        let last = Ex::Int(self.size as i32 - 1);
        let cut = s.once(at.clone().max(Ex::Int(0)).min(last));
        let inside = cut.clone().eq(at);
        (cut, inside)
    }
}
