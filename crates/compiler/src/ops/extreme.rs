//! ArgMax, ArgMin: where the extreme along an axis is; Hardmax: 1 there and 0 elsewhere.

use super::MIXES;
use super::{Call, Operator};
use crate::kernels::{Bin, Ex, Scalar, Ty};
use crate::lower::loops::along;
use crate::lower::{Layout, LowerCx};
use crate::onnx::Attrs;
use crate::reference::axis_of;
use crate::reference::numbers::{Number, numbers};
use crate::reference::places::{places, ravel};
use crate::tensor::{Data, Tensor};
use crate::typed::{NodeView, Type};
use sandpiper_core::tensor::{DType, Dim};

/// ArgMax or ArgMin.
pub(crate) struct Arg {
    name: &'static str,
    greatest: bool,
}

/// ArgMax.
pub(crate) static ARG_MAX: Arg = Arg {
    name: "arg-max",
    greatest: true,
};
/// ArgMin.
pub(crate) static ARG_MIN: Arg = Arg {
    name: "arg-min",
    greatest: false,
};

/// Hardmax.
pub(crate) struct Hardmax;

/// The axis, which may not be the batch.
pub(crate) fn item_axis(node: &NodeView<'_>, default: i64) -> Result<usize, String> {
    let ty = node.ty(0)?;
    let axis = axis_of(node.attrs().int("axis", default), ty.dims.len())?;
    if axis == 0 && ty.has_batch() {
        return Err(MIXES.into());
    }
    Ok(axis)
}

/// By lane along an axis: the index of the extreme, the first of equal ones or the last.
fn evaluated(x: &Tensor, axis: usize, greatest: bool, last: bool) -> Vec<usize> {
    let mut dims = x.dims().to_vec();
    dims[axis] = 1;
    let mut best: Vec<Option<(Number, usize)>> = vec![None; dims.iter().product()];
    for (mut place, value) in places(x.dims()).zip(numbers(x)) {
        let at = std::mem::replace(&mut place[axis], 0);
        let slot = &mut best[ravel(&place, &dims)];
        let better = slot.is_none_or(|(old, _)| {
            let order = match (value, old) {
                (Number::Int(a), Number::Int(b)) => a.cmp(&b),
                (a, b) => a.float().total_cmp(&b.float()),
            };
            let order = if greatest { order } else { order.reverse() };
            order.is_gt() || (last && order.is_eq())
        });
        if better {
            *slot = Some((value, at));
        }
    }
    best.into_iter()
        .map(|b| b.map_or(0, |(_, at)| at))
        .collect()
}

fn program(
    s: &mut Scalar,
    x: &mut dyn FnMut(&mut Scalar, Ex) -> Ex,
    n: usize,
    how: (bool, bool),
) -> Ex {
    let (greatest, last) = how;
    let first = x(s, Ex::Int(0));
    let (best, at) = (s.var(first), s.var(Ex::Int(0)));
    s.each(n, |s, i| {
        let value = x(s, i.clone());
        let value = s.once(value);
        let strict = match greatest {
            true => Ex::Var(best).lt(value.clone()),
            false => value.clone().lt(Ex::Var(best)),
        };
        let better = match last {
            true => strict.bin(Bin::Or, value.clone().eq(Ex::Var(best))),
            false => strict,
        };
        let better = s.once(better);
        s.set(at, better.clone().pick(i, Ex::Var(at)));
        s.set(best, better.pick(value, Ex::Var(best)));
    });
    Ex::Var(at)
}

fn last(attrs: &Attrs<'_>) -> bool {
    attrs.int("select_last_index", 0) != 0
}

impl Operator for Arg {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let mut dims = node.ty(0)?.dims.clone();
        let axis = item_axis(node, 0)?;
        dims[axis] = Dim::Fixed(1);
        if node.attrs().int("keepdims", 1) == 0 {
            dims.remove(axis);
        }
        Ok(vec![Type::new(DType::I64, dims)])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let (x, attrs) = (call.input(0)?, call.attrs());
        let axis = axis_of(attrs.int("axis", 0), x.dims().len())?;
        let found = evaluated(x, axis, self.greatest, last(&attrs));
        let mut dims = x.dims().to_vec();
        dims[axis] = 1;
        if attrs.int("keepdims", 1) == 0 {
            dims.remove(axis);
        }
        let longs = found.into_iter().map(|i| i as i64).collect();
        Ok(vec![Tensor::new(dims, Data::I64(longs))?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let (axis, last) = (item_axis(&node, 0)?, last(&node.attrs()));
        let ty = node.ty(0)?;
        let (src, dst) = (cx.read(0, Layout::Plain)?, cx.write(Layout::Plain)?);
        let mut s = Scalar::new(self.name);
        along(&mut s, &ty.item(), axis, &mut |s, lane| {
            let mut x = |s: &mut Scalar, i: Ex| s.load(src, ty.dtype, lane.at(i));
            let at = program(s, &mut x, lane.len, (self.greatest, last));
            s.store(dst, DType::I64, lane.reduced(), at.to(Ty::Long));
        });
        cx.push(s, 0)
    }
}

impl Operator for Hardmax {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        if node.opset < 13 {
            return Err("only that of opset 13 and later is supported".into());
        }
        item_axis(node, -1)?;
        Ok(vec![node.float(0)?.clone()])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let x = call.input(0)?;
        let axis = axis_of(call.attrs().int("axis", -1), x.dims().len())?;
        let found = evaluated(x, axis, true, false);
        let mut dims = x.dims().to_vec();
        dims[axis] = 1;
        let one = |mut place: Vec<usize>| {
            let at = std::mem::replace(&mut place[axis], 0);
            f32::from(u8::from(found[ravel(&place, &dims)] == at))
        };
        let values = places(x.dims()).map(one).collect();
        Ok(vec![Tensor::f32(x.dims(), values)?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let (axis, dims) = (item_axis(&node, -1)?, node.ty(0)?.item());
        let (src, dst) = (cx.read(0, Layout::Plain)?, cx.write(Layout::Plain)?);
        let mut s = Scalar::new("hardmax");
        along(&mut s, &dims, axis, &mut |s, lane| {
            let mut x = |s: &mut Scalar, i: Ex| s.load(src, DType::F32, lane.at(i));
            let at = program(s, &mut x, lane.len, (true, false));
            s.each(lane.len, |s, i| {
                let one = i.clone().eq(at.clone()).to(Ty::Real);
                s.store(dst, DType::F32, lane.at(i), one);
            });
        });
        cx.push(s, 0)
    }
}
