//! BatchNormalization with the statistics of training.

use super::{Built, plain, required};
use crate::onnx::Attrs;
use crate::tensor::Tensor;

/// y = (x - mean) / sqrt(var + epsilon) * scale + bias, per channel of [N, C, ..].
pub(crate) fn batch(attrs: &Attrs<'_>) -> Built {
    let epsilon = f64::from(attrs.float("epsilon").unwrap_or(1e-5));
    if attrs.int("training_mode", 0) != 0 {
        return Err("training_mode is not for inference; export the model in eval mode".into());
    }
    plain(move |inputs| {
        let x = required(inputs, 0)?;
        let &[_, channels, ..] = x.dims() else {
            return Err("[N, C, ..] is expected".into());
        };
        let area: usize = x.dims()[2..].iter().product();
        let mut parts = Vec::new();
        for index in 1..=4 {
            let part = required(inputs, index)?.as_f32()?;
            if part.len() != channels {
                return Err(format!("input {index} needs {channels} entries"));
            }
            parts.push(part);
        }
        let one = |(i, v): (usize, &f32)| {
            let [scale, bias, mean, var] =
                [0, 1, 2, 3].map(|p| f64::from(parts[p][i / area.max(1) % channels]));
            ((f64::from(*v) - mean) / (var + epsilon).sqrt() * scale + bias) as f32
        };
        Ok(vec![Tensor::f32(
            x.dims(),
            x.as_f32()?.iter().enumerate().map(one).collect(),
        )?])
    })
}
