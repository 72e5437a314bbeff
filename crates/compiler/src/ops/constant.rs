//! Constant: always folded.

use super::{Call, Operator};
use crate::lower::LowerCx;
use crate::reference;
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type, fixed};

/// Constant.
pub(crate) struct Constant;

impl Operator for Constant {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let value = node
            .attrs()
            .tensor("value")?
            .ok_or("only a tensor `value` is supported")?;
        Ok(vec![Type::new(value.dtype(), fixed(value.dims()))])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        call.run(reference::shape::constant(&call.attrs()))
    }

    fn lower(&self, _cx: &mut LowerCx<'_>) -> Result<(), String> {
        Err("it was not folded".into())
    }

    fn known(&self, node: &NodeView<'_>) -> Result<Option<Vec<crate::tensor::Tensor>>, String> {
        Ok(node.attrs().tensor("value")?.map(|value| vec![value]))
    }

    fn moves(&self) -> bool {
        true
    }
}
