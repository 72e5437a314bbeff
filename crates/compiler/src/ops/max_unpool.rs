//! MaxUnpool: values back to where MaxPool found them, by their index in the whole tensor.

use super::MIXES;
use super::{Call, Operator};
use crate::kernels::{Ex, Scalar, Ty, index};
use crate::lower::{Layout, LowerCx};
use crate::onnx::Attrs;
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type, fixed};
use sandpiper_core::tensor::DType;

/// MaxUnpool.
pub(crate) struct MaxUnpool;

/// The dimensions that indices refer to, and those of the result, of which these are a part.
fn shapes(
    attrs: &Attrs<'_>,
    x: &[usize],
    given: Option<&Tensor>,
) -> Result<[Vec<usize>; 2], String> {
    let rank = x.len().saturating_sub(2);
    let kernel = attrs.sizes("kernel_shape")?.unwrap_or_default();
    let strides = attrs.sizes("strides")?.unwrap_or_else(|| vec![1; rank]);
    let pads = attrs.sizes("pads")?.unwrap_or_else(|| vec![0; 2 * rank]);
    let sizes = [kernel.len(), strides.len(), pads.len()];
    if rank == 0 || sizes != [rank, rank, 2 * rank] {
        return Err(format!("a window of {kernel:?} for {x:?}"));
    }
    let mut inner = x[..2].to_vec();
    for i in 0..rank {
        let full = (x[2 + i] - 1) * strides[i] + kernel[i];
        let size = full.checked_sub(pads[i] + pads[rank + i]);
        inner.push(size.filter(|s| *s > 0).ok_or("the padding is too large")?);
    }
    let outer = match given {
        None => inner.clone(),
        Some(given) => {
            let all = given.to_i64()?;
            let sizes: Option<Vec<usize>> = all.iter().map(|n| usize::try_from(*n).ok()).collect();
            let fits = |s: &Vec<usize>| {
                s.len() == inner.len() && s.iter().zip(&inner).all(|(s, i)| s >= i)
            };
            let sizes = sizes.filter(fits);
            sizes.ok_or_else(|| format!("an output of {all:?} around {inner:?}"))?
        }
    };
    Ok([inner, outer])
}

fn of_node(node: &NodeView<'_>) -> Result<[Vec<usize>; 2], String> {
    let (x, indices) = (node.float(0)?, node.ty(1)?);
    if x.has_batch() {
        return Err(MIXES.into());
    }
    if indices.dims != x.dims || indices.dtype != DType::I64 {
        return Err("the indices do not fit the values".into());
    }
    shapes(&node.attrs(), &x.item(), node.optional_constant(2)?)
}

impl Operator for MaxUnpool {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let [_, outer] = of_node(node)?;
        Ok(vec![Type::new(DType::F32, fixed(&outer))])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let (x, indices) = (call.input(0)?, call.input(1)?.to_i64()?);
        let [inner, outer] = shapes(&call.attrs(), x.dims(), call.optional(2))?;
        let mut y = vec![0.0; outer.iter().product()];
        let strides = Layout::Plain.strides(&outer);
        let last = inner.iter().product::<usize>() as i64 - 1;
        for (v, at) in x.as_f32()?.iter().zip(indices) {
            // What lies outside is brought inside, as everywhere.
            let mut at = at.clamp(0, last) as usize;
            let mut to = 0;
            for axis in (0..inner.len()).rev() {
                to += at % inner[axis] * strides[axis];
                at /= inner[axis];
            }
            y[to] = *v;
        }
        Ok(vec![Tensor::f32(&outer, y)?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let [inner, outer] = of_node(&cx.view())?;
        let [x, indices] = [cx.read(0, Layout::Plain)?, cx.read(1, Layout::Plain)?];
        let (n, dst) = (cx.ty(0)?.elements(), cx.write(Layout::Plain)?);
        let strides = Layout::Plain.strides(&outer);
        let last = inner.iter().product::<usize>() as i64 - 1;
        let mut program = Scalar::new("max-unpool");
        program.each(outer.iter().product(), |s, i| {
            s.store(dst, DType::F32, i, Ex::Real(0.0));
        });
        program.each(n, |s, i| {
            let at = s.load(indices, DType::I64, i.clone());
            let cut = at.max(Ex::Long(0)).min(Ex::Long(last));
            let mut at = s.once(cut.to(Ty::Int));
            let mut place = vec![Ex::Int(0); inner.len()];
            for axis in (0..inner.len()).rev() {
                let size = Ex::Int(inner[axis] as i32);
                place[axis] = s.once(at.clone().remainder(size.clone()));
                at = s.once(at.divided(size));
            }
            let value = s.load(x, DType::F32, i);
            s.store(dst, DType::F32, index(&place, &strides), value);
        });
        cx.push(program, 0)
    }
}
