//! DynamicQuantizeLinear: floats to u8 with a scale and zero point from their own range, which is that
//! of one item of a batch.

use super::{Call, Operator};
use crate::kernels::{Ex, Scalar, Ty, Un};
use crate::lower::{Layout, LowerCx};
use crate::tensor::{Data, Tensor};
use crate::typed::{NodeView, Type};
use sandpiper_core::tensor::DType;

/// DynamicQuantizeLinear.
pub(crate) struct DynamicQuantizeLinear;

impl Operator for DynamicQuantizeLinear {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let ty = node.float(0)?;
        if ty.has_batch() {
            return Err(
                "its range is that of all items of a batch; give the input a fixed shape".into(),
            );
        }
        Ok(vec![
            Type::new(DType::U8, ty.dims.clone()),
            Type::new(DType::F32, Vec::new()),
            Type::new(DType::U8, Vec::new()),
        ])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let x = call.input(0)?;
        let values = x.as_f32()?;
        let low = values.iter().copied().fold(0.0, f32::min);
        let high = values.iter().copied().fold(0.0, f32::max);
        let scale = (high - low) / 255.0;
        let zero = if scale == 0.0 {
            0.0
        } else {
            (-low / scale).clamp(0.0, 255.0).round_ties_even()
        };
        let one = |v: &f32| match scale == 0.0 {
            true => 0,
            false => ((v / scale).round_ties_even() + zero).clamp(0.0, 255.0) as u8,
        };
        let y = Data::U8(values.iter().map(one).collect());
        Ok(vec![
            Tensor::new(x.dims().to_vec(), y)?,
            Tensor::f32(&[], vec![scale])?,
            Tensor::new(Vec::new(), Data::U8(vec![zero as u8]))?,
        ])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let count = cx.ty(0)?.elements();
        let src = cx.read(0, Layout::Plain)?;
        let outputs = [0, 1, 2].map(|i| cx.write_output(i));
        let real = Ex::Real;
        let mut s = Scalar::new("quantize-dynamic");
        let (low, high) = (s.var(real(0.0)), s.var(real(0.0)));
        s.each(count, |s, i| {
            let x = s.load(src, DType::F32, i);
            let x = s.once(x);
            s.set(low, Ex::Var(low).min(x.clone()));
            s.set(high, Ex::Var(high).max(x));
        });
        let scale = s.once((Ex::Var(high) - Ex::Var(low)) / real(255.0));
        let flat = s.once(scale.clone().eq(real(0.0)));
        let within = |x: Ex| x.max(real(0.0)).min(real(255.0));
        let zero = within((real(0.0) - Ex::Var(low)) / scale.clone()).un(Un::Nearest);
        let zero = s.once(flat.clone().pick(real(0.0), zero));
        if let Some(y) = outputs[0] {
            s.each(count, |s, i| {
                let x = s.load(src, DType::F32, i.clone());
                let value = within((x / scale.clone()).un(Un::Nearest) + zero.clone());
                let value = flat.clone().pick(real(0.0), value);
                s.store(y, DType::U8, i, value.to(Ty::Int));
            });
        }
        if let Some(to) = outputs[1] {
            s.store(to, DType::F32, Ex::Int(0), scale);
        }
        if let Some(to) = outputs[2] {
            s.store(to, DType::U8, Ex::Int(0), zero.to(Ty::Int));
        }
        cx.push(s, 0)
    }
}
