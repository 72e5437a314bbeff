//! Whether two versions give the same answer to one input.

use super::look::{Look, floats, item};
use crate::tensor::DType;

/// Answers that tell no classes apart agree when the difference is at most this share of the
/// expected answer, both by their Euclidean norms. Rounding weights to 8 bits moves an answer by
/// one or two percent.
pub const RELATIVE_TOLERANCE: f64 = 0.05;

/// Of so many items of a batch, how many answers agree: the same class wins, or, where there are
/// no classes, every output is within [`RELATIVE_TOLERANCE`]. Both must be answers of a model that
/// `look` fits, whatever arithmetic it uses inside. Answers that are not finite agree with none.
pub fn agree(look: &Look, batch: u32, expected: &[Vec<u8>], found: &[Vec<u8>]) -> u32 {
    let items = vec![0; batch as usize];
    let (was, is) = (
        look.outputs_to(&items, expected),
        look.outputs_to(&items, found),
    );
    let same = |(at, (was, is)): (u32, (&super::Glance, &super::Glance))| {
        was.finite
            && is.finite
            && match look.classifies() {
                true => was.class == is.class,
                false => near(look, at, expected, found),
            }
    };
    let all = (0..).zip(was.iter().zip(&is));
    u32::try_from(all.filter(|item| same(*item)).count()).unwrap_or(batch)
}

fn near(look: &Look, at: u32, expected: &[Vec<u8>], found: &[Vec<u8>]) -> bool {
    let mut tensors = look.outputs().iter().zip(expected.iter().zip(found));
    tensors.all(|(spec, (was, is))| {
        let part = |bytes| values(spec.dtype, item(spec, bytes, at));
        let (was, is) = (part(was), part(is));
        let norm: f64 = was.iter().map(|x| x * x).sum();
        let off: f64 = was.iter().zip(&is).map(|(a, b)| (a - b) * (a - b)).sum();
        was.len() == is.len() && off <= RELATIVE_TOLERANCE * RELATIVE_TOLERANCE * norm
    })
}

fn values(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    match dtype {
        DType::F32 => floats(bytes).map(f64::from).collect(),
        DType::I8 => bytes.iter().map(|b| f64::from(b.cast_signed())).collect(),
        DType::U8 | DType::Bool => bytes.iter().map(|b| f64::from(*b)).collect(),
        DType::I32 => {
            let (all, _) = bytes.as_chunks::<4>();
            all.iter()
                .map(|v| f64::from(i32::from_le_bytes(*v)))
                .collect()
        }
        DType::I64 => {
            let (all, _) = bytes.as_chunks::<8>();
            all.iter().map(|v| i64::from_le_bytes(*v) as f64).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{Dim, TensorSpec};

    fn look(dtype: DType, classes: Option<usize>) -> Look {
        let spec = TensorSpec {
            name: "y".to_owned(),
            dtype,
            dims: vec![Dim::Batch, Dim::Fixed(3)],
        };
        Look::new(&[], &[spec], classes)
    }

    fn floats_of(values: &[f32]) -> Vec<Vec<u8>> {
        vec![values.iter().flat_map(|v| v.to_le_bytes()).collect()]
    }

    #[test]
    fn classifiers_agree_on_the_winner() {
        let look = look(DType::F32, Some(3));
        let was = floats_of(&[0.1, 0.7, 0.2, 0.9, 0.0, 0.1]);
        let is = floats_of(&[0.3, 0.4, 0.3, 0.2, 0.0, 0.8]);
        assert_eq!(agree(&look, 2, &was, &is), 1);
        assert_eq!(agree(&look, 2, &was, &was), 2);
        let broken = floats_of(&[0.1, f32::NAN, 0.2, 0.9, 0.0, 0.1]);
        assert_eq!(agree(&look, 2, &was, &broken), 1);
    }

    #[test]
    fn other_answers_agree_within_the_tolerance() {
        let look_f = look(DType::F32, None);
        let was = floats_of(&[100.0, 0.0, -3.0, 1.0, 1.0, 1.0]);
        let is = floats_of(&[102.0, 1.0, -3.0, 1.0, 1.0, 1.2]);
        assert_eq!(agree(&look_f, 2, &was, &is), 1);
        let zero = floats_of(&[0.0; 3]);
        assert_eq!(agree(&look_f, 1, &zero, &zero), 1);
        let bytes = look(DType::I8, None);
        let answer = |x: i8| vec![vec![x.cast_unsigned(), 100, 100]];
        assert_eq!(agree(&bytes, 1, &answer(0), &answer(-3)), 1);
        assert_eq!(agree(&bytes, 1, &answer(0), &answer(-30)), 0);
    }
}
