//! Resize, and the older Upsample: nearest, linear, cubic, in all coordinate modes.
//!
//! Sampling is separable: along each axis, a place of the result is a weighted sum of a few places
//! of the source, which depend on the place alone. These taps are tables that are computed when the
//! model is compiled; the program only sums.

use super::{Call, MIXES, Operator};
use crate::kernels::{Ex, Scalar, Ty, index};
use crate::lower::{Layout, LowerCx};
use crate::onnx::{Attrs, NodeProto};
use crate::reference::axis_of;
use crate::reference::numbers::{Number, numbers, tensor};
use crate::reference::places::{places, ravel};
use crate::tensor::{Data, Tensor};
use crate::typed::{NodeView, Type, fixed};
use sandpiper_core::tensor::DType;

/// Resize.
pub(crate) struct Resize;

/// One place of the source and its weight.
type Tap = (usize, f64);

/// Along an axis: the taps of every place of the result; all have the same number.
#[derive(Debug)]
struct Axis {
    taps: Vec<Vec<Tap>>,
}

/// What the inputs say, as far as they are there.
struct Given<'a> {
    roi: Option<&'a Tensor>,
    scales: Option<&'a Tensor>,
    sizes: Option<&'a Tensor>,
}

struct Plan {
    out: Vec<usize>,
    axes: Vec<Axis>,
    /// What is taken for places outside of the region, if they are not sampled.
    outside: Option<f32>,
}

fn some(tensor: Option<&Tensor>) -> Option<&Tensor> {
    tensor.filter(|t| !t.is_empty())
}

/// How one axis is sampled.
struct Sampling<'a> {
    mode: &'a str,
    coordinates: &'a str,
    nearest: &'a str,
    cubic: f64,
    exclude: bool,
    antialias: bool,
}

impl Sampling<'_> {
    /// The place of the source, a fraction, for a place of the result.
    fn coordinate(
        &self,
        at: usize,
        (size, out): (usize, usize),
        scale: f64,
        roi: (f64, f64),
    ) -> f64 {
        let (x, size, length) = (at as f64, size as f64, out as f64);
        match self.coordinates {
            "align_corners" if out <= 1 => 0.0,
            // The length that scaling gives, which need not be whole.
            "align_corners" => x * (size - 1.0) / (size * scale - 1.0),
            "asymmetric" => x / scale,
            "pytorch_half_pixel" if out <= 1 => 0.0,
            "tf_half_pixel_for_nn" => (x + 0.5) / scale,
            "tf_crop_and_resize" if out > 1 => {
                roi.0 * (size - 1.0) + x * (roi.1 - roi.0) * (size - 1.0) / (length - 1.0)
            }
            "tf_crop_and_resize" => 0.5 * (roi.0 + roi.1) * (size - 1.0),
            "half_pixel_symmetric" => {
                let adjustment = length / (scale * size);
                let offset = size / 2.0 * (1.0 - adjustment);
                offset + (x + 0.5) / scale - 0.5
            }
            _ => (x + 0.5) / scale - 0.5,
        }
    }

    /// Weight of a place that lies `far` from the coordinate.
    fn kernel(&self, far: f64) -> f64 {
        let (far, a) = (far.abs(), self.cubic);
        match self.mode {
            "cubic" if far <= 1.0 => ((a + 2.0) * far - (a + 3.0)) * far * far + 1.0,
            "cubic" if far < 2.0 => a * (((far - 5.0) * far + 8.0) * far - 4.0),
            "cubic" => 0.0,
            _ => (1.0 - far).max(0.0),
        }
    }

    fn rounded(&self, x: f64) -> f64 {
        match self.nearest {
            "round_prefer_ceil" => (x + 0.5).floor(),
            "floor" => x.floor(),
            "ceil" => x.ceil(),
            _ => (x - 0.5).ceil(),
        }
    }

    fn taps(&self, x: f64, size: usize, scale: f64) -> Vec<Tap> {
        let last = size as i64 - 1;
        if self.mode == "nearest" {
            return vec![((self.rounded(x) as i64).clamp(0, last) as usize, 1.0)];
        }
        let reach = if self.mode == "cubic" { 2.0 } else { 1.0 };
        // With antialiasing the kernel is as wide as what becomes one place.
        let stretch = if self.antialias { scale.min(1.0) } else { 1.0 };
        let support = reach / stretch;
        let first = (x - support).floor() as i64 + 1;
        let count = (2.0 * support).ceil() as i64;
        let mut taps: Vec<(i64, f64)> = (first..first + count)
            .map(|i| (i, self.kernel((i as f64 - x) * stretch)))
            .collect();
        if self.exclude {
            taps.iter_mut()
                .filter(|(i, _)| !(0..=last).contains(i))
                .for_each(|(_, w)| *w = 0.0);
        }
        if self.exclude || self.antialias {
            let sum: f64 = taps.iter().map(|(_, w)| w).sum();
            if sum != 0.0 {
                taps.iter_mut().for_each(|(_, w)| *w /= sum);
            }
        }
        taps.into_iter()
            .map(|(i, w)| (i.clamp(0, last) as usize, w))
            .collect()
    }
}

