//! Pooling over windows and over everything.

use super::numbers::{Number, numbers, tensor};
use super::window::Window;
use super::{Built, plain, required};
use crate::onnx::Attrs;
use crate::tensor::{Data, Tensor};

/// Reduces each window with `reduce(values, kernel size)`.
fn pooled(
    x: &Tensor,
    window: &Window,
    reduce: impl Fn(&[f32], usize) -> f32,
) -> Result<Tensor, String> {
    if x.dims().len() < 3 {
        return Err("[N, C, spatial..] is expected".into());
    }
    let fitted = window.fit(&x.dims()[2..], None)?;
    let (planes, spatial) = x.dims().split_at(2);
    let in_area: usize = spatial.iter().product();
    let out_area: usize = fitted.out.iter().product();
    let kernel: usize = fitted.kernel.iter().product();
    let data = x.as_f32()?;
    let mut out = Vec::new();
    let mut values = Vec::new();
    for plane in 0..planes.iter().product() {
        for at in 0..out_area {
            values.clear();
            fitted.visit(at, |_, s| values.push(data[plane * in_area + s]));
            out.push(reduce(&values, kernel));
        }
    }
    Tensor::f32(&[planes, &fitted.out].concat(), out)
}

fn mean(values: &[f32], count: usize) -> f32 {
    (values.iter().map(|v| f64::from(*v)).sum::<f64>() / count.max(1) as f64) as f32
}

/// The mean of each window, padding counted or not.
pub(crate) fn averaging(
    attrs: &Attrs<'_>,
) -> Result<impl Fn(&Tensor) -> Result<Tensor, String> + use<>, String> {
    let window = Window::of(attrs)?;
    let with_padding = attrs.int("count_include_pad", 0) != 0;
    Ok(move |x: &Tensor| {
        pooled(x, &window, |v, kernel| {
            mean(v, if with_padding { kernel } else { v.len() })
        })
    })
}

/// AveragePool.
pub(crate) fn average(attrs: &Attrs<'_>) -> Built {
    let averaging = averaging(attrs)?;
    plain(move |inputs| Ok(vec![averaging(required(inputs, 0)?)?]))
}

/// MaxPool: greatest values and their indices in the whole tensor, the first of equal ones; the first
/// NaN of a window, if there is one.
pub(crate) fn max(attrs: &Attrs<'_>) -> Built {
    let window = Window::of(attrs)?;
    plain(move |inputs| {
        let x = required(inputs, 0)?;
        if x.dims().len() < 3 {
            return Err("[N, C, spatial..] is expected".into());
        }
        let fitted = window.fit(&x.dims()[2..], None)?;
        let all = numbers(x);
        let (planes, spatial) = x.dims().split_at(2);
        let (area, out): (usize, usize) = (spatial.iter().product(), fitted.out.iter().product());
        let (mut values, mut indices) = (Vec::new(), Vec::new());
        for plane in 0..planes.iter().product() {
            for at in 0..out {
                let mut best: Option<(Number, usize)> = None;
                fitted.visit(at, |_, s| {
                    let (i, value) = (plane * area + s, all[plane * area + s]);
                    let better = best.is_none_or(|(old, _)| {
                        let (new, old) = (value.float(), old.float());
                        !old.is_nan() && (new > old || new.is_nan())
                    });
                    best = if better { Some((value, i)) } else { best };
                });
                let (value, index) = best.ok_or("a window lies in padding only")?;
                values.push(value);
                indices.push(index as i64);
            }
        }
        let dims = [planes, &fitted.out].concat();
        let indices = Tensor::new(dims.clone(), Data::I64(indices))?;
        Ok(vec![tensor(x.dtype(), dims, &values)?, indices])
    })
}

/// The mean over all spatial dimensions.
pub(crate) fn mean_of_all(x: &Tensor) -> Result<Tensor, String> {
    if x.dims().len() < 3 {
        return Err("[N, C, spatial..] is expected".into());
    }
    let area: usize = x.dims()[2..].iter().product();
    let means = x
        .as_f32()?
        .chunks(area.max(1))
        .map(|c| mean(c, area))
        .collect();
    let mut dims = x.dims()[..2].to_vec();
    dims.resize(x.dims().len(), 1);
    Tensor::f32(&dims, means)
}

/// GlobalAveragePool.
pub(crate) fn global_average() -> Built {
    plain(|inputs| Ok(vec![mean_of_all(required(inputs, 0)?)?]))
}

/// GlobalMaxPool.
pub(crate) fn global_max() -> Built {
    plain(|inputs| {
        let x = required(inputs, 0)?;
        let window = Window::whole(x.dims().get(2..).unwrap_or_default());
        let most = |v: &[f32], _| v.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        Ok(vec![pooled(x, &window, most)?])
    })
}

/// The norm of each window, or of all there is.
pub(crate) fn norms(attrs: &Attrs<'_>, global: bool) -> Built {
    let window = (!global).then(|| Window::of(attrs)).transpose()?;
    let p = attrs.int("p", 2) as f64;
    plain(move |inputs| {
        let x = required(inputs, 0)?;
        let whole = Window::whole(x.dims().get(2..).unwrap_or_default());
        let norm = |v: &[f32], _| {
            let sum: f64 = v.iter().map(|v| f64::from(v.abs()).powf(p)).sum();
            sum.powf(1.0 / p) as f32
        };
        Ok(vec![pooled(x, window.as_ref().unwrap_or(&whole), norm)?])
    })
}
