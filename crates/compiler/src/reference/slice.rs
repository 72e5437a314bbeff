//! Slice with constant bounds (opset 10 and later).

use super::quantize::axis_of;
use super::window::unravel;
use super::{Built, optional, plain, required};

/// What is taken of a dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cut {
    /// First element.
    pub(crate) start: usize,
    /// From one to the next.
    pub(crate) step: i64,
    /// Number of elements.
    pub(crate) size: usize,
}

impl Cut {
    /// All of a dimension.
    pub(crate) fn whole(size: usize) -> Self {
        Self {
            start: 0,
            step: 1,
            size,
        }
    }

    fn of(size: usize, start: i64, end: i64, step: i64) -> Result<Self, String> {
        if step == 0 {
            return Err("a step is 0".into());
        }
        let size = size as i64;
        let bound = |v: i64| if v < 0 { v.saturating_add(size) } else { v };
        let (low, high) = if step > 0 { (0, size) } else { (-1, size - 1) };
        let start = bound(start).clamp(low.max(0), high.max(0));
        let end = bound(end).clamp(low, high);
        let span = if step > 0 { end - start } else { start - end };
        // The start is not negative, and sizes are below 2^28.
        Ok(Self {
            start: start as usize,
            step,
            size: span.max(0).unsigned_abs().div_ceil(step.unsigned_abs()) as usize,
        })
    }
}

/// What is taken of each dimension.
pub(crate) fn cuts(
    dims: &[usize],
    starts: &[i64],
    ends: &[i64],
    axes: Option<Vec<i64>>,
    steps: Option<Vec<i64>>,
) -> Result<Vec<Cut>, String> {
    let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
    if [ends.len(), axes.len(), steps.len()]
        .iter()
        .any(|n| *n != starts.len())
    {
        return Err("starts, ends, axes and steps differ in length".into());
    }
    let mut cuts: Vec<Cut> = dims.iter().map(|d| Cut::whole(*d)).collect();
    for (i, &step) in steps.iter().enumerate() {
        let axis = axis_of(axes[i], dims.len())?;
        cuts[axis] = Cut::of(dims[axis], starts[i], ends[i], step)?;
    }
    Ok(cuts)
}

/// Builds the operator: data, starts, ends, axes, steps.
pub(crate) fn build() -> Built {
    plain(|inputs| {
        let x = required(inputs, 0)?;
        let (starts, ends) = (
            required(inputs, 1)?.to_i64()?,
            required(inputs, 2)?.to_i64()?,
        );
        let axes = optional(inputs, 3).map(|t| t.to_i64()).transpose()?;
        let steps = optional(inputs, 4).map(|t| t.to_i64()).transpose()?;
        let cuts = cuts(x.dims(), &starts, &ends, axes, steps)?;
        let dims: Vec<usize> = cuts.iter().map(|c| c.size).collect();
        let source = |index: usize| {
            let place = unravel(index, &dims);
            let coordinate =
                |i: usize| (cuts[i].start as i64 + place[i] as i64 * cuts[i].step) as usize;
            (x.dims().iter().enumerate()).fold(0, |at, (i, d)| at * d + coordinate(i))
        };
        Ok(vec![x.gathered(dims.clone(), source)?])
    })
}
