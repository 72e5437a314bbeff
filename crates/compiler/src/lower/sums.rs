//! Products of bytes whose sums stay integers: constant weights, and a zero point of the input that may
//! be known only at run time, as dynamic quantisation has it.

use super::dense::{Bias, Ending, Terms};
use super::scales::{eight_bit, zeros};
use super::{Layout, LowerCx};
use crate::kernels::{Element, Fill};
use crate::typed::NodeView;

/// Weights less their zero point, by flat element, and what belongs to each output channel.
pub(crate) struct Summed {
    /// The weights.
    pub(crate) values: Vec<i32>,
    /// Their sum by output channel.
    sums: Vec<i32>,
}

impl Summed {
    /// Of the constant at input 1, with zero points of the input at 2 and of the weights at 3. `None`
    /// if these are of a kind that only a program takes: weights that are not constant, or zero points
    /// by row of the input.
    pub(crate) fn of(
        node: &NodeView<'_>,
        channels: usize,
        channel_of: impl Fn(usize) -> usize,
    ) -> Result<Option<Self>, String> {
        let constant = |i: usize| node.optional(i).is_none_or(|v| v.constant.is_some());
        let single = node.optional(2).is_none_or(|v| v.ty.elements() == 1);
        if !constant(1) || !constant(3) || !single {
            return Ok(None);
        }
        let w = node.constant(1)?;
        eight_bit(w.dtype())?;
        let zero = node.optional_constant(3)?.map(zeros).transpose()?;
        let zero = zero.unwrap_or_else(|| vec![0]);
        if zero.len() != 1 && zero.len() != channels {
            return Ok(None);
        }
        let zero_of = |i: usize| zero[if zero.len() == 1 { 0 } else { channel_of(i) }];
        let each = w.to_i64()?.into_iter().enumerate();
        // Bytes less bytes.
        let values: Vec<i32> = each.map(|(i, v)| v as i32 - zero_of(i)).collect();
        let mut sums = vec![0i32; channels];
        for (i, v) in values.iter().enumerate() {
            let sum = &mut sums[channel_of(i)];
            *sum = sum.wrapping_add(*v);
        }
        Ok(Some(Self { values, sums }))
    }

    /// The terms of the kernels. The sum over (x - zero) w is the sum over x w less zero times the sum
    /// of w; the latter is the bias.
    pub(crate) fn terms<'a>(
        &self,
        cx: &mut LowerCx<'_>,
        weight: &'a dyn Fn(usize, usize, usize) -> f32,
    ) -> Result<Terms<'a>, String> {
        let dtype = cx.ty(0)?.dtype;
        let (bias, fill) = if cx.view().optional(2).is_none() || cx.is_constant(2) {
            let zero = cx.view().optional_constant(2)?.map(zeros).transpose()?;
            let zero = zero.and_then(|z| z.first().copied()).unwrap_or(0);
            let known = self.sums.iter().map(|s| s.wrapping_mul(-zero) as u32);
            (Bias::Known(known.collect()), Fill::Byte(zero as u8))
        } else {
            let at = cx.read(2, Layout::Plain)?;
            let bias = Bias::Times(at, cx.ty(2)?.dtype, self.sums.clone());
            (bias, Fill::At(at))
        };
        let wide = self.values.iter().any(|v| !(-128..=127).contains(v));
        Ok(Terms {
            element: Element::Int { dtype, wide },
            weight,
            bias,
            finish: Ending::Sums,
            fill,
        })
    }
}
