//! Whether an output is the one that the file means.

use serde::Serialize;

/// How a model computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// In floats: engines differ by the order of sums.
    Float,
    /// Partly in integers: engines differ by steps of the scales.
    Integer,
}

/// Largest difference of floats that is right, as a share of the largest value.
const FLOAT: f64 = 1e-3;
/// Smallest cosine of integer outputs that is right, together with the same largest element.
const COSINE: f64 = 0.99;

/// How near an output is to the reference.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Agreement {
    /// Largest difference as a share of the largest value of the reference.
    pub(super) difference: f64,
    /// Cosine of the angle between the two as vectors.
    pub(super) cosine: f64,
    /// Whether the largest elements are the same.
    pub(super) same_class: bool,
    /// Whether this counts as right: floats by the difference, integers by cosine and class.
    pub(super) right: bool,
}

impl Agreement {
    /// Of two outputs of the same model.
    pub(super) fn of(kind: Kind, output: &[f64], reference: &[f64]) -> Self {
        let same_length = output.len() == reference.len();
        let pairs = || output.iter().zip(reference);
        let largest = reference.iter().fold(0.0, |a: f64, v| a.max(v.abs()));
        // A NaN is as far away as can be; `max` would pass over it.
        let far = |(a, b): (&f64, &f64)| (a - b).abs();
        let far = pairs()
            .map(far)
            .fold(0.0, |a, d| if d > a || d.is_nan() { d } else { a });
        let dot: f64 = pairs().map(|(a, b)| a * b).sum();
        let length = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
        let difference = far / largest;
        let cosine = dot / (length(output) * length(reference));
        let same_class = top(output) == top(reference);
        let near = match kind {
            Kind::Float => difference <= FLOAT,
            Kind::Integer => cosine >= COSINE && same_class,
        };
        Self {
            difference,
            cosine,
            same_class,
            right: same_length && near,
        }
    }
}

/// Place of the largest element; the first of equal ones.
fn top(values: &[f64]) -> Option<usize> {
    let place = |best: usize, (i, v): (usize, &f64)| if *v > values[best] { i } else { best };
    (!values.is_empty()).then(|| values.iter().enumerate().fold(0, place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_right_by_difference_and_integers_by_direction_and_class() {
        let reference = [1.0, -8.0, 4.0];
        let near = [1.001, -8.001, 4.001];
        let steps = [1.4, -8.3, 4.4];
        let other = [4.0, -8.0, 3.9];
        let right = |kind, output: &[f64]| Agreement::of(kind, output, &reference).right;
        assert!(right(Kind::Float, &near) && right(Kind::Integer, &near));
        assert!(!right(Kind::Float, &steps) && right(Kind::Integer, &steps));
        assert!(!right(Kind::Float, &other) && !right(Kind::Integer, &other));
    }

    #[test]
    fn what_is_no_number_or_too_short_is_wrong() {
        for kind in [Kind::Float, Kind::Integer] {
            assert!(!Agreement::of(kind, &[f64::NAN, 2.0], &[1.0, 2.0]).right);
            assert!(!Agreement::of(kind, &[1.0, f64::NAN], &[1.0, 2.0]).right);
            assert!(!Agreement::of(kind, &[1.0, 2.0], &[1.0, 2.0, 0.0]).right);
            assert!(!Agreement::of(kind, &[], &[1.0]).right);
        }
    }
}
