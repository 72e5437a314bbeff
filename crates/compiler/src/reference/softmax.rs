//! Softmax along an axis; before opset 13 over all dimensions from the axis on.

use super::quantize::axis_of;
use super::{Built, plain, required};
use crate::onnx::Attrs;
use crate::tensor::Tensor;

/// Softmax of a float tensor.
pub(crate) fn softmax(x: &Tensor, axis: i64, opset: i64) -> Result<Tensor, String> {
    let axis = axis_of(axis, x.dims().len())?;
    let last = if opset >= 13 {
        axis + 1
    } else {
        x.dims().len()
    };
    let size: usize = x.dims()[axis..last].iter().product();
    let stride: usize = x.dims()[last..].iter().product();
    let mut data = x.as_f32()?.to_vec();
    for block in data.chunks_mut((size * stride).max(1)) {
        for lane in 0..stride {
            let most = (0..size)
                .map(|i| block[i * stride + lane])
                .fold(f32::NEG_INFINITY, f32::max);
            let exp = |v: f32| f64::from(v - most).exp();
            let sum: f64 = (0..size).map(|i| exp(block[i * stride + lane])).sum();
            (0..size).for_each(|i| {
                let v = &mut block[i * stride + lane];
                *v = (exp(*v) / sum) as f32;
            });
        }
    }
    Tensor::f32(x.dims(), data)
}

/// Builds the operator.
pub(crate) fn build(attrs: &Attrs<'_>, opset: i64) -> Built {
    let axis = attrs.int("axis", if opset >= 13 { -1 } else { 1 });
    plain(move |inputs| Ok(vec![softmax(required(inputs, 0)?, axis, opset)?]))
}
