//! DynamicQuantizeLinear: floats to u8 with a scale and zero point from their own range, which is that
//! of one item of a batch.

use super::{Call, Operator};
use crate::kernels::{Elementwise, Ex, Expr, Operand, Scalar, Span, Store, Ty, Un};
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
        let [y, scale_to, zero_to] = [0, 1, 2].map(|i| cx.write_output(i));
        let range = cx.temporary(8);
        let dst = range;
        cx.push(Span { src, dst, count }, 0)?;
        let divisor = cx.temporary(4);
        let zero_to = zero_to.unwrap_or_else(|| cx.temporary(1));
        let real = Ex::Real;
        let mut s = Scalar::new("quantize-dynamic");
        let low = s.load(range, DType::F32, Ex::Int(0));
        let high = s.load(range, DType::F32, Ex::Int(1));
        let low = s.once(low);
        let scale = s.once((high - low.clone()) / real(255.0));
        let flat = s.once(scale.clone().eq(real(0.0)));
        let zero = (real(0.0) - low) / scale.clone();
        let zero = zero.max(real(0.0)).min(real(255.0)).un(Un::Nearest);
        let zero = flat.clone().pick(real(0.0), zero);
        s.store(zero_to, DType::U8, Ex::Int(0), zero.to(Ty::Int));
        // Where all is 0, any divisor leaves it so.
        let used = flat.pick(real(1.0), scale.clone());
        s.store(divisor, DType::F32, Ex::Int(0), used);
        if let Some(to) = scale_to {
            s.store(to, DType::F32, Ex::Int(0), scale);
        }
        cx.push(s, 0)?;
        let Some(dst) = y else {
            return Ok(());
        };
        let operand = |(at, dtype, stride)| Operand {
            at,
            dtype,
            strides: vec![stride],
        };
        let rounded = Expr::Round(Box::new(Expr::In(0).over(Expr::In(1))));
        let kernel = Elementwise {
            name: "quantize",
            dims: vec![count],
            operands: [
                (src, DType::F32, 1),
                (divisor, DType::F32, 0),
                (zero_to, DType::U8, 0),
            ]
            .map(operand)
            .to_vec(),
            expr: rounded.plus(Expr::In(2)),
            dst,
            store: Store::Quantized {
                dtype: DType::U8,
                zero: 0,
            },
        };
        cx.push(kernel, 0)
    }
}
