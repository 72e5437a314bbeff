//! LogSoftmax, CumSum, LpNormalization: along an axis, lane by lane.

use super::MIXES;
use super::extreme::item_axis;
use super::{Call, Operator};
use crate::kernels::{Ex, Scalar, Ty, Un, functions};
use crate::lower::loops::along;
use crate::lower::{Layout, LowerCx};
use crate::reference::axis_of;
use crate::reference::numbers::{Number, numbers, tensor};
use crate::reference::places::{places, ravel};
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};
use sandpiper_core::tensor::DType;

/// Applies a function to every lane along an axis.
fn each_lane(x: &Tensor, axis: usize, f: &dyn Fn(&mut Vec<Number>)) -> Result<Vec<Number>, String> {
    let mut dims = x.dims().to_vec();
    dims[axis] = 1;
    let lane_of = |place: &[usize]| {
        let mut place = place.to_vec();
        place[axis] = 0;
        ravel(&place, &dims)
    };
    let mut lanes = vec![Vec::new(); dims.iter().product()];
    for (place, value) in places(x.dims()).zip(numbers(x)) {
        lanes[lane_of(&place)].push(value);
    }
    lanes.iter_mut().for_each(f);
    let result = places(x.dims()).map(|place| lanes[lane_of(&place)].get(place[axis]).copied());
    result
        .collect::<Option<_>>()
        .ok_or_else(|| "a lane was cut short".into())
}

/// Softmax or LogSoftmax along any axis of one item; before opset 13 along all from the axis on.
pub(crate) struct LogSoftmax;

/// The input as an array of which one dimension is the lane.
pub(crate) fn lanes(dims: &[usize], axis: usize, opset: i64) -> Vec<usize> {
    let (outer, inner) = dims.split_at(axis);
    let rest = if opset >= 13 {
        inner[1..].iter().product()
    } else {
        1
    };
    let len = inner.iter().product::<usize>() / rest;
    vec![outer.iter().product(), len, rest]
}

fn default_axis(opset: i64) -> i64 {
    if opset >= 13 { -1 } else { 1 }
}

/// Adds the program of Softmax, or of its logarithm.
pub(crate) fn softmax(cx: &mut LowerCx<'_>, logarithm: bool) -> Result<(), String> {
    let node = cx.view();
    let axis = item_axis(&node, default_axis(node.opset))?;
    let dims = lanes(&node.ty(0)?.item(), axis, node.opset);
    let (src, dst) = (cx.read(0, Layout::Plain)?, cx.write(Layout::Plain)?);
    let float = DType::F32;
    let mut program = Scalar::new(if logarithm { "log-softmax" } else { "softmax" });
    along(&mut program, &dims, 1, &mut |s, lane| {
        let most = s.var(Ex::Real(f32::NEG_INFINITY));
        s.each(lane.len, |s, i| {
            let x = s.load(src, float, lane.at(i));
            s.set(most, Ex::Var(most).max(x));
        });
        let sum = s.var(Ex::Double(0.0));
        let below = |s: &mut Scalar, i: Ex| {
            let x = s.load(src, float, lane.at(i));
            x.to(Ty::Double) - Ex::Var(most).to(Ty::Double)
        };
        s.each(lane.len, |s, i| {
            let x = below(s, i);
            let e = functions::exp(s, x);
            s.set(sum, Ex::Var(sum) + e);
        });
        let log = logarithm.then(|| functions::log(s, Ex::Var(sum)));
        s.each(lane.len, |s, i| {
            let x = below(s, i.clone());
            let y = match &log {
                Some(log) => x - log.clone(),
                None => functions::exp(s, x) / Ex::Var(sum),
            };
            s.store(dst, float, lane.at(i), y.to(Ty::Real));
        });
    });
    cx.push(program, 0)
}

