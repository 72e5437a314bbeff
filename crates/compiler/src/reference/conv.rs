//! Conv: any number of spatial dimensions, groups, strides, dilations, padding.

use super::window::Window;
use super::{Built, optional, plain, required};
use crate::onnx::Attrs;
use crate::tensor::Tensor;

/// Shape of a convolution: `x` is [N, C, spatial..], `w` is [M, C / groups, kernel..].
pub(crate) struct Convolution {
    window: Window,
    groups: usize,
}

impl Convolution {
    /// Reads the attributes.
    pub(crate) fn of(attrs: &Attrs<'_>) -> Result<Self, String> {
        let groups = usize::try_from(attrs.int("group", 1)).unwrap_or(0);
        if groups == 0 {
            return Err("group must be positive".into());
        }
        Ok(Self {
            window: Window::of(attrs)?,
            groups,
        })
    }

    /// The output's dimensions and, element by element, `finish(m, sum)`, where `sum` adds
    /// `product(x element, w element)` over the window. Padding adds nothing.
    pub(crate) fn run<S: Default + std::ops::AddAssign, T>(
        &self,
        x: &[usize],
        w: &[usize],
        product: impl Fn(usize, usize) -> S,
        finish: impl Fn(usize, S) -> T,
    ) -> Result<(Vec<usize>, Vec<T>), String> {
        if x.len() < 3 || w.len() != x.len() {
            return Err(format!(
                "an input of {x:?} and weights of {w:?} do not go together"
            ));
        }
        let (channels, outputs, per_group) = (x[1], w[0], w[1]);
        if channels != per_group * self.groups || !outputs.is_multiple_of(self.groups) {
            return Err(format!(
                "{} groups do not divide input {x:?}, weights {w:?}",
                self.groups
            ));
        }
        let fitted = self.window.fit(&x[2..], Some(&w[2..]))?;
        if fitted.kernel != w[2..] {
            return Err(format!(
                "kernel_shape {:?} is not that of the weights",
                fitted.kernel
            ));
        }
        let area = |dims: &[usize]| dims.iter().product::<usize>();
        let (out_area, in_area, kernel_area) = (area(&fitted.out), area(&x[2..]), area(&w[2..]));
        let dims = [&[x[0], outputs], fitted.out.as_slice()].concat();
        let total = crate::tensor::elements(&dims).ok_or("the output is too large")?;
        let mut taps = Vec::new();
        let mut result = Vec::with_capacity(total);
        for n in 0..x[0] {
            for m in 0..outputs {
                let first = m / (outputs / self.groups) * per_group;
                for at in 0..out_area {
                    taps.clear();
                    fitted.visit(at, |k, s| taps.push((k, s)));
                    let mut sum = S::default();
                    for c in 0..per_group {
                        let x_at = (n * channels + first + c) * in_area;
                        let w_at = (m * per_group + c) * kernel_area;
                        taps.iter()
                            .for_each(|(k, s)| sum += product(x_at + s, w_at + k));
                    }
                    result.push(finish(m, sum));
                }
            }
        }
        Ok((dims, result))
    }
}

/// Builds the float operator.
pub(crate) fn build(attrs: &Attrs<'_>) -> Built {
    let conv = Convolution::of(attrs)?;
    plain(move |inputs| {
        let (x, w) = (required(inputs, 0)?, required(inputs, 1)?);
        let bias = optional(inputs, 2).map(Tensor::as_f32).transpose()?;
        if bias.is_some_and(|b| b.len() != w.dims()[0]) {
            return Err("the bias does not have an entry per output channel".into());
        }
        let (xs, ws) = (x.as_f32()?, w.as_f32()?);
        let product = |x: usize, w: usize| f64::from(xs[x]) * f64::from(ws[w]);
        let finish = |m: usize, sum: f64| (sum + bias.map_or(0.0, |b| f64::from(b[m]))) as f32;
        let (dims, data) = conv.run(x.dims(), w.dims(), product, finish)?;
        Ok(vec![Tensor::f32(&dims, data)?])
    })
}
