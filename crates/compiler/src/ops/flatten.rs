//! Flatten to a matrix.

use super::MIXES;
use super::identity::renamed;
use super::{Call, Operator};
use crate::lower::LowerCx;
use crate::reference;
use crate::reference::axis_of;
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type, fixed};

/// Flatten.
pub(crate) struct Flatten;

impl Operator for Flatten {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let ty = node.ty(0)?;
        let dims = ty.item();
        let axis = node.attrs().int("axis", 1);
        let axis = if axis == dims.len() as i64 {
            dims.len()
        } else {
            axis_of(axis, dims.len())?
        };
        let (outer, inner) = dims.split_at(axis);
        let (outer, inner): (usize, usize) = (outer.iter().product(), inner.iter().product());
        let mut flat = fixed(&[outer, inner]);
        if ty.has_batch() {
            if axis == 0 || outer != 1 {
                return Err(MIXES.into());
            }
            flat[0] = ty.dims[0];
        }
        Ok(vec![Type::new(ty.dtype, flat)])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        call.run(reference::shape::flatten(&call.attrs()))
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        renamed(cx)
    }

    fn moves(&self) -> bool {
        true
    }
}
