//! LayerNormalization, RMSNormalization, InstanceNormalization, GroupNormalization,
//! MeanVarianceNormalization: less the mean, over the standard deviation, of groups of elements of one
//! item. Groups that lie together have a kernel, others a program.

use super::MIXES;
use super::{Call, Operator};
use crate::emit::Ref;
use crate::kernels::{self, Affine, Ex, Scalar, Ty, Un, index};
use crate::lower::loops::broadcast_strides;
use crate::lower::{Layout, LowerCx};
use crate::onnx::Attrs;
use crate::reference::axis_of;
use crate::reference::places::{places, ravel};
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};
use sandpiper_core::tensor::{DType, Dim};

/// Which elements are taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Layer,
    /// As Layer, but the mean is not taken away.
    RootMeanSquare,
    Instance,
    Group,
    MeanVariance,
}

/// A normalisation.
pub(crate) struct Normalize(Kind);

/// LayerNormalization.
pub(crate) static LAYER: Normalize = Normalize(Kind::Layer);
/// RMSNormalization; ONNX Runtime writes it SimplifiedLayerNormalization.
pub(crate) static RMS: Normalize = Normalize(Kind::RootMeanSquare);
/// InstanceNormalization.
pub(crate) static INSTANCE: Normalize = Normalize(Kind::Instance);
/// GroupNormalization.
pub(crate) static GROUP: Normalize = Normalize(Kind::Group);
/// MeanVarianceNormalization.
pub(crate) static MEAN_VARIANCE: Normalize = Normalize(Kind::MeanVariance);

/// What is computed, over the input as an array of `dims`.
struct Plan {
    dims: Vec<usize>,
    /// Dimensions over which mean and deviation are taken.
    gone: Vec<bool>,
    epsilon: f64,
    /// Elements of scale and bias from one to the next, by dimension; `None`: there are none.
    affine: Option<Vec<usize>>,
    /// Whether epsilon is added to the deviation, not to its square.
    outside: bool,
    /// Whether the mean is taken away.
    centred: bool,
}

impl Normalize {
    fn plan(
        &self,
        attrs: &Attrs<'_>,
        opset: i64,
        dims: &[usize],
        scale: Option<&[usize]>,
    ) -> Result<Plan, String> {
        let rank = dims.len();
        let epsilon = f64::from(attrs.float("epsilon").unwrap_or(1e-5));
        let channels = || match dims {
            [_, c, _, ..] => Ok(*c),
            _ => Err(format!("an input of {rank} dimensions")),
        };
        let mut plan = Plan {
            dims: dims.to_vec(),
            gone: vec![false; rank],
            epsilon,
            affine: None,
            outside: false,
            centred: true,
        };
        match self.0 {
            Kind::Layer | Kind::RootMeanSquare => {
                let axis = axis_of(attrs.int("axis", -1), rank)?;
                plan.gone[axis..].fill(true);
                let scale = scale.ok_or("the scale is missing")?;
                let fits = scale.len() <= rank
                    && scale
                        .iter()
                        .rev()
                        .zip(dims.iter().rev())
                        .all(|(s, d)| s == d || *s == 1);
                if !fits {
                    return Err(format!("a scale of {scale:?} for {dims:?}"));
                }
                plan.affine = Some(broadcast_strides(scale, rank));
                plan.centred = self.0 == Kind::Layer;
            }
            Kind::Instance => {
                let c = channels()?;
                plan.gone[2..].fill(true);
                if scale != Some(&[c]) {
                    return Err("the scale does not have an entry per channel".into());
                }
                let mut strides = vec![0; rank];
                strides[1] = 1;
                plan.affine = Some(strides);
            }
            Kind::Group => {
                let c = channels()?;
                let groups = usize::try_from(attrs.int("num_groups", 0)).unwrap_or(0);
                if groups == 0 || c % groups != 0 {
                    return Err(format!("{groups} groups of {c} channels"));
                }
                plan.dims = vec![dims[0], groups, c / groups, dims[2..].iter().product()];
                plan.gone = vec![false, false, true, true];
                let by_group = opset < 21;
                if scale != Some(&[if by_group { groups } else { c }]) {
                    return Err("the scale has another number of entries".into());
                }
                plan.affine = Some(match by_group {
                    true => vec![0, 1, 0, 0],
                    false => vec![0, c / groups, 1, 0],
                });
            }
            Kind::MeanVariance => {
                let axes = attrs.ints("axes").unwrap_or_else(|| vec![0, 2, 3]);
                for axis in axes {
                    plan.gone[axis_of(axis, rank)?] = true;
                }
                plan.epsilon = 1e-9;
                plan.outside = true;
            }
        }
        Ok(plan)
    }

