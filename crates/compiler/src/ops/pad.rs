//! Pad: by a value, or by what is at the edges, mirrored or wrapped; constant widths.

use super::MIXES;
use super::{Call, Operator};
use crate::emit::Ref;
use crate::kernels::{Bin, Ex, Scalar, index};
use crate::lower::{Layout, LowerCx};
use crate::onnx::Attrs;
use crate::reference::axis_of;
use crate::reference::numbers::{Number, numbers, tensor};
use crate::reference::places::{places, ravel};
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type, fixed};
use sandpiper_core::tensor::Dim;

/// Pad with constant widths: by a value, or by what is at the edges, mirrored or wrapped.
pub(crate) struct Pad;

/// Widths before and after, by dimension; negative ones cut.
fn widths(
    attrs: &Attrs<'_>,
    given: Option<&Tensor>,
    axes: Option<&Tensor>,
    rank: usize,
) -> Result<Vec<(i64, i64)>, String> {
    let pads = match given {
        Some(tensor) => tensor.to_i64()?,
        None => attrs
            .ints("pads")
            .or_else(|| attrs.ints("paddings"))
            .ok_or("pads are missing")?,
    };
    let axes = match axes {
        Some(tensor) => tensor.to_i64()?,
        None => (0..rank as i64).collect(),
    };
    if pads.len() != 2 * axes.len() || pads.iter().any(|p| p.abs() > 1 << 24) {
        return Err(format!("pads of {pads:?} for {} axes", axes.len()));
    }
    let mut widths = vec![(0, 0); rank];
    for (i, axis) in axes.iter().enumerate() {
        widths[axis_of(*axis, rank)?] = (pads[i], pads[i + axes.len()]);
    }
    Ok(widths)
}

fn padded(dims: &[usize], widths: &[(i64, i64)], mode: &str) -> Result<Vec<usize>, String> {
    let all = dims.iter().zip(widths);
    all.map(|(d, (before, after))| {
        let size = *d as i64 + before + after;
        let reach = (*before).max(*after);
        if mode == "reflect" && reach >= *d as i64 {
            return Err(format!("a reflection of {reach} of only {d} elements"));
        }
        usize::try_from(size)
            .ok()
            .filter(|n| *n > 0)
            .ok_or_else(|| "nothing is left".to_owned())
    })
    .collect()
}

/// The element that a place outside stands for.
fn folded(at: i64, size: i64, mode: &str) -> Option<i64> {
    match mode {
        "edge" => Some(at.clamp(0, size - 1)),
        "reflect" if at < 0 => Some(-at),
        "reflect" if at >= size => Some(2 * (size - 1) - at),
        "wrap" => Some(at.rem_euclid(size)),
        _ if (0..size).contains(&at) => Some(at),
        _ => None,
    }
}

fn mode(attrs: &Attrs<'_>) -> Result<String, String> {
    let mode = attrs.text("mode", "constant");
    match mode.as_str() {
        "constant" | "reflect" | "edge" | "wrap" => Ok(mode),
        other => Err(format!("the mode `{other}` is not known")),
    }
}

fn pad_of(node: &NodeView<'_>) -> Result<(Vec<(i64, i64)>, String), String> {
    let ty = node.ty(0)?;
    let given = node.optional_constant(1)?;
    let axes = node.optional_constant(3)?;
    let widths = widths(&node.attrs(), given, axes, ty.dims.len())?;
    if ty.has_batch() && widths[0] != (0, 0) {
        return Err(MIXES.into());
    }
    Ok((widths, mode(&node.attrs())?))
}

