//! The end of a convolution or product: from accumulators to stored results.

use crate::emit::{Func, Local, Ref};
use crate::typed::Clamp;
use sandpiper_core::tensor::DType;
use wasm_encoder::Instruction as I;

/// What is multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    /// Floats.
    F32,
    /// Bytes of this type, with weights of 8 bits, or of 16 where `wide`.
    Int {
        /// Type of the activations.
        dtype: DType,
        /// Weights do not fit 8 bits once their zero point is subtracted.
        wide: bool,
    },
}

impl Element {
    /// Bytes of one activation.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Int { .. } => 1,
        }
    }
}

/// What becomes of an accumulator.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Finish {
    /// Floats are cut to limits.
    Float(Clamp),
    /// Integers are scaled by one float per channel, rounded half to even and cut.
    Requantize {
        /// Multipliers, packed like the bias.
        scales: Ref,
        /// Type of the result.
        dtype: DType,
        /// Its zero point.
        zero: i32,
        /// Limits, within the range of the type.
        limits: (i32, i32),
    },
    /// Integers are stored as they are.
    Sums,
    /// Integers are scaled to floats and cut.
    Dequantize {
        /// Multipliers, packed like the bias.
        scales: Ref,
        /// Limits.
        clamp: Clamp,
    },
}

impl Finish {
    /// Bytes of one result.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Requantize { .. } => 1,
            _ => 4,
        }
    }

    /// The multipliers.
    pub(crate) fn scales(&self) -> Option<Ref> {
        match self {
            Self::Float(_) | Self::Sums => None,
            Self::Requantize { scales, .. } | Self::Dequantize { scales, .. } => Some(*scales),
        }
    }

    /// Stores the first `count` channels of one pixel from `accumulators` of four channels each,
    /// which are overwritten.
    pub(crate) fn store(
        &self,
        f: &mut Func<'_>,
        (accumulators, scales): (&[Local], &[Local]),
        (pointer, offset): (Local, u32),
        count: usize,
        scratch: Local,
    ) {
        for (v, &acc) in accumulators.iter().enumerate() {
            f.get(acc);
            if let Some(scale) = scales.get(v) {
                f.op(I::F32x4ConvertI32x4S).get(*scale).op(I::F32x4Mul);
            }
            match self {
                Self::Sums => {
                    f.set(acc);
                    let rest = count.saturating_sub(4 * v).min(4);
                    f.store_bytes(pointer, offset + 16 * v as u32, acc, 4 * rest);
                }
                Self::Float(clamp) | Self::Dequantize { clamp, .. } => {
                    f.clamp(clamp.low, clamp.high).set(acc);
                    let rest = count.saturating_sub(4 * v).min(4);
                    f.store_bytes(pointer, offset + 16 * v as u32, acc, 4 * rest);
                }
                Self::Requantize {
                    zero,
                    limits: (low, high),
                    ..
                } => {
                    f.quantize(*zero, *low, *high, scratch).set(acc);
                }
            }
        }
        if let Self::Requantize { dtype, .. } = self {
            for (half, pair) in accumulators.chunks(2).enumerate() {
                pair.iter().for_each(|acc| {
                    f.get(*acc);
                });
                f.narrow(pair.len() == 2, *dtype, scratch).set(scratch);
                let rest = count.saturating_sub(8 * half).min(8);
                f.store_bytes(pointer, offset + 8 * half as u32, scratch, rest);
            }
        }
    }
}
