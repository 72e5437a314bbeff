//! DFT and STFT: a transform is a product with a constant matrix, so that it runs on the kernel of other
//! products; windows and frames are part of it.

use super::MIXES;
use super::{Call, Operator};
use crate::kernels::{Element, Fill};
use crate::lower::dense::{Bias, Ending, Terms, product_into, product_of_rows};
use crate::lower::{Layout, LowerCx};
use crate::math::turn;
use crate::onnx::Attrs;
use crate::reference::axis_of;
use crate::reference::places::{places, ravel};
use crate::tensor::Tensor;
use crate::typed::{Clamp, NodeView, Type};
use sandpiper_core::tensor::{DType, Dim};

/// Most points of a transform: its matrix has that many squared.
const MAX_POINTS: usize = 8192;

/// What is done with a product's columns, inner size and terms.
type Multiply<'a> = &'a mut dyn FnMut([usize; 2], &Terms<'_>) -> Result<(), String>;

/// One transform.
#[derive(Debug, Clone, Copy)]
struct Transform {
    /// Points that are there; those beyond are 0, or are left out.
    given: usize,
    /// Points of the transform.
    points: usize,
    /// Frequencies of the result.
    frequencies: usize,
    /// 1 for real, 2 for complex points.
    parts: usize,
    inverse: bool,
}

impl Transform {
    fn of(
        (given, points): (usize, usize),
        parts: usize,
        (onesided, inverse): (bool, bool),
    ) -> Result<Self, String> {
        if points == 0 || points > MAX_POINTS {
            return Err(format!("{points} points; 1 to {MAX_POINTS} are supported"));
        }
        if !(1..=2).contains(&parts) {
            return Err(format!("points of {parts} parts; 1 or 2 are expected"));
        }
        if onesided && inverse {
            return Err("an inverse transform of one side is not supported".into());
        }
        Ok(Self {
            given,
            points,
            frequencies: if onesided { points / 2 + 1 } else { points },
            parts,
            inverse,
        })
    }

    /// What part `p` of point `n` adds to part `q` of frequency `k`.
    fn factor(&self, (n, p): (usize, usize), (k, q): (usize, usize)) -> f64 {
        let (cosine, sine) = turn(n * k % self.points, self.points);
        let sine = if self.inverse { sine } else { -sine };
        let value = match (p, q) {
            (0, 0) | (1, 1) => cosine,
            (0, _) => sine,
            _ => -sine,
        };
        let scale = if self.inverse {
            self.points as f64
        } else {
            1.0
        };
        value / scale
    }

    /// The transform of one row of points, in 64 bits.
    fn evaluate(&self, points: &[f64]) -> Vec<f64> {
        let step = std::f64::consts::TAU / self.points as f64;
        let used = self.given.min(self.points);
        let one = |i: usize| {
            let (k, q) = (i / 2, i % 2);
            let terms = (0..used).map(|n| {
                let angle = step * (n * k % self.points) as f64;
                let (sine, cosine) = if self.inverse { angle } else { -angle }.sin_cos();
                let real = points[n * self.parts];
                let imaginary = if self.parts == 2 {
                    points[n * 2 + 1]
                } else {
                    0.0
                };
                match q {
                    0 => real * cosine - imaginary * sine,
                    _ => real * sine + imaginary * cosine,
                }
            });
            let sum: f64 = terms.sum();
            sum / if self.inverse {
                self.points as f64
            } else {
                1.0
            }
        };
        (0..2 * self.frequencies).map(one).collect()
    }

    /// Calls `body` with the terms of the product; each point is multiplied by its window first.
    fn product(&self, window: Option<&[f32]>, body: Multiply<'_>) -> Result<(), String> {
        let weight = |column: usize, k: usize, _: usize| {
            let n = k / self.parts;
            if n >= self.points {
                return 0.0;
            }
            let window = window.map_or(1.0, |w| f64::from(w[n]));
            (window * self.factor((n, k % self.parts), (column / 2, column % 2))) as f32
        };
        let columns = 2 * self.frequencies;
        let terms = Terms {
            element: Element::F32,
            weight: &weight,
            bias: Bias::Known(vec![0; columns]),
            finish: Ending::Float(Clamp::NONE),
            fill: Fill::Byte(0),
        };
        body([columns, self.given * self.parts], &terms)
    }
}

fn number(tensor: Option<&Tensor>) -> Result<Option<i64>, String> {
    let values = tensor.map(Tensor::to_i64).transpose()?;
    Ok(values.and_then(|v| v.first().copied()))
}

/// DFT: x of [.., points, 1 or 2], the number of points, and from opset 20 on the axis.
pub(crate) struct Dft;

impl Dft {
    fn plan(
        attrs: &Attrs<'_>,
        opset: i64,
        dims: &[usize],
        [length, axis]: [Option<&Tensor>; 2],
    ) -> Result<(usize, Transform), String> {
        let axis = match opset {
            20.. => number(axis)?.unwrap_or(-2),
            _ => attrs.int("axis", 1),
        };
        let parts = *dims.last().ok_or("a scalar has no points")?;
        let axis = axis_of(axis, dims.len())?;
        if axis + 1 == dims.len() {
            return Err("the last axis holds the parts of a point".into());
        }
        let points = number(length)?.map_or(Ok(dims[axis]), usize::try_from);
        let points = points.map_err(|_| "a negative number of points")?;
        let flags = (attrs.int("onesided", 0) != 0, attrs.int("inverse", 0) != 0);
        Ok((axis, Transform::of((dims[axis], points), parts, flags)?))
    }

    fn of_node(node: &NodeView<'_>) -> Result<(usize, Transform), String> {
        let ty = node.float(0)?;
        let given = [node.optional_constant(1)?, node.optional_constant(2)?];
        let (axis, transform) = Self::plan(&node.attrs(), node.opset, &ty.item(), given)?;
        match ty.has_batch() && axis == 0 {
            true => Err(MIXES.into()),
            false => Ok((axis, transform)),
        }
    }
}

/// Dimensions with other sizes along an axis and at the end.
fn resized<T: Clone>(dims: &[T], axis: usize, [size, parts]: [T; 2]) -> Vec<T> {
    let mut dims = dims.to_vec();
    dims[axis] = size;
    if let Some(last) = dims.last_mut() {
        *last = parts;
    }
    dims
}

/// Strides of [outer, axis, inner, parts] where it lies so, and where the axis comes after `inner`.
fn orders([_, len, inner, parts]: [usize; 4]) -> [[usize; 4]; 2] {
    let all = len * inner * parts;
    [[all, inner * parts, parts, 1], [all, parts, len * parts, 1]]
}

impl Operator for Dft {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let (axis, transform) = Self::of_node(node)?;
        let sizes = [transform.frequencies, 2].map(|n| Dim::Fixed(n as u32));
        let dims = resized(&node.ty(0)?.dims, axis, sizes);
        Ok(vec![Type::new(DType::F32, dims)])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let x = call.input(0)?;
        let given = [call.optional(1), call.optional(2)];
        let (axis, transform) = Self::plan(&call.attrs(), call.opset, x.dims(), given)?;
        let dims = resized(x.dims(), axis, [transform.frequencies, 2]);
        let mut y = vec![0.0; dims.iter().product()];
        let values = x.as_f32()?;
        for place in places(&resized(x.dims(), axis, [1, 1])) {
            let at = |dims: &[usize], n: usize, part: usize| {
                ravel(&resized(&place, axis, [n, part]), dims)
            };
            let points = (0..transform.given * transform.parts).map(|i| {
                let (n, part) = (i / transform.parts, i % transform.parts);
                f64::from(values[at(x.dims(), n, part)])
            });
            let points: Vec<f64> = points.collect();
            for (i, v) in transform.evaluate(&points).into_iter().enumerate() {
                y[at(&dims, i / 2, i % 2)] = v as f32;
            }
        }
        Ok(vec![Tensor::f32(&dims, y)?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let (axis, transform) = Self::of_node(&cx.view())?;
        let dims = cx.ty(0)?.item();
        let outer: usize = dims[..axis].iter().product();
        let inner: usize = dims[axis + 1..dims.len() - 1].iter().product();
        let mut src = cx.read(0, Layout::Plain)?;
        if inner > 1 {
            let dims = [outer, transform.given, inner, transform.parts];
            let to = cx.temporary(4 * dims.iter().product::<usize>());
            let [plain, turned] = orders(dims);
            cx.reorder("axes", (src, to), &dims, [&plain, &turned])?;
            src = to;
        }
        let result = cx.write(Layout::Plain)?;
        let made = match inner {
            1 => result,
            _ => cx.temporary(4 * outer * inner * transform.frequencies * 2),
        };
        transform.product(None, &mut |[columns, points], terms| {
            product_into(cx, (src, made), [outer * inner, columns, points], terms)
        })?;
        if inner > 1 {
            let dims = [outer, transform.frequencies, inner, 2];
            let [plain, turned] = orders(dims);
            cx.reorder("axes", (made, result), &dims, [&turned, &plain])?;
        }
        Ok(())
    }
}

/// STFT: signal of [batch, length, 1 or 2], step between frames, window, length of a frame.
pub(crate) struct Stft;

struct Frames {
    count: usize,
    step: usize,
    transform: Transform,
}

impl Stft {
    fn plan(
        attrs: &Attrs<'_>,
        dims: &[usize],
        [step, window, length]: [Option<&Tensor>; 3],
    ) -> Result<Frames, String> {
        let (len, parts) = match *dims {
            [_, len] => (len, 1),
            [_, len, parts] => (len, parts),
            _ => return Err(format!("a signal of {dims:?}")),
        };
        let size = |t: Option<&Tensor>| -> Result<Option<usize>, String> {
            let all = number(t)?.map(usize::try_from).transpose();
            all.map_err(|_| "a negative size".to_owned())
        };
        let step = size(step)?.filter(|s| *s > 0).ok_or("a step of 0")?;
        let given = size(length)?.or(window.map(Tensor::len));
        let frame = given.ok_or("neither a window nor the length of a frame")?;
        if frame > len || window.is_some_and(|w| w.len() != frame) {
            return Err(format!("frames of {frame} in a signal of {len}"));
        }
        let onesided = attrs.int("onesided", 1) != 0;
        if onesided && parts == 2 {
            return Err("one side of complex points is not supported".into());
        }
        Ok(Frames {
            count: (len - frame) / step + 1,
            step,
            transform: Transform::of((frame, frame), parts, (onesided, false))?,
        })
    }

    fn of_node(node: &NodeView<'_>) -> Result<Frames, String> {
        let mut given = [None; 3];
        for (slot, i) in given.iter_mut().zip(1..) {
            *slot = node.optional_constant(i)?;
        }
        Self::plan(&node.attrs(), &node.float(0)?.item(), given)
    }
}

impl Operator for Stft {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let frames = Self::of_node(node)?;
        let rest = [frames.count, frames.transform.frequencies, 2];
        Ok(vec![crate::lower::window::result(
            node.ty(0)?,
            DType::F32,
            &rest,
        )])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let x = call.input(0)?;
        let window = call.optional(2);
        let given = [call.optional(1), window, call.optional(3)];
        let f = Self::plan(&call.attrs(), x.dims(), given)?;
        let (t, window) = (f.transform, window.map(Tensor::as_f32).transpose()?);
        let signals = x.as_f32()?.chunks(x.len() / x.dims()[0]);
        let mut y = Vec::new();
        for signal in signals {
            for frame in 0..f.count {
                let points = signal[frame * f.step * t.parts..][..t.given * t.parts].iter();
                let shaped = points.enumerate().map(|(i, v)| {
                    let window = window.map_or(1.0, |w| f64::from(w[i / t.parts]));
                    f64::from(*v) * window
                });
                let shaped: Vec<f64> = shaped.collect();
                y.extend(t.evaluate(&shaped).into_iter().map(|v| v as f32));
            }
        }
        let dims = [x.dims()[0], f.count, t.frequencies, 2];
        Ok(vec![Tensor::f32(&dims, y)?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let f = Self::of_node(&node)?;
        let window = node.optional_constant(2)?.map(Tensor::as_f32).transpose()?;
        let dims = node.ty(0)?.item();
        let places = (cx.read(0, Layout::Plain)?, cx.write(Layout::Plain)?);
        let signal = dims[1..].iter().product();
        let rows = [dims[0], f.count, signal, f.step * f.transform.parts];
        f.transform
            .product(window, &mut |[columns, points], terms| {
                product_of_rows(cx, places, rows, [columns, points], terms)
            })
    }
}
