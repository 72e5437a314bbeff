//! QLinearConv: x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias.

use super::conv::{convolved, geometry};
use super::{Call, Operator};
use crate::lower::LowerCx;
use crate::lower::dense::convolution;
use crate::lower::scales::{Quantized, Scale, ending, result_dtype};
use crate::reference;
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};

/// QLinearConv.
pub(crate) struct QLinearConv;

fn weights(node: &NodeView<'_>, outputs: usize) -> Result<(Quantized, usize), String> {
    let each = node.constant(3)?.len() / outputs;
    let y = Scale::at(node, 6)?;
    Ok((
        Quantized::of(node, 3, outputs, |i| i / each, y.scale)?,
        each,
    ))
}

impl Operator for QLinearConv {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let ty = convolved(node, 3, result_dtype(node, 7)?)?;
        let outputs = ty.item()[1];
        weights(node, outputs)?;
        if node
            .optional_constant(8)?
            .is_some_and(|b| b.len() != outputs)
        {
            return Err("the bias does not have an entry per output channel".into());
        }
        Ok(vec![ty])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        call.run(reference::qlinear::conv(&call.attrs()))
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let (g, outputs, groups) = geometry(&node, 3)?;
        let (q, each) = weights(&node, outputs)?;
        let (per_group, taps) = (node.constant(3)?.dims()[1], g.kernel[0] * g.kernel[1]);
        let weight =
            |m: usize, c: usize, tap: usize| q.values[(m * per_group + c) * taps + tap] as f32;
        let finish = ending(cx, q.multipliers.clone(), Some(Scale::at(&node, 6)?))?;
        let bias = node.optional_constant(8)?;
        let terms = q.terms(outputs, |i| i / each, bias, &weight, finish)?;
        convolution(cx, &g, (outputs, groups), &terms)
    }

    fn folds(&self) -> bool {
        false
    }
}