impl Operator for Pad {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let ((widths, mode), ty) = (pad_of(node)?, node.ty(0)?);
        let dims = padded(&ty.item(), &widths, &mode)?;
        let mut dims = fixed(&dims);
        if ty.has_batch() {
            dims[0] = Dim::Batch;
        }
        if let Some(value) = node.optional(2)
            && value.ty.dtype != ty.dtype
        {
            return Err(format!("a value of {} for {}", value.ty.dtype, ty.dtype));
        }
        Ok(vec![Type::new(ty.dtype, dims)])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let (x, attrs) = (call.input(0)?, call.attrs());
        let mode = mode(&attrs)?;
        let widths = widths(&attrs, call.optional(1), call.optional(3), x.dims().len())?;
        let value = match call.optional(2) {
            Some(value) => *numbers(value).first().ok_or("the value is empty")?,
            None => Number::Float(f64::from(attrs.float("value").unwrap_or(0.0))),
        };
        Ok(vec![evaluated(x, &widths, &mode, value)?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let (widths, mode) = pad_of(&node)?;
        let value = node
            .optional(2)
            .is_some()
            .then(|| cx.read(2, Layout::Plain))
            .transpose()?;
        let plain = node.attrs().float("value").unwrap_or(0.0);
        program(cx, &widths, &mode, (value, plain))
    }
}

/// A padded tensor.
fn evaluated(
    x: &Tensor,
    widths: &[(i64, i64)],
    mode: &str,
    value: Number,
) -> Result<Tensor, String> {
    let dims = padded(x.dims(), widths, mode)?;
    let all = numbers(x);
    let one = |place: Vec<usize>| {
        let each = place.iter().zip(widths).zip(x.dims());
        let inside: Option<Vec<usize>> = each
            .map(|((p, (before, _)), d)| {
                folded(*p as i64 - before, *d as i64, mode).map(|at| at as usize)
            })
            .collect();
        inside.map_or(value, |place| all[ravel(&place, x.dims())])
    };
    let values: Vec<Number> = places(&dims).map(one).collect();
    tensor(x.dtype(), dims, &values)
}

/// Adds the program that pads by these widths, with a value at run time or else a constant one.
fn program(
    cx: &mut LowerCx<'_>,
    widths: &[(i64, i64)],
    mode: &str,
    (value, plain): (Option<Ref>, f32),
) -> Result<(), String> {
    let (dims, dtype, out) = (cx.ty(0)?.item(), cx.ty(0)?.dtype, cx.out()?.item());
    let (src, dst) = (cx.read(0, Layout::Plain)?, cx.write(Layout::Plain)?);
    let strides = Layout::Plain.strides(&dims);
    let dense = Layout::Plain.strides(&out);
    let mut program = Scalar::new("pad");
    program.nest(&out, &mut |s, place| {
        let (mut inside, mut from) = (Ex::Int(1), Vec::new());
        for (i, at) in place.iter().enumerate() {
            let (before, after) = widths[i];
            if (before, after) == (0, 0) {
                from.push(at.clone());
                continue;
            }
            let last = Ex::Int(dims[i] as i32 - 1);
            let at = s.once(at.clone() - Ex::Int(before as i32));
            from.push(match mode {
                "reflect" => {
                    let low = at.clone().max(Ex::Int(0) - at);
                    low.clone().min(last * Ex::Int(2) - low)
                }
                "wrap" => {
                    let size = dims[i] as i32;
                    let turns = (before.max(0) as i32).div_euclid(size) + 1;
                    let positive = at + Ex::Int(turns * size);
                    positive.bin(Bin::RemU, Ex::Int(size))
                }
                mode => {
                    let cut = s.once(at.clone().max(Ex::Int(0)).min(last));
                    if mode == "constant" {
                        inside = inside.clone().bin(Bin::And, cut.clone().eq(at));
                    }
                    cut
                }
            });
        }
        let x = s.load(src, dtype, index(&from, &strides));
        let fill = match value {
            Some(value) => s.load(value, dtype, Ex::Int(0)),
            None => x.same(f64::from(plain)),
        };
        s.store(dst, dtype, index(place, &dense), inside.pick(x, fill));
    });
    cx.push(program, 0)
}

/// CenterCropPad to a constant shape: the middle, or zeros around it.
pub(crate) struct CenterCropPad;

/// Widths that bring dimensions to those wanted; the smaller half comes before.
fn centred(attrs: &Attrs<'_>, dims: &[usize], shape: &Tensor) -> Result<Vec<(i64, i64)>, String> {
    let (rank, wanted) = (dims.len(), shape.to_i64()?);
    let axes = attrs
        .ints("axes")
        .unwrap_or_else(|| (0..rank as i64).collect());
    if axes.len() != wanted.len() {
        return Err(format!("{} sizes for {} axes", wanted.len(), axes.len()));
    }
    let mut widths = vec![(0, 0); rank];
    for (axis, size) in axes.iter().zip(wanted) {
        let axis = axis_of(*axis, rank)?;
        let more = size.saturating_sub(dims[axis] as i64);
        let half = more / 2;
        widths[axis] = (half, more - half);
    }
    Ok(widths)
}

impl Operator for CenterCropPad {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let ty = node.ty(0)?;
        let widths = centred(&node.attrs(), &ty.item(), node.constant(1)?)?;
        if ty.has_batch() && widths[0] != (0, 0) {
            return Err(MIXES.into());
        }
        let mut dims = fixed(&padded(&ty.item(), &widths, "constant")?);
        if ty.has_batch() {
            dims[0] = Dim::Batch;
        }
        Ok(vec![Type::new(ty.dtype, dims)])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let x = call.input(0)?;
        let widths = centred(&call.attrs(), x.dims(), call.input(1)?)?;
        Ok(vec![evaluated(x, &widths, "constant", Number::Int(0))?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let widths = centred(&node.attrs(), &node.ty(0)?.item(), node.constant(1)?)?;
        program(cx, &widths, "constant", (None, 0.0))
    }
}