impl Operator for LogSoftmax {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        item_axis(node, default_axis(node.opset))?;
        Ok(vec![node.float(0)?.clone()])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let x = call.input(0)?;
        let axis = call.attrs().int("axis", default_axis(call.opset));
        let axis = axis_of(axis, x.dims().len())?;
        let flat = x.reshaped(lanes(x.dims(), axis, call.opset))?;
        let values = each_lane(&flat, 1, &|lane| {
            let most = lane.iter().fold(f64::NEG_INFINITY, |m, v| m.max(v.float()));
            let sum: f64 = lane.iter().map(|v| (v.float() - most).exp()).sum();
            lane.iter_mut()
                .for_each(|v| *v = Number::Float(v.float() - most - sum.ln()));
        })?;
        Ok(vec![tensor(DType::F32, x.dims().to_vec(), &values)?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        softmax(cx, true)
    }
}

/// CumSum: the axis is a constant input.
pub(crate) struct CumSum;

fn cum_axis(node: &NodeView<'_>) -> Result<usize, String> {
    let ty = node.ty(0)?;
    let axis = *node
        .constant(1)?
        .to_i64()?
        .first()
        .ok_or("the axis is empty")?;
    let axis = axis_of(axis, ty.dims.len())?;
    if axis == 0 && ty.has_batch() {
        return Err(MIXES.into());
    }
    Ok(axis)
}

impl Operator for CumSum {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        cum_axis(node)?;
        match node.ty(0)?.dtype {
            DType::F32 | DType::I32 | DType::I64 => Ok(vec![node.ty(0)?.clone()]),
            other => Err(format!("an operand of {other}")),
        }
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let (x, attrs) = (call.input(0)?, call.attrs());
        let axis = call.input(1)?.to_i64()?;
        let axis = axis_of(*axis.first().ok_or("the axis is empty")?, x.dims().len())?;
        let (exclusive, reverse) = (attrs.int("exclusive", 0) != 0, attrs.int("reverse", 0) != 0);
        let values = each_lane(x, axis, &|lane| {
            if reverse {
                lane.reverse();
            }
            let mut sum: Option<Number> = None;
            for v in lane.iter_mut() {
                let next = match (sum, *v) {
                    (None, v) => v,
                    (Some(Number::Int(a)), Number::Int(b)) => Number::Int(a.wrapping_add(b)),
                    (Some(a), b) => Number::Float(a.float() + b.float()),
                };
                let before = sum.unwrap_or(match v {
                    Number::Int(_) => Number::Int(0),
                    Number::Float(_) => Number::Float(0.0),
                });
                *v = if exclusive { before } else { next };
                sum = Some(next);
            }
            if reverse {
                lane.reverse();
            }
        })?;
        Ok(vec![tensor(x.dtype(), x.dims().to_vec(), &values)?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let (axis, ty, attrs) = (cum_axis(&node)?, node.ty(0)?, node.attrs());
        let (exclusive, reverse) = (attrs.int("exclusive", 0) != 0, attrs.int("reverse", 0) != 0);
        let (src, dst) = (cx.read(0, Layout::Plain)?, cx.write(Layout::Plain)?);
        // Floats are summed in 64 bits.
        let wide = match Ty::of(ty.dtype) {
            Ty::Real => Ty::Double,
            other => other,
        };
        let mut program = Scalar::new("cum-sum");
        along(&mut program, &ty.item(), axis, &mut |s, lane| {
            let sum = s.var(Ex::constant(wide, 0.0));
            s.each(lane.len, |s, i| {
                let i = match reverse {
                    true => Ex::Int(lane.len as i32 - 1) - i,
                    false => i,
                };
                let at = s.once(lane.at(i));
                let x = s.load(src, ty.dtype, at.clone()).to(wide);
                let next = s.once(Ex::Var(sum) + x);
                let y = if exclusive {
                    Ex::Var(sum)
                } else {
                    next.clone()
                };
                s.store(dst, ty.dtype, at, y.to(Ty::of(ty.dtype)));
                s.set(sum, next);
            });
        });
        cx.push(program, 0)
    }
}

/// LpNormalization, with p of 1 or 2.
pub(crate) struct LpNormalization;

impl Operator for LpNormalization {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        item_axis(node, -1)?;
        Ok(vec![node.float(0)?.clone()])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let (x, attrs) = (call.input(0)?, call.attrs());
        let axis = axis_of(attrs.int("axis", -1), x.dims().len())?;
        let first = attrs.int("p", 2) == 1;
        let values = each_lane(x, axis, &|lane| {
            let floats = lane.iter().map(|v| v.float());
            let norm = match first {
                true => floats.map(f64::abs).sum::<f64>(),
                false => floats.map(|v| v * v).sum::<f64>().sqrt(),
            };
            lane.iter_mut()
                .for_each(|v| *v = Number::Float(v.float() / norm));
        })?;
        Ok(vec![tensor(DType::F32, x.dims().to_vec(), &values)?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let (axis, dims) = (item_axis(&node, -1)?, node.ty(0)?.item());
        let first = node.attrs().int("p", 2) == 1;
        let (src, dst) = (cx.read(0, Layout::Plain)?, cx.write(Layout::Plain)?);
        let mut program = Scalar::new("lp-normalize");
        along(&mut program, &dims, axis, &mut |s, lane| {
            let x = |s: &mut Scalar, i: Ex| {
                let x = s.load(src, DType::F32, lane.at(i)).to(Ty::Double);
                s.once(x)
            };
            let sum = s.var(Ex::Double(0.0));
            s.each(lane.len, |s, i| {
                let x = x(s, i);
                let part = if first { x.un(Un::Abs) } else { x.clone() * x };
                s.set(sum, Ex::Var(sum) + part);
            });
            let norm = if first {
                Ex::Var(sum)
            } else {
                Ex::Var(sum).un(Un::Sqrt)
            };
            let norm = s.once(norm);
            s.each(lane.len, |s, i| {
                let y = x(s, i.clone()) / norm.clone();
                s.store(dst, DType::F32, lane.at(i), y.to(Ty::Real));
            });
        });
        cx.push(program, 0)
    }
}
