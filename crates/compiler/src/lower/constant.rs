//! Constant: always folded.

use super::{LowerCx, Lowering};
use crate::typed::{NodeView, Type, fixed};

/// Constant.
pub(crate) struct Constant;

impl Lowering for Constant {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let value = node
            .attrs()
            .tensor("value")?
            .ok_or("only a tensor `value` is supported")?;
        Ok(vec![Type::new(value.dtype(), fixed(value.dims()))])
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
