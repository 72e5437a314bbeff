//! One look at each answer: bounded in the input, one pass over the output.

use super::OutputStats;
use crate::tensor::{DType, Dim, TensorSpec};

/// Words of 8 bytes of an input that are looked at, spread evenly. Inputs that differ only between
/// them count as one: that makes fewer pairs, never a constant answer of one that is not.
const INPUT_WORDS: usize = 512;
/// Bins of confidence: the odds of the winning class in powers of two, from below 1/8 (a
/// sixteenth, say) to above 2048.
const CONFIDENCE_BINS: i32 = 16;
/// The first bin ends at odds of `2^-LOWEST`.
const LOWEST: i32 = 3;
/// Scores whose sum is this near to 1, none of them negative, are taken as probabilities.
const SUM_TOLERANCE: f32 = 0.02;

/// What an answer was like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Glance {
    /// Print of the input.
    input: u64,
    /// Print of the output, all of it.
    output: u64,
    /// Whether every number is finite.
    pub finite: bool,
    /// The winning class; none of an answer that is not finite or that tells no classes apart.
    pub class: Option<u32>,
    /// Bin of the winner's odds `p / (1 - p)`, where the scores are floats. `p` is the score where
    /// scores are probabilities, and their softmax where they are not.
    pub confidence: Option<u8>,
}

/// How to look at the answers of one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    classifies: bool,
}

/// Multiplies and folds: differing words give differing prints but for one case in 2^64.
fn fold(print: u64, word: u64) -> u64 {
    let product = u128::from(print ^ word) * 0x9e37_79b9_7f4a_7c15_u128;
    // The high half takes part, so that every bit reaches every other within two steps.
    (product as u64) ^ ((product >> 64) as u64) ^ print.rotate_left(23)
}

fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

/// The bytes of one item. A tensor whose first dimension is not the batch belongs to every item.
pub(super) fn item<'a>(spec: &TensorSpec, bytes: &'a [u8], at: u32) -> &'a [u8] {
    if spec.dims.first() != Some(&Dim::Batch) {
        return bytes;
    }
    let size = spec.size_bytes(1);
    let from = size * at as usize;
    bytes.get(from..from + size).unwrap_or_default()
}

impl Look {
    /// A look at a model with these tensors. `classes`: how many scores its first output gives of
    /// each item, if that tells classes apart.
    pub fn new<'a>(
        inputs: impl IntoIterator<Item = &'a TensorSpec>,
        outputs: impl IntoIterator<Item = &'a TensorSpec>,
        classes: Option<usize>,
    ) -> Self {
        let outputs: Vec<TensorSpec> = outputs.into_iter().cloned().collect();
        let first = outputs.first().filter(|o| {
            matches!(o.dtype, DType::F32 | DType::I8 | DType::U8)
                && o.dims.first() == Some(&Dim::Batch)
        });
        let scores = first.map(|o| o.elements(1)).filter(|n| *n >= 2);
        Self {
            inputs: inputs.into_iter().cloned().collect(),
            classifies: scores.is_some() && scores == classes,
            outputs,
        }
    }

    /// Whether the first output tells classes apart.
    pub fn classifies(&self) -> bool {
        self.classifies
    }

    /// The outputs that it looks at.
    pub(super) fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    /// A print of each item of a batch of inputs.
    pub fn inputs(&self, batch: u32, inputs: &[Vec<u8>]) -> Vec<u64> {
        let print = |at: u32| {
            let tensors = self.inputs.iter().zip(inputs);
            tensors.fold(0, |mut print, (spec, bytes)| {
                let bytes = item(spec, bytes, at);
                let words = bytes.len().div_ceil(8);
                let step = words.div_ceil(INPUT_WORDS).max(1);
                for chunk in bytes.chunks(8).step_by(step) {
                    print = fold(print, word(chunk));
                }
                print
            })
        };
        (0..batch).map(print).collect()
    }

    /// What the answers to these inputs are like, item by item.
    pub fn outputs_to(&self, inputs: &[u64], outputs: &[Vec<u8>]) -> Vec<Glance> {
        let glance = |(at, input): (u32, &u64)| {
            let (mut print, mut finite) = (0, true);
            for (spec, bytes) in self.outputs.iter().zip(outputs) {
                let bytes = item(spec, bytes, at);
                for chunk in bytes.chunks(8) {
                    print = fold(print, word(chunk));
                }
                let float = spec.dtype == DType::F32;
                finite &= !float || floats(bytes).all(f32::is_finite);
            }
            let (class, confidence) = match finite {
                true => self.winner(outputs, at),
                false => (None, None),
            };
            Glance {
                input: *input,
                output: print,
                finite,
                class,
                confidence,
            }
        };
        (0..).zip(inputs).map(glance).collect()
    }

    /// Winning class of an item, and the bin of its odds.
    fn winner(&self, outputs: &[Vec<u8>], at: u32) -> (Option<u32>, Option<u8>) {
        let (Some(spec), Some(bytes)) = (self.outputs.first(), outputs.first()) else {
            return (None, None);
        };
        if !self.classifies {
            return (None, None);
        }
        let bytes = item(spec, bytes, at);
        match spec.dtype {
            DType::F32 => {
                let (class, score) = first_largest(floats(bytes));
                (Some(class), Some(odds_bin(bytes, score)))
            }
            DType::I8 => {
                let scores = bytes.iter().map(|b| f32::from(b.cast_signed()));
                (Some(first_largest(scores).0), None)
            }
            _ => {
                let scores = bytes.iter().map(|b| f32::from(*b));
                (Some(first_largest(scores).0), None)
            }
        }
    }
}

