//! RoiAlign: regions of images resampled to one size, with a fixed number of samples for each place.

use super::MIXES;
use super::{Call, Operator};
use crate::emit::Ref;
use crate::kernels::{Bin, Ex, Scalar, Ty, Un, index};
use crate::lower::{Layout, LowerCx};
use crate::onnx::Attrs;
use crate::reference::places::places;
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type, fixed};
use sandpiper_core::tensor::DType;

/// RoiAlign: x of [N, C, H, W], regions of [R, 4], the image of each region.
pub(crate) struct RoiAlign;

struct Plan {
    image: [usize; 4],
    regions: usize,
    out: [usize; 2],
    samples: usize,
    scale: f64,
    /// Places are the middle of pixels, and regions may be smaller than one.
    half: bool,
    greatest: bool,
}

impl Plan {
    fn of(attrs: &Attrs<'_>, opset: i64, x: &[usize], regions: &[usize]) -> Result<Self, String> {
        let (&[n, c, h, w], &[regions, 4]) = (x, regions) else {
            return Err(format!("an input of {x:?} and regions of {regions:?}"));
        };
        let size = |name: &str| usize::try_from(attrs.int(name, 1)).ok().filter(|n| *n > 0);
        let samples = usize::try_from(attrs.int("sampling_ratio", 0)).unwrap_or(0);
        if samples == 0 {
            return Err("how many samples it takes depends on data; set sampling_ratio".into());
        }
        let default = if opset >= 16 {
            "half_pixel"
        } else {
            "output_half_pixel"
        };
        let half = match attrs
            .text("coordinate_transformation_mode", default)
            .as_str()
        {
            "half_pixel" => true,
            "output_half_pixel" => false,
            other => return Err(format!("the mode `{other}` is not known")),
        };
        let greatest = match attrs.text("mode", "avg").as_str() {
            "avg" => false,
            "max" => true,
            other => return Err(format!("the mode `{other}` is not known")),
        };
        Ok(Self {
            image: [n, c, h, w],
            regions,
            out: [
                size("output_height").ok_or("output_height is not positive")?,
                size("output_width").ok_or("output_width is not positive")?,
            ],
            samples,
            scale: f64::from(attrs.float("spatial_scale").unwrap_or(1.0)),
            half,
            greatest,
        })
    }

    fn of_node(node: &NodeView<'_>) -> Result<Self, String> {
        let (x, regions, images) = (node.float(0)?, node.float(1)?, node.ty(2)?);
        if [x, regions, images].iter().any(|t| t.has_batch()) {
            return Err(MIXES.into());
        }
        let plan = Self::of(&node.attrs(), node.opset, &x.item(), &regions.item())?;
        match images.dtype == DType::I64 && images.elements() == plan.regions {
            true => Ok(plan),
            false => Err("each region needs the number of its image".into()),
        }
    }

    fn dims(&self) -> Vec<usize> {
        vec![self.regions, self.image[1], self.out[0], self.out[1]]
    }
}

/// The two neighbours of a place on a line of `n`, how much the second counts, and whether the place is
/// near enough to the line to count at all.
fn neighbours(at: f64, n: usize) -> ([usize; 2], f64, bool) {
    let inside = at >= -1.0 && at <= n as f64;
    let at = at.max(0.0).min(n as f64 - 1.0);
    let low = at as usize;
    ([low, (low + 1).min(n - 1)], at - low as f64, inside)
}

