//! Identity, and Dropout in inference.

use super::{LowerCx, Lowering};
use crate::typed::{NodeView, Type};

/// Identity.
pub(crate) struct Identity;

/// The first output is input 0 under other dimensions (or the same): nothing moves.
pub(crate) fn renamed(cx: &mut LowerCx<'_>) -> Result<(), String> {
    let at = cx.read(0, super::Layout::Plain)?;
    cx.place(super::Layout::Plain, at);
    Ok(())
}

impl Lowering for Identity {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        Ok(vec![node.ty(0)?.clone()])
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
