//! OneHot: a value where the index is, another one elsewhere.

use super::{Call, Operator};
use crate::kernels::{Ex, Scalar, Ty, index};
use crate::lower::{Layout, LowerCx};
use crate::onnx::Attrs;
use crate::reference::axis_of;
use crate::reference::numbers::{Number, numbers, tensor};
use crate::reference::places::{places, ravel};
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type, fixed};

/// OneHot with a constant depth. An index outside of it gives only off-values.
pub(crate) struct OneHot;

fn depth(given: &Tensor) -> Result<usize, String> {
    let value = numbers(given).first().map(|n| n.int());
    let depth = value
        .and_then(|d| usize::try_from(d).ok())
        .filter(|d| (1..1 << 24).contains(d));
    depth.ok_or_else(|| "the depth is no positive number".into())
}

fn hot_axis(attrs: &Attrs<'_>, rank: usize) -> Result<usize, String> {
    axis_of(attrs.int("axis", -1), rank + 1)
}

impl Operator for OneHot {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let (at, values) = (node.ty(0)?, node.ty(2)?);
        let axis = hot_axis(&node.attrs(), at.dims.len())?;
        if values.item() != [2] || (at.has_batch() && axis == 0) {
            return Err(format!("values of {:?} on axis {axis}", values.dims));
        }
        let mut dims = at.dims.clone();
        dims.insert(axis, fixed(&[depth(node.constant(1)?)?])[0]);
        Ok(vec![Type::new(values.dtype, dims)])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let (at, values) = (call.input(0)?, numbers(call.input(2)?));
        let (depth, axis) = (
            depth(call.input(1)?)?,
            hot_axis(&call.attrs(), at.dims().len())?,
        );
        let [off, on] = values[..] else {
            return Err("two values are expected".into());
        };
        let indices = numbers(at);
        let mut dims = at.dims().to_vec();
        dims.insert(axis, depth);
        let one = |mut place: Vec<usize>| {
            let hot = place.remove(axis) as i64;
            let want = indices[ravel(&place, at.dims())].int();
            let want = if want < 0 { want + depth as i64 } else { want };
            if want == hot { on } else { off }
        };
        let result: Vec<Number> = places(&dims).map(one).collect();
        Ok(vec![tensor(call.input(2)?.dtype(), dims, &result)?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let (at, out) = (node.ty(0)?, cx.out()?);
        let (depth, axis) = (
            depth(node.constant(1)?)?,
            hot_axis(&node.attrs(), at.dims.len())?,
        );
        let [indices, values] = [cx.read(0, Layout::Plain)?, cx.read(2, Layout::Plain)?];
        let dst = cx.write(Layout::Plain)?;
        let strides = Layout::Plain.strides(&at.item());
        let dense = Layout::Plain.strides(&out.item());
        let mut program = Scalar::new("one-hot");
        program.nest(&out.item(), &mut |s, place| {
            let mut from = place.to_vec();
            let hot = from.remove(axis).to(Ty::Long);
            let want = s
                .load(indices, at.dtype, index(&from, &strides))
                .to(Ty::Long);
            let want = s.once(want);
            let turned = want.clone() + Ex::Long(depth as i64);
            let want = want.clone().lt(Ex::Long(0)).pick(turned, want);
            let (off, on) = (
                s.load(values, out.dtype, Ex::Int(0)),
                s.load(values, out.dtype, Ex::Int(1)),
            );
            s.store(
                dst,
                out.dtype,
                index(place, &dense),
                want.eq(hot).pick(on, off),
            );
        });
        cx.push(program, 0)
    }
}