impl Operator for RoiAlign {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        Ok(vec![Type::new(
            DType::F32,
            fixed(&Plan::of_node(node)?.dims()),
        )])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let (x, regions) = (call.input(0)?, call.input(1)?);
        let p = Plan::of(&call.attrs(), call.opset, x.dims(), regions.dims())?;
        let (values, images) = (x.as_f32()?, call.input(2)?.to_i64()?);
        let [n, c, h, w] = p.image;
        let corners = regions.as_f32()?;
        let shift = if p.half { 0.5 } else { 0.0 };
        let one = |place: Vec<usize>| {
            let image = images[place[0]].clamp(0, n as i64 - 1) as usize;
            let channel = &values[(image * c + place[1]) * h * w..][..h * w];
            let corner = |i: usize| f64::from(corners[place[0] * 4 + i]) * p.scale - shift;
            // Rows are the second coordinate of a corner.
            let line = |axis: usize, sample: usize| {
                let (first, end) = (corner(1 - axis), corner(3 - axis));
                let size = if p.half {
                    end - first
                } else {
                    (end - first).max(1.0)
                };
                let cell = size / p.out[axis] as f64;
                let part = (sample as f64 + 0.5) / p.samples as f64;
                neighbours(first + (place[2 + axis] as f64 + part) * cell, [h, w][axis])
            };
            let (mut sum, mut most) = (0.0, f64::NEG_INFINITY);
            for (i, j) in (0..p.samples).flat_map(|i| (0..p.samples).map(move |j| (i, j))) {
                let (rows, down, in_rows) = line(0, i);
                let (columns, right, in_columns) = line(1, j);
                let at = |r: usize, k: usize| f64::from(channel[rows[r] * w + columns[k]]);
                let parts = [
                    (1.0 - down) * (1.0 - right) * at(0, 0),
                    (1.0 - down) * right * at(0, 1),
                    down * (1.0 - right) * at(1, 0),
                    down * right * at(1, 1),
                ];
                let counts = in_rows && in_columns;
                sum += if counts { parts.iter().sum() } else { 0.0 };
                let greatest = parts.iter().fold(f64::NEG_INFINITY, |m, v| m.max(*v));
                most = most.max(if counts { greatest } else { 0.0 });
            }
            let count = (p.samples * p.samples) as f64;
            (if p.greatest { most } else { sum / count }) as f32
        };
        let all = places(&p.dims()).map(one).collect();
        Ok(vec![Tensor::f32(&p.dims(), all)?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let p = Plan::of_node(&cx.view())?;
        let mut sources = [cx.read(0, Layout::Plain)?; 3];
        sources[1] = cx.read(1, Layout::Plain)?;
        sources[2] = cx.read(2, Layout::Plain)?;
        let (dst, dims) = (cx.write(Layout::Plain)?, p.dims());
        let dense = Layout::Plain.strides(&dims);
        let mut program = Scalar::new("roi-align");
        program.nest(&dims, &mut |s, place| {
            let value = p.place(s, sources, place);
            s.store(dst, DType::F32, index(place, &dense), value.to(Ty::Real));
        });
        cx.push(program, 0)
    }
}

impl Plan {
    /// The value of one place of the result.
    fn place(&self, s: &mut Scalar, [x, regions, images]: [Ref; 3], place: &[Ex]) -> Ex {
        let d = Ex::Double;
        let [n, c, h, w] = self.image;
        let image = s.load(images, DType::I64, place[0].clone());
        let image = image.max(Ex::Long(0)).min(Ex::Long(n as i64 - 1));
        let image = s.once(image.to(Ty::Int));
        let channel = s.once(index(&[image, place[1].clone()], &[c * h * w, h * w]));
        let shift = if self.half { 0.5 } else { 0.0 };
        let mut lines = Vec::new();
        for axis in 0..2 {
            let mut corner = |i: usize| {
                let at = place[0].clone() * Ex::Int(4) + Ex::Int(i as i32);
                let value = s.load(regions, DType::F32, at).to(Ty::Double);
                s.once(value * d(self.scale) - d(shift))
            };
            let (first, end) = (corner(1 - axis), corner(3 - axis));
            let size = end - first.clone();
            let size = if self.half { size } else { size.max(d(1.0)) };
            let cell = s.once(size * d(1.0 / self.out[axis] as f64));
            lines.push((first, cell));
        }
        let (sum, most) = (s.var(d(0.0)), s.var(d(f64::NEG_INFINITY)));
        let samples = self.samples;
        s.nest(&[samples, samples], &mut |s, sample| {
            let mut near = Vec::new();
            for (axis, size) in [(0, h), (1, w)] {
                let (first, cell) = &lines[axis];
                let part = (sample[axis].clone().to(Ty::Double) + d(0.5)) * d(1.0 / samples as f64);
                let steps = place[2 + axis].clone().to(Ty::Double) + part;
                let at = s.once(first.clone() + steps * cell.clone());
                let below = at.clone().le(d(size as f64));
                let inside = d(-1.0).le(at.clone()).bin(Bin::And, below);
                let inside = s.once(inside);
                let cut = s.once(at.max(d(0.0)).min(d(size as f64 - 1.0)));
                let low = s.once(cut.clone().un(Un::Floor).to(Ty::Int));
                let low = s.once(low.max(Ex::Int(0)).min(Ex::Int(size as i32 - 1)));
                let high = s.once((low.clone() + Ex::Int(1)).min(Ex::Int(size as i32 - 1)));
                let rest = s.once(cut - low.clone().to(Ty::Double));
                near.push(([low, high], rest, inside));
            }
            let inside = s.once(near[0].2.clone().bin(Bin::And, near[1].2.clone()));
            let mut parts = Vec::new();
            for (i, j) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let share = |(_, rest, _): &([Ex; 2], Ex, Ex), far: usize| match far {
                    0 => d(1.0) - rest.clone(),
                    _ => rest.clone(),
                };
                let at = [near[0].0[i].clone(), near[1].0[j].clone()];
                let from = channel.clone() + index(&at, &[w, 1]);
                let value = s.load(x, DType::F32, from).to(Ty::Double);
                parts.push(s.once(share(&near[0], i) * share(&near[1], j) * value));
            }
            let all = parts.iter().cloned().reduce(|a, b| a + b);
            let all = all.unwrap_or(d(0.0));
            s.set(sum, Ex::Var(sum) + inside.clone().pick(all, d(0.0)));
            let greatest = parts.iter().cloned().reduce(Ex::max).unwrap_or(d(0.0));
            s.set(most, Ex::Var(most).max(inside.pick(greatest, d(0.0))));
        });
        match self.greatest {
            true => Ex::Var(most),
            false => Ex::Var(sum) * d(1.0 / (samples * samples) as f64),
        }
    }
}
