//! QLinearConcat: y_scale, y_zero, then x, x_scale, x_zero of each input.

use super::concat::{join, joined};
use super::table::requantized;
use super::{Call, Operator};
use crate::lower::LowerCx;
use crate::lower::scales::{Scale, eight_bit};
use crate::reference::{axis_of, qlinear};
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};

/// QLinearConcat.
pub(crate) struct QLinearConcat;

/// Where the tensors are among the inputs.
fn tensors(node: &NodeView<'_>) -> Vec<usize> {
    (2..node.inputs.len()).step_by(3).collect()
}

fn axis(node: &NodeView<'_>) -> Result<usize, String> {
    axis_of(node.attrs().int("axis", 0), node.ty(2)?.dims.len())
}

impl Operator for QLinearConcat {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let dtype = node.constant(1)?.dtype();
        eight_bit(dtype)?;
        Scale::at(node, 0)?;
        let mut types = Vec::new();
        for index in tensors(node) {
            eight_bit(node.ty(index)?.dtype)?;
            Scale::at(node, index + 1)?;
            types.push(Type::new(dtype, node.ty(index)?.dims.clone()));
        }
        let types: Vec<&Type> = types.iter().collect();
        Ok(vec![joined(&types, axis(node)?)?])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        call.run(qlinear::concat(&call.attrs()))
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let (y, dtype) = (Scale::at(&node, 0)?, cx.out()?.dtype);
        let mut parts = Vec::new();
        for index in tensors(&node) {
            let x = Scale::at(&node, index + 1)?;
            let (at, layout) = requantized(cx, index, (x, y), dtype)?;
            parts.push((at, layout, node.ty(index)?.item()));
        }
        join(cx, axis(&node)?, parts)
    }

    fn folds(&self) -> bool {
        false
    }
}