    fn of_node(&self, node: &NodeView<'_>) -> Result<Plan, String> {
        let ty = node.float(0)?;
        let scale = match self.0 {
            Kind::MeanVariance => None,
            _ => Some(node.float(1)?.item()),
        };
        if let Some(bias) = node.optional(2)
            && Some(bias.ty.item()) != scale
        {
            return Err("scale and bias have different shapes".into());
        }
        let plan = self.plan(&node.attrs(), node.opset, &ty.item(), scale.as_deref())?;
        if ty.has_batch() && plan.gone[0] {
            return Err(MIXES.into());
        }
        Ok(plan)
    }
}

impl Plan {
    /// The standard deviation of a variance, inverted.
    fn inverse(&self, variance: f64) -> f64 {
        match self.outside {
            true => 1.0 / (variance.sqrt() + self.epsilon),
            false => 1.0 / (variance + self.epsilon).sqrt(),
        }
    }

    /// What normalised elements are multiplied with and what is added, if the elements of a group lie
    /// together and their factors are by element, or by piece of a group; else `None`.
    fn together(&self, scale: Option<Ref>, bias: Option<Ref>) -> Option<Affine> {
        let first = self.gone.iter().position(|g| *g)?;
        if self.outside || !self.gone[first..].iter().all(|g| *g) {
            return None;
        }
        let (Some(scale), Some(strides)) = (scale, &self.affine) else {
            return Some(Affine::None);
        };
        let (outer, inner) = strides.split_at(first);
        if outer.iter().all(|s| *s == 0) {
            let dense = Layout::Plain.strides(&self.dims[first..]);
            let counts = inner.iter().zip(&self.dims[first..]);
            let by_element = counts.zip(&dense).all(|((s, d), n)| s == n || *d == 1);
            return by_element.then_some(Affine::Elements(scale, bias));
        }
        // By channel: the last dimension of two that stay, and for groups the first one that goes.
        let pieces = self.pieces(inner);
        let by_channel = outer == [0, pieces.unwrap_or(1)];
        let rest = match pieces {
            Some(_) => &inner[1..],
            None => inner,
        };
        let fits = by_channel && rest.iter().all(|s| *s == 0);
        fits.then(|| Affine::Pieces(scale, bias, self.dims[1]))
    }

    /// How many pieces of a group have a factor of their own, by the strides of what goes.
    fn pieces(&self, inner: &[usize]) -> Option<usize> {
        (inner.len() == 2 && inner[0] == 1).then(|| self.dims[2])
    }

    /// Adds the kernel.
    fn kernel(
        &self,
        cx: &mut LowerCx<'_>,
        (src, dst): (Ref, Ref),
        affine: Affine,
        moments: [Option<Ref>; 2],
    ) -> Result<(), String> {
        let [rows, all] = [false, true].map(|gone| self.part(&self.dims, gone).iter().product());
        let pieces = match (affine, &self.affine) {
            (Affine::Pieces(..), Some(strides)) => self.pieces(&strides[2..]).unwrap_or(1),
            _ => 1,
        };
        let kernel = kernels::Normalize {
            src,
            dst,
            rows,
            pieces,
            len: all / pieces,
            centred: self.centred,
            epsilon: self.epsilon,
            affine,
            moments,
        };
        cx.push(kernel, 0)
    }

    fn part(&self, of: &[usize], wanted: bool) -> Vec<usize> {
        let all = of.iter().zip(&self.gone);
        all.filter(|(_, g)| **g == wanted)
            .map(|(d, _)| *d)
            .collect()
    }
}

fn at(place: &[usize], strides: &[usize]) -> usize {
    place.iter().zip(strides).map(|(p, s)| p * s).sum()
}

