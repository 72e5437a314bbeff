//! The QOperator dialect: QLinearConv, QLinearMatMul and com.microsoft's QGemm, QLinearAdd ...
//!
//! Convolutions and products accumulate exactly in integers. The other operators are defined as
//! dequantise, compute, quantise.

use super::conv::Convolution;
use super::gemm::Transposed;
use super::quantize::{Scales, saturated};
use super::{Built, Inputs, optional, plain, required};
use super::{elementwise, pool, softmax};
use crate::onnx::Attrs;
use crate::tensor::Tensor;

/// A quantised operand: tensor, scale and zero point stand next to each other in the inputs.
fn dequantized(inputs: &Inputs<'_>, first: usize) -> Result<Tensor, String> {
    let x = required(inputs, first)?;
    let (scale, zero) = (required(inputs, first + 1)?, optional(inputs, first + 2));
    Scales::of(x.dims(), 0, scale, zero)?.dequantize(x)
}

/// Quantises a result by the scale and zero point at `first`; the type is that of operand 0.
fn requantized(inputs: &Inputs<'_>, first: usize, y: &Tensor) -> Result<Vec<Tensor>, String> {
    let (scale, zero) = (required(inputs, first)?, optional(inputs, first + 1));
    let dtype = zero.map_or(required(inputs, 0)?.dtype(), Tensor::dtype);
    Ok(vec![
        Scales::of(y.dims(), 0, scale, zero)?.quantize(y, dtype)?,
    ])
}

fn single(tensor: &Tensor) -> Result<i64, String> {
    tensor
        .to_i64()?
        .first()
        .copied()
        .ok_or_else(|| "a zero point is empty".into())
}

/// Values of a slice that has one entry for all or one per output channel.
fn per_channel<T: Copy>(values: &[T], channel: usize) -> Result<T, String> {
    let value = if values.len() == 1 {
        values.first()
    } else {
        values.get(channel)
    };
    value
        .copied()
        .ok_or_else(|| "scale, zero point and channels differ in number".into())
}

/// Multiplier of an accumulator for each output channel: x scale * w scale / y scale.
fn multipliers(x: &Tensor, w: &Tensor, y: &Tensor) -> Result<Vec<f32>, String> {
    let first = |t: &Tensor| {
        t.as_f32()?
            .first()
            .copied()
            .ok_or("a scale is empty".to_owned())
    };
    let (x, y) = (first(x)?, first(y)?);
    Ok(w.as_f32()?.iter().map(|w| x * w / y).collect())
}

fn rescaled(sum: i64, multiplier: f32, zero: i64) -> f64 {
    f64::from((sum as f32 * multiplier).round_ties_even()) + zero as f64
}

/// QLinearConv: x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias.
pub(crate) fn conv(attrs: &Attrs<'_>) -> Built {
    let conv = Convolution::of(attrs)?;
    plain(move |inputs| {
        let (x, w) = (required(inputs, 0)?, required(inputs, 3)?);
        let (x_zero, y_zero) = (single(required(inputs, 2)?)?, single(required(inputs, 7)?)?);
        let w_zero = required(inputs, 5)?.to_i64()?;
        let multiplier = multipliers(
            required(inputs, 1)?,
            required(inputs, 4)?,
            required(inputs, 6)?,
        )?;
        let bias = optional(inputs, 8).map(Tensor::to_i64).transpose()?;
        let outputs = w.dims().first().copied().unwrap_or(0);
        for n in [
            w_zero.len(),
            multiplier.len(),
            bias.as_ref().map_or(outputs, Vec::len),
        ] {
            if n != 1 && n != outputs {
                return Err(format!("{n} parameters for {outputs} output channels"));
            }
        }
        let (xs, mut ws) = (x.to_i64()?, w.to_i64()?);
        let each = (ws.len() / outputs.max(1)).max(1);
        for (channel, weights) in ws.chunks_mut(each).enumerate() {
            let zero = per_channel(&w_zero, channel)?;
            weights.iter_mut().for_each(|w| *w -= zero);
        }
        let product = |x: usize, w: usize| (xs[x] - x_zero) * ws[w];
        let finish = |m: usize, sum: i64| {
            let bias = bias
                .as_ref()
                .map_or(0, |b| b[if b.len() == 1 { 0 } else { m }]);
            rescaled(
                sum + bias,
                multiplier[if multiplier.len() == 1 { 0 } else { m }],
                y_zero,
            )
        };
        let (dims, values) = conv.run(x.dims(), w.dims(), product, finish)?;
        Ok(vec![saturated(
            &dims,
            values.into_iter(),
            required(inputs, 7)?.dtype(),
        )?])
    })
}

