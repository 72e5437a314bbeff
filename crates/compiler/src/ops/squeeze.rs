//! Squeeze: axes are an attribute up to opset 12, a constant input since.

use super::identity::renamed;
use super::{Call, Operator};
use crate::lower::LowerCx;
use crate::reference;
use crate::reference::axis_of;
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};
use sandpiper_core::tensor::Dim;

/// Squeeze.
pub(crate) struct Squeeze;

/// The axes of Squeeze and Unsqueeze.
pub(crate) fn axes(node: &NodeView<'_>) -> Result<Option<Vec<i64>>, String> {
    match node.optional_constant(1)? {
        Some(tensor) => tensor.to_i64().map(Some),
        None => Ok(node.attrs().ints("axes")),
    }
}

impl Operator for Squeeze {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let ty = node.ty(0)?;
        let rank = ty.dims.len();
        let drop: Vec<usize> = match axes(node)? {
            Some(axes) => axes
                .iter()
                .map(|a| axis_of(*a, rank))
                .collect::<Result<_, _>>()?,
            None => (0..rank).filter(|i| ty.dims[*i] == Dim::Fixed(1)).collect(),
        };
        if let Some(axis) = drop.iter().find(|a| ty.dims[**a] != Dim::Fixed(1)) {
            return Err(format!("axis {axis} is not 1"));
        }
        let kept = (0..rank)
            .filter(|i| !drop.contains(i))
            .map(|i| ty.dims[i])
            .collect();
        Ok(vec![Type::new(ty.dtype, kept)])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        call.run(reference::shape::squeeze(&call.attrs()))
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        renamed(cx)
    }

    fn moves(&self) -> bool {
        true
    }
}
