//! TopK with a constant k: the extremes along an axis, sorted; the first of equal ones comes first.

use super::extreme::item_axis;
use super::{Call, Operator};
use crate::kernels::{Bin, Ex, Scalar, Ty};
use crate::lower::loops::along;
use crate::lower::{Layout, LowerCx};
use crate::onnx::Attrs;
use crate::reference::axis_of;
use crate::reference::numbers::{Number, numbers, tensor};
use crate::reference::places::{places, ravel};
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type, fixed};
use sandpiper_core::tensor::DType;

/// TopK.
pub(crate) struct TopK;

fn k(attrs: &Attrs<'_>, given: Option<&Tensor>, size: usize) -> Result<usize, String> {
    let wanted = match given {
        Some(tensor) => tensor.to_i64()?.first().copied().ok_or("k is empty")?,
        None => attrs.int("k", 0),
    };
    let k = usize::try_from(wanted)
        .ok()
        .filter(|k| (1..=size).contains(k));
    k.ok_or_else(|| format!("{wanted} of {size} elements"))
}

impl Operator for TopK {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let ty = node.ty(0)?;
        let axis = item_axis(node, -1)?;
        let k = k(&node.attrs(), node.optional_constant(1)?, ty.item()[axis])?;
        let mut dims = ty.dims.clone();
        dims[axis] = fixed(&[k])[0];
        Ok(vec![
            Type::new(ty.dtype, dims.clone()),
            Type::new(DType::I64, dims),
        ])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let (x, attrs) = (call.input(0)?, call.attrs());
        let axis = axis_of(attrs.int("axis", -1), x.dims().len())?;
        let largest = attrs.int("largest", 1) != 0;
        let k = k(&attrs, call.optional(1), x.dims()[axis])?;
        let values = numbers(x);
        let mut dims = x.dims().to_vec();
        dims[axis] = k;
        let count = dims.iter().product();
        let (mut found, mut at) = (vec![Number::Int(0); count], vec![Number::Int(0); count]);
        let mut lanes = x.dims().to_vec();
        lanes[axis] = 1;
        for lane in places(&lanes) {
            let element = |i: usize| {
                let mut place = lane.clone();
                place[axis] = i;
                values[ravel(&place, x.dims())]
            };
            let mut order: Vec<usize> = (0..x.dims()[axis]).collect();
            order.sort_by(|a, b| {
                let (a, b) = (element(*a), element(*b));
                let order = match (a, b) {
                    (Number::Int(a), Number::Int(b)) => a.cmp(&b),
                    (a, b) => a.float().total_cmp(&b.float()),
                };
                if largest { order.reverse() } else { order }
            });
            for (rank, i) in order.into_iter().take(k).enumerate() {
                let mut place = lane.clone();
                place[axis] = rank;
                let slot = ravel(&place, &dims);
                (found[slot], at[slot]) = (element(i), Number::Int(i as i64));
            }
        }
        Ok(vec![
            tensor(x.dtype(), dims.clone(), &found)?,
            tensor(DType::I64, dims, &at)?,
        ])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let (axis, ty) = (item_axis(&node, -1)?, node.ty(0)?);
        let dims = ty.item();
        let largest = node.attrs().int("largest", 1) != 0;
        let k = k(&node.attrs(), node.optional_constant(1)?, dims[axis])?;
        let src = cx.read(0, Layout::Plain)?;
        let used = cx.temporary(dims[axis]);
        let values = cx.write_output(0);
        let indices = cx.write_output(1);
        let mut program = Scalar::new("top-k");
        along(&mut program, &dims, axis, &mut |s, lane| {
            s.each(lane.len, |s, i| s.store(used, DType::U8, i, Ex::Int(0)));
            let results = lane.resized(k);
            // Selection: k times the extreme of what is left.
            s.each(k, |s, rank| {
                let best = s.var(Ex::constant(Ty::of(ty.dtype), 0.0));
                let at = s.var(Ex::Int(-1));
                s.each(lane.len, |s, i| {
                    let x = s.load(src, ty.dtype, lane.at(i.clone()));
                    let x = s.once(x);
                    let better = match largest {
                        true => Ex::Var(best).lt(x.clone()),
                        false => x.clone().lt(Ex::Var(best)),
                    };
                    let first = Ex::Var(at).lt(Ex::Int(0));
                    let free = s.load(used, DType::U8, i.clone()).not();
                    let take = s.once(free.bin(Bin::And, first.bin(Bin::Or, better)));
                    s.set(best, take.clone().pick(x, Ex::Var(best)));
                    s.set(at, take.pick(i, Ex::Var(at)));
                });
                // With NaN among them nothing may be better, but the first that is left is taken.
                s.store(used, DType::U8, Ex::Var(at).max(Ex::Int(0)), Ex::Int(1));
                if let Some(values) = values {
                    s.store(values, ty.dtype, results.at(rank.clone()), Ex::Var(best));
                }
                if let Some(indices) = indices {
                    s.store(
                        indices,
                        DType::I64,
                        results.at(rank),
                        Ex::Var(at).to(Ty::Long),
                    );
                }
            });
        });
        cx.push(program, 0)
    }
}
