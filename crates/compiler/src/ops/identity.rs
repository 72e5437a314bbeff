//! Identity, and Dropout in inference.

use super::{Call, Operator};
use crate::lower::LowerCx;
use crate::reference;
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};

/// Identity.
pub(crate) struct Identity;

/// The first output is input 0 under other dimensions (or the same): nothing moves.
pub(crate) fn renamed(cx: &mut LowerCx<'_>) -> Result<(), String> {
    let at = cx.read(0, crate::lower::Layout::Plain)?;
    cx.place(crate::lower::Layout::Plain, at);
    Ok(())
}

impl Operator for Identity {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        // Dropout that is told, in the file, to train.
        if node.optional(2).is_some() && node.constant(2)?.to_i64()?.contains(&1) {
            return Err("training is not supported; export the model for inference".into());
        }
        Ok(vec![node.ty(0)?.clone()])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        call.run(reference::shape::identity())
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let layout = cx.layout(0);
        let at = cx.read(0, layout)?;
        cx.place(layout, at);
        Ok(())
    }

    fn moves(&self) -> bool {
        true
    }
}
