//! DequantizeLinear, by tensor, by axis, or by blocks along it. Of a constant it is folded only once the rewriting has
//! seen it: quantised weights stay what they are.

use super::quantize_linear::{along_axis, by_tensor, known_only_at_run_time};
use super::{Call, Operator};
use crate::kernels::{Ex, Expr, Store, Ty};
use crate::lower::elementwise::{Term, lower};
use crate::lower::scales::Scale;
use crate::lower::{LowerCx, loops};
use crate::reference;
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};
use sandpiper_core::tensor::DType;

/// DequantizeLinear.
pub(crate) struct DequantizeLinear;

impl Operator for DequantizeLinear {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let ty = node.ty(0)?;
        if !matches!(ty.dtype, DType::I8 | DType::U8 | DType::I32) {
            return Err(format!(
                "quantised values of {} are not supported",
                ty.dtype
            ));
        }
        if known_only_at_run_time(node)? {
            return Ok(vec![Type::new(DType::F32, ty.dims.clone())]);
        }
        if !by_tensor(node)? {
            along_axis(node)?;
        } else if ty.dtype != DType::I32 {
            Scale::at(node, 1)?;
        }
        Ok(vec![Type::new(DType::F32, ty.dims.clone())])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        reference::quantize::dequantize(&call.attrs(), call.inputs)
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        if known_only_at_run_time(&node)? {
            let inputs: Vec<usize> = (0..node.inputs.len()).collect();
            return loops::elementwise(cx, "dequantize", &inputs, &mut |_, v| {
                let zero = v.get(2).cloned().unwrap_or(Ex::Int(0));
                (v[0].clone() - zero).to(Ty::Real) * v[1].clone()
            });
        }
        if by_tensor(&node)? {
            let Scale { scale, zero } = Scale::at(&node, 1)?;
            let expr = Expr::In(0)
                .minus(Expr::Const(zero as f32))
                .times(Expr::Const(scale));
            return lower(cx, "dequantize", &[Term::Input(0)], expr, Store::Float);
        }
        let (scale, zero) = along_axis(&node)?;
        let terms = [
            Term::Input(0),
            Term::Constant(&scale),
            Term::Constant(&zero),
        ];
        let expr = Expr::In(0).minus(Expr::In(2)).times(Expr::In(1));
        lower(cx, "dequantize", &terms, expr, Store::Float)
    }

    fn folds(&self) -> bool {
        false
    }
}
