//! QLinearSoftmax: x, x_scale, x_zero, y_scale, y_zero.

use super::softmax::rows;
use super::{Call, Operator};
use crate::kernels::QSoftmax;
use crate::lower::scales::{Scale, eight_bit, result_dtype};
use crate::lower::{Layout, LowerCx};
use crate::math;
use crate::reference;
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};

/// QLinearSoftmax.
pub(crate) struct QLinearSoftmax;

fn sizes(node: &NodeView<'_>) -> Result<(usize, usize), String> {
    rows(node, node.attrs().int("opset", node.opset))
}

impl Operator for QLinearSoftmax {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let ty = node.ty(0)?;
        eight_bit(ty.dtype)?;
        Scale::at(node, 1)?;
        Scale::at(node, 3)?;
        sizes(node)?;
        Ok(vec![Type::new(result_dtype(node, 4)?, ty.dims.clone())])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        call.run(reference::qlinear::softmax(&call.attrs(), call.opset))
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let (x, y) = (Scale::at(&node, 1)?, Scale::at(&node, 3)?);
        let (rows, len) = sizes(&node)?;
        let dtype = node.ty(0)?.dtype;
        let table: Vec<u8> = (0..256u16)
            .flat_map(|d| math::exp(-f32::from(d) * x.scale).to_le_bytes())
            .collect();
        let table = cx.weights(&table)?;
        let src = cx.read(0, Layout::Plain)?;
        let dst = cx.write(Layout::Plain)?;
        let result = (y.scale, y.zero, cx.out()?.dtype);
        cx.push_int(
            QSoftmax {
                src,
                dst,
                table,
                rows,
                len,
                dtype,
                result,
            },
            0,
        )
    }
}
