//! Slice with constant bounds (opset 10 and later).

use super::quantize::axis_of;
use super::window::unravel;
use super::{Built, optional, plain, required};

/// Builds the operator: data, starts, ends, axes, steps.
pub(super) fn build() -> Built {
    plain(|inputs| {
        let x = required(inputs, 0)?;
        let (starts, ends) = (
            required(inputs, 1)?.to_i64()?,
            required(inputs, 2)?.to_i64()?,
        );
        let count = starts.len() as i64;
        let axes = optional(inputs, 3).map_or_else(|| Ok((0..count).collect()), |t| t.to_i64())?;
        let steps =
            optional(inputs, 4).map_or_else(|| Ok(vec![1; starts.len()]), |t| t.to_i64())?;
        if [ends.len(), axes.len(), steps.len()]
            .iter()
            .any(|n| *n != starts.len())
        {
            return Err("starts, ends, axes and steps differ in length".into());
        }
        let mut dims = x.dims().to_vec();
        let mut from = vec![(0i64, 1i64); dims.len()];
        for (i, &step) in steps.iter().enumerate() {
            let axis = axis_of(axes[i], dims.len())?;
            let size = x.dims()[axis] as i64;
            if step == 0 {
                return Err("a step is 0".into());
            }
            let bound = |v: i64| if v < 0 { v.saturating_add(size) } else { v };
            let (low, high) = if step > 0 { (0, size) } else { (-1, size - 1) };
            let start = bound(starts[i]).clamp(low.max(0), high.max(0));
            let end = bound(ends[i]).clamp(low, high);
            let span = if step > 0 { end - start } else { start - end };
            dims[axis] = span.max(0).unsigned_abs().div_ceil(step.unsigned_abs()) as usize;
            from[axis] = (start, step);
        }
        let source = |index: usize| {
            let place = unravel(index, &dims);
            let coordinate = |i: usize| (from[i].0 + place[i] as i64 * from[i].1) as usize;
            x.dims()
                .iter()
                .enumerate()
                .fold(0, |at, (i, d)| at * d + coordinate(i))
        };
        Ok(vec![x.gathered(dims.clone(), source)?])
    })
}
