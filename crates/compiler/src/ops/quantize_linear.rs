//! QuantizeLinear, by tensor or by axis.

use super::{Call, Operator};
use crate::kernels::{Expr, Store};
use crate::lower::LowerCx;
use crate::lower::elementwise::{Term, lower};
use crate::lower::scales::{Scale, eight_bit, zeros};
use crate::reference;
use crate::reference::axis_of;
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};
use sandpiper_core::tensor::DType;

/// QuantizeLinear.
pub(crate) struct QuantizeLinear;

/// Scales and zero points, as floats, shaped to be broadcast along the axis of input 0.
pub(crate) fn along_axis(node: &NodeView<'_>) -> Result<(Tensor, Tensor), String> {
    let dims = node.ty(0)?.item();
    let axis = axis_of(node.attrs().int("axis", 1), dims.len())?;
    let scales = node.constant(1)?.as_f32()?;
    let zero = node.optional_constant(2)?.map(zeros).transpose()?;
    let zero = zero.unwrap_or_else(|| vec![0; scales.len()]);
    if scales.len() != dims[axis] || zero.len() != scales.len() {
        return Err(format!(
            "{} scales and {} zero points for axis {axis} of {dims:?}",
            scales.len(),
            zero.len()
        ));
    }
    if scales.iter().any(|s| !s.is_finite() || *s <= 0.0) {
        return Err("a scale is not a positive number".into());
    }
    let mut shape = vec![1; dims.len()];
    shape[axis] = scales.len();
    let zero = zero.into_iter().map(|z| z as f32).collect();
    Ok((
        Tensor::f32(&shape, scales.to_vec())?,
        Tensor::f32(&shape, zero)?,
    ))
}

/// Whether there is one scale for the whole tensor.
pub(crate) fn by_tensor(node: &NodeView<'_>) -> Result<bool, String> {
    if node.attrs().int("block_size", 0) != 0 {
        return Err("scales by block are not supported".into());
    }
    Ok(node.constant(1)?.len() == 1)
}

impl Operator for QuantizeLinear {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let dtype = node.optional(2).map_or(DType::U8, |z| z.ty.dtype);
        eight_bit(dtype)?;
        if by_tensor(node)? {
            Scale::at(node, 1)?;
        } else {
            along_axis(node)?;
        }
        Ok(vec![Type::new(dtype, node.float(0)?.dims.clone())])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        call.run(reference::quantize::quantize(&call.attrs()))
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let dtype = cx.out()?.dtype;
        if by_tensor(&node)? {
            let Scale { scale, zero } = Scale::at(&node, 1)?;
            let expr = Expr::In(0).over(Expr::Const(scale));
            return lower(
                cx,
                "quantize",
                &[Term::Input(0)],
                expr,
                Store::Quantized { dtype, zero },
            );
        }
        let (scale, zero) = along_axis(&node)?;
        let rounded = Expr::Round(Box::new(Expr::In(0).over(Expr::In(1))));
        let terms = [
            Term::Input(0),
            Term::Constant(&scale),
            Term::Constant(&zero),
        ];
        let store = Store::Quantized { dtype, zero: 0 };
        lower(cx, "quantize", &terms, rounded.plus(Expr::In(2)), store)
    }
}
