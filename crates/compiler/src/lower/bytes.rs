//! Products of bytes: as bytes, where every host does that exactly, or in two ways.

use super::LowerCx;
use super::dense::{Rest, Shape, Source, Terms, endings};
use crate::kernels::{
    BySense, Form, Mode, Start, WeightsOf, pack_dense, panel_widths, sums_of_bytes, without_excess,
};
use sandpiper_core::tensor::DType;

/// A window of at most so many steps of bytes has its weights in both orders, since there are few: the
/// order of words has shorter ends.
const SHORT: usize = 16;
/// Steps that may be added to those of windows, per mille: a step of bytes takes two thirds of the time that
/// one of 16 bits takes on x86.
const MOST_STEPS_ADDED: usize = 300;

impl Shape {
    /// Of bytes with weights of 8 bits. Hosts that multiply signed bytes take them as they are. Others
    /// do, if it takes few more steps to keep sums of two products within 16 bits, and otherwise
    /// bring the activations to 16 bits. `None` for a single pixel where others would: what takes the
    /// time then is to read the weights, and they are read best in the order of words.
    pub(super) fn lower_bytes(
        &self,
        cx: &mut LowerCx<'_>,
        (w, dtype): (&WeightsOf<'_>, DType),
        terms: &Terms<'_>,
        (name, macs): (&'static str, u64),
        source: Source<'_>,
    ) -> Option<Result<(), String>> {
        let packed = pack_dense(Mode::Bytes { more: 0 }, w);
        let [(_, outer_step), (inner, inner_step)] = self.taps;
        let each = w.run.div_ceil(4);
        let offset = |step: usize| {
            let (tap, k) = (step / each, step % each);
            (tap / inner * outer_step + tap % inner * inner_step + 4 * k) as u32
        };
        let everywhere = without_excess(&packed, w, MOST_STEPS_ADDED, &offset);
        let pixels = self.pixels.images * self.pixels.out[0] * self.pixels.out[1];
        if everywhere.is_none() && pixels == 1 {
            return None;
        }
        let mut lower = || {
            let widths = panel_widths(w.channels);
            let sums = sums_of_bytes(&packed, w);
            let (bias, finish) = endings(cx, terms, (w.groups, &widths), Some(&sums))?;
            let second = 4 * w.groups * widths.iter().map(|(_, width)| width).sum::<usize>();
            let kernel = |src, weights, mode, start| {
                let bias = Some((bias, start));
                let rest = Rest {
                    name,
                    weights,
                    bias,
                    finish,
                };
                Box::new(self.kernel((src, 0), w, mode, rest))
            };
            let by_host = Start::IfSigned(second as u32);
            if let Some((packed, more)) = &everywhere {
                let src = source(cx, &[Form::Multiplied(dtype)])?;
                let weights = cx.weights(packed)?;
                let kernel = kernel(src, weights, Mode::Bytes { more: *more }, by_host);
                return cx.push_int(*kernel, macs);
            }
            let src = source(cx, &[Form::Multiplied(dtype), Form::Widened(dtype)])?;
            let weights = cx.weights(&packed)?;
            let as_stored = Start::At(if dtype == DType::U8 { 0 } else { second as u32 });
            let signed = kernel(src, weights, Mode::Bytes { more: 0 }, by_host);
            let unsigned = if w.taps * each <= SHORT {
                let mode = Mode::Words { wide: false };
                kernel(src, cx.weights(&pack_dense(mode, w))?, mode, as_stored)
            } else {
                let together = if self.pixels.out[1] < 4 { 8 } else { 4 };
                kernel(src, weights, Mode::Widened { together }, as_stored)
            };
            cx.push_int(BySense { signed, unsigned }, macs)
        };
        Some(lower())
    }
}