impl Operator for Normalize {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let plan = self.of_node(node)?;
        let ty = node.ty(0)?.clone();
        if self.0 != Kind::Layer {
            return Ok(vec![ty]);
        }
        let dims = ty.dims.iter().zip(&plan.gone);
        let dims = dims
            .map(|(d, gone)| if *gone { Dim::Fixed(1) } else { *d })
            .collect();
        let each = Type::new(DType::F32, dims);
        Ok(vec![ty, each.clone(), each])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let x = call.input(0)?;
        let scale = call.optional(1);
        let plan = self.plan(&call.attrs(), call.opset, x.dims(), scale.map(Tensor::dims))?;
        let values = x.as_f32()?;
        let kept = |place: &[usize]| -> Vec<usize> {
            let all = place.iter().zip(&plan.gone);
            all.map(|(p, g)| if *g { 0 } else { *p }).collect()
        };
        let full: Vec<usize> = plan
            .dims
            .iter()
            .zip(&plan.gone)
            .map(|(d, g)| if *g { 1 } else { *d })
            .collect();
        let mut groups: Vec<Vec<f64>> = vec![Vec::new(); full.iter().product()];
        for (place, v) in places(&plan.dims).zip(values) {
            groups[ravel(&kept(&place), &full)].push(f64::from(*v));
        }
        let moments: Vec<(f64, f64)> = groups
            .iter()
            .map(|g| {
                let mean = match plan.centred {
                    true => g.iter().sum::<f64>() / g.len() as f64,
                    false => 0.0,
                };
                let variance = g.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / g.len() as f64;
                (mean, plan.inverse(variance))
            })
            .collect();
        let scale = scale.map(Tensor::as_f32).transpose()?;
        let bias = call.optional(2).map(Tensor::as_f32).transpose()?;
        let one = |(place, v): (Vec<usize>, &f32)| {
            let (mean, inverse) = moments[ravel(&kept(&place), &full)];
            let affine = |values: Option<&[f32]>, default: f64| match (values, &plan.affine) {
                (Some(values), Some(strides)) => f64::from(values[at(&place, strides)]),
                _ => default,
            };
            ((f64::from(*v) - mean) * inverse * affine(scale, 1.0) + affine(bias, 0.0)) as f32
        };
        let y = places(&plan.dims).zip(values).map(one).collect();
        let y = Tensor::f32(x.dims(), y)?;
        if self.0 != Kind::Layer {
            return Ok(vec![y]);
        }
        let mean = Tensor::f32(&full, moments.iter().map(|m| m.0 as f32).collect())?;
        let inverse = Tensor::f32(&full, moments.iter().map(|m| m.1 as f32).collect())?;
        Ok(vec![y, mean, inverse])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let plan = self.of_node(&cx.view())?;
        let src = cx.read(0, Layout::Plain)?;
        let scale = plan
            .affine
            .as_ref()
            .map(|_| cx.read(1, Layout::Plain))
            .transpose()?;
        let biased = plan.affine.is_some() && cx.view().optional(2).is_some();
        let bias = biased.then(|| cx.read(2, Layout::Plain)).transpose()?;
        let dst = cx.write(Layout::Plain)?;
        let moments = [1, 2].map(|i| cx.write_output(i));
        if let Some(affine) = plan.together(scale, bias) {
            return plan.kernel(cx, (src, dst), affine, moments);
        }
        let strides = Layout::Plain.strides(&plan.dims);
        let affine = plan
            .affine
            .clone()
            .unwrap_or_else(|| vec![0; strides.len()]);
        let (outer, inner) = (plan.part(&plan.dims, false), plan.part(&plan.dims, true));
        let [outer_strides, outer_affine] = [&strides, &affine].map(|s| plan.part(s, false));
        let [inner_strides, inner_affine] = [&strides, &affine].map(|s| plan.part(s, true));
        let dense = Layout::Plain.strides(&outer);
        let count = Ex::Double(inner.iter().product::<usize>() as f64);
        let float = DType::F32;
        let mut program = Scalar::new("normalize");
        program.nest(&outer, &mut |s, place| {
            let base = s.once(index(place, &outer_strides));
            let base_affine = s.once(index(place, &outer_affine));
            let x = |s: &mut Scalar, place: &[Ex]| {
                let x = s.load(src, float, base.clone() + index(place, &inner_strides));
                x.to(Ty::Double)
            };
            let sum = s.var(Ex::Double(0.0));
            s.nest(&inner, &mut |s, place| {
                let next = Ex::Var(sum) + x(s, place);
                s.set(sum, next);
            });
            let mean = match plan.centred {
                true => s.once(Ex::Var(sum) / count.clone()),
                false => Ex::Double(0.0),
            };
            s.set(sum, Ex::Double(0.0));
            s.nest(&inner, &mut |s, place| {
                let far = x(s, place) - mean.clone();
                let far = s.once(far);
                s.set(sum, Ex::Var(sum) + far.clone() * far);
            });
            let variance = Ex::Var(sum) / count.clone();
            let epsilon = Ex::Double(plan.epsilon);
            let deviation = match plan.outside {
                true => variance.un(Un::Sqrt) + epsilon,
                false => (variance + epsilon).un(Un::Sqrt),
            };
            let inverse = s.once(Ex::Double(1.0) / deviation);
            for (at, value) in moments.iter().zip([&mean, &inverse]) {
                if let Some(at) = at {
                    s.store(*at, float, index(place, &dense), value.clone().to(Ty::Real));
                }
            }
            s.nest(&inner, &mut |s, place| {
                let mut y = (x(s, place) - mean.clone()) * inverse.clone();
                let which = base_affine.clone() + index(place, &inner_affine);
                if let Some(scale) = scale {
                    y = y * s.load(scale, float, which.clone()).to(Ty::Double);
                }
                if let Some(bias) = bias {
                    y = y + s.load(bias, float, which).to(Ty::Double);
                }
                let to = base.clone() + index(place, &inner_strides);
                s.store(dst, float, to, y.to(Ty::Real));
            });
        });
        cx.push(program, 0)
    }
}