fn plan(attrs: &Attrs<'_>, dims: &[usize], given: &Given<'_>, old: bool) -> Result<Plan, String> {
    let rank = dims.len();
    let axes: Vec<usize> = match attrs.ints("axes") {
        Some(axes) => axes
            .iter()
            .map(|a| axis_of(*a, rank))
            .collect::<Result<_, _>>()?,
        None => (0..rank).collect(),
    };
    let spread = |values: Vec<f64>, default: f64| -> Result<Vec<f64>, String> {
        let mut all = vec![default; rank];
        match values.len() == axes.len() {
            true => axes.iter().zip(values).for_each(|(a, v)| all[*a] = v),
            false => return Err(format!("{} entries for {} axes", values.len(), axes.len())),
        }
        Ok(all)
    };
    let floats = |t: &Tensor| numbers(t).iter().map(|n| n.float()).collect::<Vec<_>>();
    // The old one had no choice.
    let (default, rounding) = match old {
        true => ("asymmetric", "floor"),
        false => ("half_pixel", "round_prefer_floor"),
    };
    let coordinates = attrs.text("coordinate_transformation_mode", default);
    let crop = coordinates == "tf_crop_and_resize";
    let roi = match some(given.roi).filter(|_| crop) {
        Some(roi) => {
            let roi = floats(roi);
            let (start, end) = roi.split_at(roi.len() / 2);
            let (start, end) = (spread(start.to_vec(), 0.0)?, spread(end.to_vec(), 1.0)?);
            start.into_iter().zip(end).collect()
        }
        None => vec![(0.0, 1.0); rank],
    };
    let (out, scales) = match (some(given.scales), some(given.sizes)) {
        (Some(scales), _) => {
            let scales = spread(floats(scales), 1.0)?;
            let length = |i: usize| dims[i] as f64 * if crop { roi[i].1 - roi[i].0 } else { 1.0 };
            let out = (0..rank)
                .map(|i| (length(i) * scales[i] + 1e-9).floor() as usize)
                .collect();
            (out, scales)
        }
        (None, Some(sizes)) => {
            let sizes = spread(floats(sizes), f64::NAN)?;
            let wanted = |i: usize| {
                if sizes[i].is_nan() {
                    dims[i] as f64
                } else {
                    sizes[i]
                }
            };
            let mut scales: Vec<f64> = (0..rank).map(|i| wanted(i) / dims[i] as f64).collect();
            let policy = attrs.text("keep_aspect_ratio_policy", "stretch");
            let mut out: Vec<usize> = (0..rank).map(|i| wanted(i) as usize).collect();
            if policy != "stretch" {
                let all = axes.iter().map(|a| scales[*a]);
                let one = match policy.as_str() {
                    "not_larger" => all.fold(f64::INFINITY, f64::min),
                    _ => all.fold(0.0, f64::max),
                };
                for a in &axes {
                    scales[*a] = one;
                    out[*a] = (one * dims[*a] as f64 + 0.5).floor() as usize;
                }
            }
            (out, scales)
        }
        (None, None) => match attrs.floats("scales") {
            Some(scales) => {
                let scales = spread(scales.into_iter().map(f64::from).collect(), 1.0)?;
                let out = (0..rank)
                    .map(|i| (dims[i] as f64 * scales[i]).floor() as usize)
                    .collect();
                (out, scales)
            }
            None => return Err("neither scales nor sizes are given".into()),
        },
    };
    let out: Vec<usize> = out;
    if out.contains(&0) || scales.iter().any(|s| !s.is_finite() || *s <= 0.0) {
        return Err(format!("scales of {scales:?}"));
    }
    crate::tensor::elements(&out).ok_or("its result is too large")?;
    let mode = attrs.text("mode", "nearest");
    let nearest = attrs.text("nearest_mode", rounding);
    if !matches!(mode.as_str(), "nearest" | "linear" | "bilinear" | "cubic") {
        return Err(format!("the mode `{mode}` is not known"));
    }
    let sampling = Sampling {
        mode: if mode == "bilinear" { "linear" } else { &mode },
        coordinates: &coordinates,
        nearest: &nearest,
        cubic: f64::from(attrs.float("cubic_coeff_a").unwrap_or(-0.75)),
        exclude: attrs.int("exclude_outside", 0) != 0,
        antialias: attrs.int("antialias", 0) != 0,
    };
    let outside = crop.then(|| attrs.float("extrapolation_value").unwrap_or(0.0));
    let axis = |i: usize| {
        let same = out[i] == dims[i] && scales[i] == 1.0 && !crop;
        let one = |at: usize| {
            if same {
                return vec![(at, 1.0)];
            }
            let x = sampling.coordinate(at, (dims[i], out[i]), scales[i], roi[i]);
            let beyond = crop && !(0.0..=dims[i] as f64 - 1.0).contains(&x);
            // No taps mark a place outside of the region.
            if beyond {
                Vec::new()
            } else {
                sampling.taps(x, dims[i], scales[i])
            }
        };
        let mut taps: Vec<Vec<Tap>> = (0..out[i]).map(one).collect();
        let most = taps.iter().map(Vec::len).max().unwrap_or(0).max(1);
        // A mark that no weight can be: see `beyond`.
        taps.iter_mut()
            .filter(|t| t.is_empty())
            .for_each(|t| t.push((0, f64::NAN)));
        taps.iter_mut().for_each(|t| t.resize(most, (0, 0.0)));
        Axis { taps }
    };
    Ok(Plan {
        axes: (0..rank).map(axis).collect(),
        out,
        outside,
    })
}

