//! QuantizeLinear and DequantizeLinear, per tensor and per axis.

use super::{Inputs, optional, required};
use crate::onnx::Attrs;
use crate::tensor::{Data, Tensor};
use sandpiper_core::tensor::DType;

/// Scale and zero point of each slice along an axis, of blocks along it, or of the whole tensor.
pub(crate) struct Scales {
    scale: Vec<f32>,
    zero: Vec<i64>,
    /// Elements that share a scale before the next one comes.
    stride: usize,
    /// Where every element has its own place along the axis: the axis' size, and the block's.
    blocks: Option<(usize, usize)>,
}

impl Scales {
    /// Of a tensor of `dims`, with the scale and zero point along `axis` unless they are single.
    pub(crate) fn of(
        dims: &[usize],
        axis: i64,
        scale: &Tensor,
        zero: Option<&Tensor>,
    ) -> Result<Self, String> {
        let scale = scale.as_f32()?.to_vec();
        let zero = zero.map_or_else(|| Ok(vec![0; scale.len()]), Tensor::to_i64)?;
        if scale.is_empty() || zero.len() != scale.len() {
            return Err("scale and zero point differ in length".into());
        }
        if scale.len() == 1 {
            return Ok(Self {
                scale,
                zero,
                stride: usize::MAX,
                blocks: None,
            });
        }
        let axis = axis_of(axis, dims.len())?;
        if dims[axis] != scale.len() {
            return Err(format!(
                "{} scales for axis {axis} of {dims:?}",
                scale.len()
            ));
        }
        let stride = dims[axis + 1..].iter().product::<usize>().max(1);
        Ok(Self {
            scale,
            zero,
            stride,
            blocks: None,
        })
    }

    /// Of a tensor of `dims`, with scale and zero point for each block of `size` elements along `axis`:
    /// a tensor of the same dimensions, but for the number of blocks.
    pub(crate) fn by_block(
        dims: &[usize],
        (axis, size): (i64, usize),
        scale: &Tensor,
        zero: Option<&Tensor>,
    ) -> Result<Self, String> {
        let axis = axis_of(axis, dims.len())?;
        let mut wanted = dims.to_vec();
        wanted[axis] = dims[axis].div_ceil(size.max(1));
        let zero_dims = zero.map_or(wanted.as_slice(), Tensor::dims);
        if size == 0 || scale.dims() != wanted || zero_dims != wanted {
            return Err(format!(
                "scales of {:?} for blocks of {size} along axis {axis} of {dims:?}",
                scale.dims()
            ));
        }
        let zero = zero.map_or_else(|| Ok(vec![0; scale.len()]), Tensor::to_i64)?;
        Ok(Self {
            scale: scale.as_f32()?.to_vec(),
            zero,
            stride: dims[axis + 1..].iter().product(),
            blocks: Some((dims[axis], size)),
        })
    }

    /// Of the attributes `axis` and `block_size`.
    pub(crate) fn given(
        attrs: &Attrs<'_>,
        dims: &[usize],
        scale: &Tensor,
        zero: Option<&Tensor>,
    ) -> Result<Self, String> {
        let (axis, size) = (attrs.int("axis", 1), attrs.int("block_size", 0));
        match usize::try_from(size) {
            Ok(0) => Self::of(dims, axis, scale, zero),
            Ok(size) => Self::by_block(dims, (axis, size), scale, zero),
            Err(_) => Err(format!("blocks of {size}")),
        }
    }

    fn at(&self, index: usize) -> (f32, i64) {
        let slice = match self.blocks {
            None => index / self.stride % self.scale.len(),
            Some((len, size)) => {
                let (row, inner) = (index / self.stride, index % self.stride);
                let block = row / len * len.div_ceil(size) + row % len / size;
                block * self.stride + inner
            }
        };
        (self.scale[slice], self.zero[slice])
    }

    /// The scale and the zero point of every element of a tensor.
    pub(crate) fn spread(&self, dims: &[usize]) -> Result<(Tensor, Tensor), String> {
        let n = dims.iter().product();
        let (scale, zero) = (0..n)
            .map(|i| self.at(i))
            .map(|(s, z)| (s, z as f32))
            .unzip();
        Ok((Tensor::f32(dims, scale)?, Tensor::f32(dims, zero)?))
    }

    /// Integers to floats.
    pub(crate) fn dequantize(&self, x: &Tensor) -> Result<Tensor, String> {
        let one = |(i, v): (usize, &i64)| {
            let (scale, zero) = self.at(i);
            (v - zero) as f32 * scale
        };
        Tensor::f32(x.dims(), x.to_i64()?.iter().enumerate().map(one).collect())
    }

    /// Floats to integers: round half to even, saturate.
    pub(crate) fn quantize(&self, x: &Tensor, dtype: DType) -> Result<Tensor, String> {
        let values = x.as_f32()?.iter().enumerate().map(|(i, v)| {
            let (scale, zero) = self.at(i);
            f64::from((v / scale).round_ties_even()) + zero as f64
        });
        saturated(x.dims(), values, dtype)
    }
}

/// An axis that may count from the end.
pub(crate) fn axis_of(axis: i64, rank: usize) -> Result<usize, String> {
    let shifted = if axis < 0 { axis + rank as i64 } else { axis };
    let axis = usize::try_from(shifted).ok().filter(|a| *a < rank);
    axis.ok_or_else(|| format!("axis {shifted} is outside of {rank} dimensions"))
}

/// Rounded values cut to the range of an 8-bit type. NaN becomes the least value.
pub(crate) fn saturated(
    dims: &[usize],
    values: impl Iterator<Item = f64>,
    dtype: DType,
) -> Result<Tensor, String> {
    // `as` saturates, and makes NaN 0.
    let data = match dtype {
        DType::I8 => {
            let one = |v: f64| if v.is_nan() { i8::MIN } else { v as i8 };
            Data::I8(values.map(one).collect())
        }
        DType::U8 => Data::U8(values.map(|v| v as u8).collect()),
        other => return Err(format!("quantising to {other} is not supported")),
    };
    Tensor::new(dims.to_vec(), data)
}

/// QuantizeLinear. Without a zero point the output is u8.
pub(crate) fn quantize(attrs: &Attrs<'_>, inputs: &Inputs<'_>) -> Result<Vec<Tensor>, String> {
    let (x, zero) = (required(inputs, 0)?, optional(inputs, 2));
    let scales = Scales::given(attrs, x.dims(), required(inputs, 1)?, zero)?;
    let dtype = zero.map_or(DType::U8, Tensor::dtype);
    Ok(vec![scales.quantize(x, dtype)?])
}

/// DequantizeLinear.
pub(crate) fn dequantize(attrs: &Attrs<'_>, inputs: &Inputs<'_>) -> Result<Vec<Tensor>, String> {
    let x = required(inputs, 0)?;
    let scales = Scales::given(attrs, x.dims(), required(inputs, 1)?, optional(inputs, 2))?;
    Ok(vec![scales.dequantize(x)?])
}