/// The values of a float tensor.
pub(super) fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    let (values, _) = bytes.as_chunks::<4>();
    values.iter().map(|v| f32::from_le_bytes(*v))
}

/// The first of the largest, and its value.
fn first_largest(scores: impl Iterator<Item = f32>) -> (u32, f32) {
    let mut best = (0, f32::NEG_INFINITY);
    for (class, score) in (0..).zip(scores) {
        if score > best.1 {
            best = (class, score);
        }
    }
    best
}

fn odds_bin(bytes: &[u8], largest: f32) -> u8 {
    let (sum, least) = floats(bytes).fold((0.0_f32, 0.0_f32), |(sum, least), score| {
        (sum + score, least.min(score))
    });
    let probabilities = least >= 0.0 && (sum - 1.0).abs() <= SUM_TOLERANCE;
    // What speaks for the winner, over what speaks for the rest.
    let (own, rest) = match probabilities {
        true => (largest, (sum - largest).max(0.0)),
        false => {
            let all: f32 = floats(bytes).map(|score| (score - largest).exp()).sum();
            (1.0, (all - 1.0).max(0.0))
        }
    };
    let power = (own / rest).log2().floor();
    // Odds without bound are in the last bin; the cast saturates.
    let bin = (power as i32).saturating_add(LOWEST + 1);
    bin.clamp(0, CONFIDENCE_BINS - 1) as u8
}

/// Follows the answers of one guest.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    last: Option<Glance>,
}

impl Watch {
    /// Counts answers in the order in which they came.
    pub fn count(&mut self, glances: &[Glance], stats: &mut OutputStats) {
        for glance in glances {
            if let Some(last) = &self.last
                && last.input != glance.input
            {
                stats.followed += 1;
                stats.repeated += u64::from(last.output == glance.output);
            }
            if let Some(class) = glance.class {
                let turned = self.last.and_then(|last| last.class) != Some(class);
                stats.turns += u64::from(turned);
                stats.classes.record(class as usize);
            }
            if let Some(bin) = glance.confidence {
                stats.confidence.record(usize::from(bin));
            }
            self.last = Some(*glance);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(size: u32) -> TensorSpec {
        TensorSpec {
            name: "x".to_owned(),
            dtype: DType::F32,
            dims: vec![Dim::Batch, Dim::Fixed(size)],
        }
    }

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    fn counted(look: &Look, asked: &[(Vec<f32>, Vec<f32>)]) -> (OutputStats, Vec<Glance>) {
        let (mut watch, mut stats) = (Watch::default(), OutputStats::default());
        let mut all = Vec::new();
        for (input, output) in asked {
            let batch = (output.len() / look.outputs[0].elements(1)) as u32;
            let prints = look.inputs(batch, &[bytes(input)]);
            let glances = look.outputs_to(&prints, &[bytes(output)]);
            watch.count(&glances, &mut stats);
            all.extend(glances);
        }
        (stats, all)
    }

    #[test]
    fn an_answer_that_never_changes_is_counted_only_over_inputs_that_do() {
        let look = Look::new(&[spec(1)], &[spec(2)], None);
        let asked = [1.0, 1.0, 2.0, 3.0, 3.0].map(|x| (vec![x], vec![5.0, 5.0]));
        let (stats, _) = counted(&look, &asked);
        assert_eq!((stats.followed, stats.repeated), (2, 2));
        let asked = [1.0, 2.0, 3.0].map(|x| (vec![x], vec![x, 5.0]));
        let (stats, _) = counted(&look, &asked);
        assert_eq!((stats.followed, stats.repeated), (2, 0));
        assert_eq!(
            stats.classes.total(),
            0,
            "nobody said that these are classes"
        );
    }

    #[test]
    fn items_of_a_batch_count_one_by_one() {
        let look = Look::new(&[spec(1)], &[spec(2)], Some(2));
        let batch = (vec![1.0, 2.0, 3.0], vec![0.0, 1.0, 1.0, 0.0, 1.0, f32::NAN]);
        let (stats, glances) = counted(&look, &[batch]);
        assert_eq!(
            (stats.classes.count(0), stats.classes.count(1), stats.turns),
            (1, 1, 2)
        );
        let finite: Vec<bool> = glances.iter().map(|g| g.finite).collect();
        assert_eq!(finite, [true, true, false]);
        assert_eq!(stats.followed, 2);
    }

    #[test]
    fn probabilities_and_logits_are_as_sure() {
        let look = Look::new(&[spec(1)], &[spec(3)], Some(3));
        let logits = [2.0_f32, 0.0, -1.0];
        let sum: f32 = logits.iter().map(|l| l.exp()).sum();
        let probabilities = logits.map(|l| l.exp() / sum).to_vec();
        let (_, glances) = counted(
            &look,
            &[
                (vec![1.0], logits.to_vec()),
                (vec![2.0], probabilities),
                (vec![3.0], vec![1.0, 0.0, 0.0]),
                (vec![4.0], vec![0.0, 0.0, 0.0]),
            ],
        );
        let bins: Vec<_> = glances.iter().filter_map(|g| g.confidence).collect();
        // Odds of 5.4, that is between 2^2 and 2^3; without bound; and of 1/2.
        assert_eq!(bins, [6, 6, 15, 3]);
    }

    #[test]
    fn a_large_input_is_looked_at_in_places() {
        let look = Look::new(&[spec(100_000)], &[spec(1)], None);
        let mut input = vec![0.0; 100_000];
        let before = look.inputs(1, &[bytes(&input)]);
        input.iter_mut().for_each(|x| *x += 0.5);
        assert_ne!(before, look.inputs(1, &[bytes(&input)]));
    }
}