/// Whether it is Upsample or Resize as it was up to opset 10: with scales as the second input.
fn old(proto: &NodeProto, opset: i64) -> bool {
    opset < 11 || proto.op_type == "Upsample"
}

fn of_node(node: &NodeView<'_>) -> Result<Plan, String> {
    let input = |i: usize| node.optional_constant(i);
    let old = old(node.proto, node.opset);
    let given = match old {
        true => Given {
            roi: None,
            scales: input(1)?,
            sizes: None,
        },
        false => Given {
            roi: input(1)?,
            scales: input(2)?,
            sizes: input(3)?,
        },
    };
    let plan = plan(&node.attrs(), &node.ty(0)?.item(), &given, old)?;
    if node.ty(0)?.has_batch() && plan.out[0] != 1 {
        return Err(MIXES.into());
    }
    Ok(plan)
}

impl Operator for Resize {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let ty = node.ty(0)?;
        let nearest = node.attrs().text("mode", "nearest") == "nearest";
        if ty.dtype != DType::F32 && !nearest {
            return Err(format!(
                "an operand of {}; only f32 is interpolated",
                ty.dtype
            ));
        }
        let mut dims = fixed(&of_node(node)?.out);
        if ty.has_batch() {
            dims[0] = ty.dims[0];
        }
        Ok(vec![Type::new(ty.dtype, dims)])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let x = call.input(0)?;
        let old = old(call.proto, call.opset);
        let given = Given {
            roi: call.optional(1).filter(|_| !old),
            scales: call.optional(if old { 1 } else { 2 }),
            sizes: call.optional(3),
        };
        let plan = plan(&call.attrs(), x.dims(), &given, old)?;
        let values = numbers(x);
        let one = |place: Vec<usize>| {
            let taps: Vec<&Vec<Tap>> = place
                .iter()
                .zip(&plan.axes)
                .map(|(p, a)| &a.taps[*p])
                .collect();
            if taps.iter().any(|t| t[0].1.is_nan()) {
                return Number::Float(f64::from(plan.outside.unwrap_or(0.0)));
            }
            let counts: Vec<usize> = taps.iter().map(|t| t.len()).collect();
            let mut sum = 0.0;
            let mut first = None;
            for choice in places(&counts) {
                let chosen = choice.iter().zip(&taps).map(|(c, t)| t[*c]);
                let weight: f64 = chosen.clone().map(|t| t.1).product();
                let from: Vec<usize> = chosen.map(|t| t.0).collect();
                let value = values[ravel(&from, x.dims())];
                first = first.or(Some(value));
                sum += weight * value.float();
            }
            match first {
                Some(Number::Int(v)) => Number::Int(v),
                _ => Number::Float(sum),
            }
        };
        let all: Vec<Number> = places(&plan.out).map(one).collect();
        Ok(vec![tensor(x.dtype(), plan.out.clone(), &all)?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let plan = of_node(&node)?;
        let ty = node.ty(0)?;
        let (dims, dtype) = (ty.item(), ty.dtype);
        let strides = Layout::Plain.strides(&dims);
        // For an axis that is sampled: where its taps are, by place, and their weights.
        let mut tables = Vec::new();
        for (axis, stride) in plan.axes.iter().zip(&strides) {
            let same = axis
                .taps
                .iter()
                .enumerate()
                .all(|(i, t)| t[..] == [(i, 1.0)]);
            if same {
                tables.push(None);
                continue;
            }
            let taps = || axis.taps.iter().flatten();
            let n = taps().count();
            let offsets = taps().map(|(at, _)| (at * stride) as i32).collect();
            let weights = taps().map(|(_, w)| *w as f32).collect();
            let offsets = cx.tensor(&Tensor::new(vec![n], Data::I32(offsets))?, Layout::Plain)?;
            let weights = cx.tensor(&Tensor::f32(&[n], weights)?, Layout::Plain)?;
            tables.push(Some((offsets, weights, axis.taps[0].len())));
        }
        let (src, dst) = (cx.read(0, Layout::Plain)?, cx.write(Layout::Plain)?);
        let dense = Layout::Plain.strides(&plan.out);
        let single = tables.iter().flatten().all(|t| t.2 == 1);
        let mut program = Scalar::new("resize");
        program.nest(&plan.out, &mut |s, place| {
            // Along axes that are not sampled the place is that of the source.
            let mut base = Ex::Int(0);
            for ((at, table), stride) in place.iter().zip(&tables).zip(&strides) {
                if table.is_none() {
                    base = base + index(std::slice::from_ref(at), &[*stride]);
                }
            }
            let base = s.once(base);
            let counts: Vec<usize> = tables.iter().flatten().map(|t| t.2).collect();
            let sum = s.var(Ex::Real(0.0));
            let mut copied = None;
            s.nest(&counts, &mut |s, choice| {
                let (mut from, mut weight) = (base.clone(), Ex::Real(1.0));
                let sampled = place
                    .iter()
                    .zip(&tables)
                    .filter_map(|(p, t)| t.map(|t| (p, t)));
                for ((at, (offsets, weights, count)), choice) in sampled.zip(choice) {
                    let row = index(&[at.clone(), choice.clone()], &[count, 1]);
                    let row = s.once(row);
                    from = from + s.load(offsets, DType::I32, row.clone());
                    weight = weight * s.load(weights, DType::F32, row);
                }
                let x = s.load(src, dtype, from);
                if dtype == DType::F32 {
                    s.set(sum, Ex::Var(sum) + x * weight);
                } else if single {
                    copied = Some(x);
                }
            });
            let value = match (copied, plan.outside) {
                (Some(x), _) => x,
                (None, Some(outside)) => {
                    // A weight that is no number marks a place outside.
                    let sum = Ex::Var(sum);
                    sum.clone().eq(sum.clone()).pick(sum, Ex::Real(outside))
                }
                (None, None) => Ex::Var(sum),
            };
            s.store(dst, dtype, index(place, &dense), value.to(Ty::of(dtype)));
        });
        cx.push(program, 0)
    }
}
