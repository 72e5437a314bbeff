//! Reshape to a constant shape: 0 keeps a dimension, -1 takes the rest.

use super::MIXES;
use super::identity::renamed;
use super::{Call, Operator};
use crate::lower::LowerCx;
use crate::reference;
use crate::tensor::Tensor;
use crate::typed::{BATCH_MARK, NodeView, Type};
use sandpiper_core::tensor::Dim;

/// Reshape.
pub(crate) struct Reshape;

impl Operator for Reshape {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let ty = node.ty(0)?;
        let wanted = node.constant(1)?.to_i64()?;
        let literal_zero = node.attrs().int("allowzero", 0) != 0;
        let mut dims = Vec::with_capacity(wanted.len());
        let mut open = None;
        for (i, want) in wanted.iter().enumerate() {
            dims.push(match *want {
                BATCH_MARK => Dim::Batch,
                -1 if open.is_none() => {
                    open = Some(i);
                    Dim::Fixed(1)
                }
                0 if !literal_zero => *ty.dims.get(i).ok_or("0 stands for no dimension")?,
                n => {
                    Dim::Fixed(u32::try_from(n).map_err(|_| format!("{wanted:?} is not a shape"))?)
                }
            });
        }
        // Items are counted apart from the batch, which both sides must have, or neither.
        let mut result = Type::new(ty.dtype, dims);
        let have = ty.elements();
        let known = crate::tensor::elements(&result.item())
            .filter(|n| *n > 0)
            .ok_or("its result is empty or too large")?;
        let batch_left = ty.has_batch() && !result.dims.contains(&Dim::Batch);
        match open {
            Some(open) if batch_left && known == have => result.dims[open] = Dim::Batch,
            Some(_) if batch_left => return Err(MIXES.into()),
            Some(open) if have % known == 0 => {
                // At most 2^28 elements were checked before.
                result.dims[open] = Dim::Fixed((have / known) as u32);
            }
            None if batch_left => {
                return Err("its shape fixes the batch; give the input that fixed shape".into());
            }
            None if known == have => {}
            _ => return Err(format!("{wanted:?} does not hold {have} elements")),
        }
        Ok(vec![result])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        call.run(reference::shape::reshape(&call.attrs()))
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        renamed(cx)
    }

    fn moves(&self) -> bool {
        true
    }
}