/// QGemm: a, a_scale, a_zero, b, b_scale, b_zero, c, y_scale, y_zero. Without a y scale the
/// output is float.
pub(crate) fn gemm(attrs: &Attrs<'_>) -> Built {
    let transposed = Transposed::of(attrs);
    if attrs.float("alpha").is_some_and(|a| a != 1.0) {
        return Err("QGemm with alpha other than 1 is not supported".into());
    }
    plain(move |inputs| product(inputs, transposed, optional(inputs, 6), 7))
}

/// The result of QLinearMatMul (a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero) from its sums,
/// whose last dimension is that of the columns.
pub(crate) fn requantized_sums(
    inputs: &Inputs<'_>,
    dims: &[usize],
    sums: &[i64],
) -> Result<Vec<Tensor>, String> {
    let scale = |i: usize| required(inputs, i);
    let multiplier = multipliers(scale(1)?, scale(4)?, scale(6)?)?;
    let y_zero = optional(inputs, 7);
    let (zero, columns) = (
        y_zero.map_or(Ok(0), single)?,
        dims.last().copied().unwrap_or(1),
    );
    let one = |(i, sum): (usize, &i64)| {
        let multiplier = per_channel(&multiplier, i % columns.max(1))?;
        Ok(rescaled(*sum, multiplier, zero))
    };
    let values: Result<Vec<f64>, String> = sums.iter().enumerate().map(one).collect();
    let dtype = y_zero.map_or(required(inputs, 0)?.dtype(), Tensor::dtype);
    Ok(vec![saturated(dims, values?.into_iter(), dtype)?])
}

fn product(
    inputs: &Inputs<'_>,
    transposed: Transposed,
    c: Option<&Tensor>,
    y: usize,
) -> Result<Vec<Tensor>, String> {
    let (a, b) = (required(inputs, 0)?, required(inputs, 3)?);
    let sizes @ [rows, columns, inner] = transposed.sizes(a.dims(), b.dims())?;
    let a_zero = single(required(inputs, 2)?)?;
    let b_zero = required(inputs, 5)?.to_i64()?;
    let added = c.map(Tensor::to_i64).transpose()?;
    if added
        .as_ref()
        .is_some_and(|c| c.len() != columns && c.len() != 1)
    {
        return Err(format!("C needs {columns} entries"));
    }
    let (x, w) = (a.to_i64()?, b.to_i64()?);
    let sum = |row: usize, column: usize| -> Result<i64, String> {
        let zero = per_channel(&b_zero, column)?;
        let one = |k| {
            let (l, r) = (
                transposed.left(row, k, sizes),
                transposed.right(k, column, sizes),
            );
            (x[l] - a_zero) * (w[r] - zero)
        };
        let c = added
            .as_ref()
            .map_or(0, |c| c[if c.len() == 1 { 0 } else { column }]);
        Ok((0..inner).map(one).sum::<i64>() + c)
    };
    let unit = Tensor::f32(&[1], vec![1.0])?;
    let y_scale = optional(inputs, y);
    let multiplier = multipliers(
        required(inputs, 1)?,
        required(inputs, 4)?,
        y_scale.unwrap_or(&unit),
    )?;
    let y_zero = optional(inputs, y + 1);
    let zero = y_zero.map_or(Ok(0), single)?;
    let mut values = Vec::with_capacity(rows * columns);
    for i in 0..rows * columns {
        let (row, column) = (i / columns, i % columns);
        let (sum, multiplier) = (sum(row, column)?, per_channel(&multiplier, column)?);
        values.push(match y_scale {
            Some(_) => rescaled(sum, multiplier, zero),
            None => f64::from(sum as f32 * multiplier),
        });
    }
    let dims = [rows, columns];
    Ok(vec![match y_scale {
        Some(_) => saturated(
            &dims,
            values.into_iter(),
            y_zero.map_or(a.dtype(), Tensor::dtype),
        )?,
        None => Tensor::f32(&dims, values.into_iter().map(|v| v as f32).collect())?,
    }])
}

