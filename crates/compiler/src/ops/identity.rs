//! Identity, and Dropout in inference.

use super::{Call, Operator};
use crate::kernels::{Ex, Scalar};
use crate::lower::LowerCx;
use crate::tensor::{Data, Tensor};
use crate::typed::{NodeView, Type};
use sandpiper_core::tensor::DType;

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
        let ty = node.ty(0)?;
        let mask = Type::new(DType::Bool, ty.dims.clone());
        Ok(vec![ty.clone(), mask])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let x = call.input(0)?;
        let mask = Data::Bool(vec![1; x.len()]);
        Ok(vec![x.clone(), Tensor::new(x.dims().to_vec(), mask)?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let layout = cx.layout(0);
        let at = cx.read(0, layout)?;
        cx.place(layout, at);
        // The mask of Dropout: in inference everything stays.
        if let Some(mask) = cx.write_output(1) {
            let mut program = Scalar::new("mask");
            program.each(cx.out()?.elements(), |s, i| {
                s.store(mask, DType::Bool, i, Ex::Int(1));
            });
            cx.push(program, 0)?;
        }
        Ok(())
    }

    fn moves(&self) -> bool {
        true
    }
}
