//! Unsqueeze: axes are an attribute up to opset 12, a constant input since.

use super::identity::renamed;
use super::squeeze::axes;
use super::{Call, Operator};
use crate::lower::LowerCx;
use crate::reference;
use crate::reference::axis_of;
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};
use sandpiper_core::tensor::Dim;

/// Unsqueeze.
pub(crate) struct Unsqueeze;

impl Operator for Unsqueeze {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let ty = node.ty(0)?;
        let axes = axes(node)?.ok_or("axes are missing")?;
        let rank = ty.dims.len() + axes.len();
        let new: Vec<usize> = axes
            .iter()
            .map(|a| axis_of(*a, rank))
            .collect::<Result<_, _>>()?;
        if (1..new.len()).any(|i| new[..i].contains(&new[i])) {
            return Err("an axis is given twice".into());
        }
        let mut old = ty.dims.iter().copied();
        let one = |i: usize| {
            if new.contains(&i) {
                Dim::Fixed(1)
            } else {
                old.next().unwrap_or(Dim::Fixed(1))
            }
        };
        Ok(vec![Type::new(ty.dtype, (0..rank).map(one).collect())])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        call.run(reference::shape::unsqueeze(&call.attrs()))
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        renamed(cx)
    }

    fn moves(&self) -> bool {
        true
    }
}