/// A function of tensors of floats applied to the quantised operand 0, with the scale of the result at
/// input `y`.
pub(crate) fn applied(
    inputs: &Inputs<'_>,
    y: usize,
    function: &dyn Fn(&Tensor) -> Result<Tensor, String>,
) -> Result<Vec<Tensor>, String> {
    requantized(inputs, y, &function(&dequantized(inputs, 0)?)?)
}

/// A function of each element: x (3), y (2).
pub(crate) fn unary(f: impl Fn(f32) -> f32 + 'static) -> Built {
    plain(move |inputs| applied(inputs, 3, &|x| elementwise::map(x, &f)))
}

/// QLinearConcat: y (2), then each operand (3).
pub(crate) fn concat(attrs: &Attrs<'_>) -> Built {
    let join = super::concat::build(attrs)?;
    plain(move |inputs| {
        let parts: Result<Vec<Tensor>, String> = (2..inputs.len())
            .step_by(3)
            .map(|i| dequantized(inputs, i))
            .collect();
        let parts = parts?;
        let parts: Vec<Option<&Tensor>> = parts.iter().map(Some).collect();
        let y = join(&parts)?;
        let first = y.first().ok_or("nothing was joined")?;
        let (scale, zero) = (required(inputs, 0)?, required(inputs, 1)?);
        let scales = Scales::of(first.dims(), 0, scale, Some(zero))?;
        Ok(vec![scales.quantize(first, zero.dtype())?])
    })
}

/// Two quantised operands: a (3), b (3), y (2).
pub(crate) fn binary(f: fn(f32, f32) -> f32) -> Built {
    plain(move |inputs| {
        let y = elementwise::zip(&dequantized(inputs, 0)?, &dequantized(inputs, 3)?, f)?;
        requantized(inputs, 6, &y)
    })
}

/// QLinearAveragePool.
pub(crate) fn average_pool(attrs: &Attrs<'_>) -> Built {
    channels_first(attrs)?;
    let averaging = pool::averaging(attrs)?;
    plain(move |inputs| requantized(inputs, 3, &averaging(&dequantized(inputs, 0)?)?))
}

/// QLinearGlobalAveragePool.
pub(crate) fn global_average_pool(attrs: &Attrs<'_>) -> Built {
    channels_first(attrs)?;
    plain(|inputs| requantized(inputs, 3, &pool::mean_of_all(&dequantized(inputs, 0)?)?))
}

fn channels_first(attrs: &Attrs<'_>) -> Result<(), String> {
    if attrs.int("channels_last", 0) == 0 {
        Ok(())
    } else {
        Err("channels_last is not supported".into())
    }
}

/// QLinearSoftmax.
pub(crate) fn softmax(attrs: &Attrs<'_>, opset: i64) -> Built {
    let opset = attrs.int("opset", opset);
    let axis = attrs.int("axis", if opset >= 13 { -1 } else { 1 });
    plain(move |inputs| {
        requantized(
            inputs,
            3,
            &softmax::softmax(&dequantized(inputs, 0)?, axis, opset)?,
        )
    })
}
