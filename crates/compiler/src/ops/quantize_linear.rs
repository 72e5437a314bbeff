//! QuantizeLinear, by tensor, by axis, or by blocks along it.

use super::{Call, Operator};
use crate::kernels::{Ex, Expr, Store, Ty, Un};
use crate::lower::elementwise::{Term, lower};
use crate::lower::scales::{Scale, eight_bit, zeros};
use crate::lower::{LowerCx, loops};
use crate::reference;
use crate::reference::axis_of;
use crate::reference::quantize::Scales;
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};
use sandpiper_core::tensor::DType;

/// QuantizeLinear.
pub(crate) struct QuantizeLinear;

/// Scales and zero points, as floats, shaped to be broadcast along the axis of input 0.
pub(crate) fn along_axis(node: &NodeView<'_>) -> Result<(Tensor, Tensor), String> {
    let dims = node.ty(0)?.item();
    if node.attrs().int("block_size", 0) != 0 {
        return blocks(node, &dims);
    }
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

/// The same for scales by block: one for each element.
fn blocks(node: &NodeView<'_>, dims: &[usize]) -> Result<(Tensor, Tensor), String> {
    let axis = axis_of(node.attrs().int("axis", 1), dims.len())?;
    if axis == 0 && node.ty(0)?.has_batch() {
        return Err(super::MIXES.into());
    }
    let (scale, zero) = (node.constant(1)?, node.optional_constant(2)?);
    if scale.as_f32()?.iter().any(|s| !s.is_finite() || *s <= 0.0) {
        return Err("a scale is not a positive number".into());
    }
    Scales::given(&node.attrs(), dims, scale, zero)?.spread(dims)
}

/// Whether scale and zero point are no constants; there must then be one of each.
pub(crate) fn known_only_at_run_time(node: &NodeView<'_>) -> Result<bool, String> {
    let constant = [1, 2]
        .into_iter()
        .filter_map(|i| node.optional(i))
        .all(|v| v.constant.is_some());
    if constant {
        return Ok(false);
    }
    let single = |i: usize| {
        node.optional(i)
            .is_none_or(|v| v.ty.elements() == 1 && !v.ty.has_batch())
    };
    match single(1) && single(2) && node.float(1).is_ok() {
        true => Ok(true),
        false => Err("scales by axis must be constants".into()),
    }
}

/// Whether there is one scale for the whole tensor.
pub(crate) fn by_tensor(node: &NodeView<'_>) -> Result<bool, String> {
    let blocks = node.attrs().int("block_size", 0) != 0;
    Ok(!blocks && node.constant(1)?.len() == 1)
}

impl Operator for QuantizeLinear {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let dtype = node.optional(2).map_or(DType::U8, |z| z.ty.dtype);
        eight_bit(dtype)?;
        if known_only_at_run_time(node)? {
            return Ok(vec![Type::new(dtype, node.float(0)?.dims.clone())]);
        }
        if by_tensor(node)? {
            Scale::at(node, 1)?;
        } else {
            along_axis(node)?;
        }
        Ok(vec![Type::new(dtype, node.float(0)?.dims.clone())])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        reference::quantize::quantize(&call.attrs(), call.inputs)
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let dtype = cx.out()?.dtype;
        if known_only_at_run_time(&node)? {
            let (low, high) = crate::emit::range(dtype);
            let inputs: Vec<usize> = (0..node.inputs.len()).collect();
            return loops::elementwise(cx, "quantize", &inputs, &mut |_, v| {
                let zero = v.get(2).map_or(Ex::Real(0.0), |z| z.clone().to(Ty::Real));
                let value = (v[0].clone() / v[1].clone()).un(Un::Nearest) + zero;
                let low = Ex::Real(low as f32);
                // NaN becomes the least value, as everywhere.
                let value = low.clone().lt(value.clone()).pick(value, low);
                value.min(Ex::Real(high as f32)).to(Ty::Int)
            });
        }
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
