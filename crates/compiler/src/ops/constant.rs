//! Constant: always folded.

use super::{Call, Operator};
use crate::lower::LowerCx;
use crate::reference::shape::constant_value;
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type, fixed};

/// Constant.
pub(crate) struct Constant;

impl Operator for Constant {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let value = constant_value(&node.attrs())?;
        Ok(vec![Type::new(value.dtype(), fixed(value.dims()))])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        Ok(vec![constant_value(&call.attrs())?])
    }

    fn lower(&self, _cx: &mut LowerCx<'_>) -> Result<(), String> {
        Err("it was not folded".into())
    }

    fn known(&self, node: &NodeView<'_>) -> Result<Option<Vec<crate::tensor::Tensor>>, String> {
        constant_value(&node.attrs()).map(|value| Some(vec![value]))
    }

    fn moves(&self) -> bool {
        true
    }
}
