//! Scales and zero points of quantised operands.

use super::LowerCx;
use super::dense::{Bias, Ending, Terms};
use crate::kernels::{Element, Fill};
use crate::tensor::Tensor;
use crate::typed::NodeView;
use sandpiper_core::tensor::DType;

/// A single scale and zero point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Scale {
    /// Scale.
    pub(crate) scale: f32,
    /// Zero point.
    pub(crate) zero: i32,
}

fn single<T: Copy>(values: &[T], what: &str) -> Result<T, String> {
    match values {
        [one] => Ok(*one),
        more => Err(format!(
            "a {what} of {} entries where one is expected",
            more.len()
        )),
    }
}

/// Whether it is an 8-bit type.
pub(crate) fn eight_bit(dtype: DType) -> Result<(), String> {
    match dtype {
        DType::I8 | DType::U8 => Ok(()),
        other => Err(format!("quantised values of {other} are not supported")),
    }
}

/// The zero points of a tensor: integers of 8 bits (32 for a bias).
pub(crate) fn zeros(tensor: &Tensor) -> Result<Vec<i32>, String> {
    let fits = |v: &i64| i32::try_from(*v).map_err(|_| "a zero point is out of range".to_owned());
    tensor.to_i64()?.iter().map(fits).collect()
}

impl Scale {
    /// Of the inputs at `index` (scale) and the next one (zero point, 0 if it is left out).
    pub(crate) fn at(node: &NodeView<'_>, index: usize) -> Result<Self, String> {
        let scale = single(node.constant(index)?.as_f32()?, "scale")?;
        if !(scale.is_finite() && scale > 0.0) {
            return Err(format!("a scale of {scale}"));
        }
        let zero = match node.optional_constant(index + 1)? {
            Some(tensor) => single(&zeros(tensor)?, "zero point")?,
            None => 0,
        };
        if !(-255..=255).contains(&zero) {
            return Err(format!("a zero point of {zero}"));
        }
        Ok(Self { scale, zero })
    }
}

/// Type of a quantised result: that of its zero point at `index`, else of input 0.
pub(crate) fn result_dtype(node: &NodeView<'_>, index: usize) -> Result<DType, String> {
    let dtype = node
        .optional(index)
        .map_or(node.ty(0)?.dtype, |z| z.ty.dtype);
    eight_bit(dtype)?;
    Ok(dtype)
}

/// The weights of a quantised product or convolution, zero points subtracted: values by flat
/// element, zero point and scale by output channel.
pub(crate) struct Quantized {
    /// Values with their zero point subtracted.
    pub(crate) values: Vec<i32>,
    /// Scale of x times scale of w over scale of y, by output channel.
    pub(crate) multipliers: Vec<f32>,
    x: (DType, i32),
}

/// One entry for all, or one for each of `n`.
fn spread<T: Copy>(values: &[T], n: usize, what: &str) -> Result<Vec<T>, String> {
    match values.len() {
        1 => Ok(vec![values[0]; n]),
        have if have == n => Ok(values.to_vec()),
        have => Err(format!("{have} {what} for {n} output channels")),
    }
}

impl Quantized {
    /// Of the weights `w` with their scale and zero point in the two inputs that follow theirs, at
    /// `index`. `channel_of` gives the output channel of a flat element. `y_scale` is 1 for a
    /// result in floats.
    pub(crate) fn of(
        node: &NodeView<'_>,
        index: usize,
        channels: usize,
        channel_of: impl Fn(usize) -> usize,
        y_scale: f32,
    ) -> Result<Self, String> {
        let x = Scale::at(node, 1)?;
        let w = node.constant(index)?;
        eight_bit(w.dtype())?;
        eight_bit(node.ty(0)?.dtype)?;
        let scales = spread(node.constant(index + 1)?.as_f32()?, channels, "scales")?;
        let zero = node.optional_constant(index + 2)?.map(zeros).transpose()?;
        let zero = spread(&zero.unwrap_or_else(|| vec![0]), channels, "zero points")?;
        let each = |(i, v): (usize, &i64)| (*v as i32).wrapping_sub(zero[channel_of(i)]);
        let values: Vec<i32> = w.to_i64()?.iter().enumerate().map(each).collect();
        if values.iter().any(|v| !(-255..=255).contains(v)) {
            return Err("a zero point of the weights is out of range".into());
        }
        let multipliers = scales.iter().map(|s| x.scale * s / y_scale).collect();
        Ok(Self {
            values,
            multipliers,
            x: (node.ty(0)?.dtype, x.zero),
        })
    }

    /// The terms of the kernels. `bias` is in steps of x scale * w scale; the zero point of x is
    /// folded into it, so that kernels multiply what is stored: the sum over (x - zero) w is the
    /// sum over x w less zero times the sum of w.
    pub(crate) fn terms<'a>(
        &self,
        channels: usize,
        channel_of: impl Fn(usize) -> usize,
        bias: Option<&Tensor>,
        weight: &'a dyn Fn(usize, usize, usize) -> f32,
        finish: Ending,
    ) -> Result<Terms<'a>, String> {
        let (dtype, zero) = self.x;
        let given = bias.map(Tensor::to_i64).transpose()?;
        let given = spread(&given.unwrap_or_else(|| vec![0]), channels, "biases")?;
        // Sums wrap around as 32-bit accumulators do.
        let mut bias: Vec<i32> = given.iter().map(|b| *b as i32).collect();
        for (i, v) in self.values.iter().enumerate() {
            let sum = &mut bias[channel_of(i)];
            *sum = sum.wrapping_sub(v.wrapping_mul(zero));
        }
        let wide = self.values.iter().any(|v| !(-128..=127).contains(v));
        Ok(Terms {
            element: Element::Int { dtype, wide },
            weight,
            bias: Bias::Known(bias.into_iter().map(|b| b as u32).collect()),
            finish,
            fill: Fill::Byte(zero as u8),
        })
    }
}

/// The multipliers with what requantises a result of the node's type, or leaves it in floats.
pub(crate) fn ending(
    cx: &LowerCx<'_>,
    multipliers: Vec<f32>,
    y: Option<Scale>,
) -> Result<Ending, String> {
    let (dtype, clamp) = (cx.out()?.dtype, cx.node.clamp);
    Ok(match y {
        Some(y) => Ending::requantize(multipliers, dtype, (y.scale, y.zero), clamp),
        None => Ending::Dequantize(multipliers, clamp),
    })
}
