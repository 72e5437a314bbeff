//! Shape: known when the model is compiled; the batch is a mark.

use super::{Call, Operator};
use crate::lower::LowerCx;
use crate::reference::shape::{self, shape_range};
use crate::tensor::{Data, Tensor};
use crate::typed::{BATCH_MARK, NodeView, Type, fixed};
use sandpiper_core::tensor::{DType, Dim};

/// Shape.
pub(crate) struct Shape;

fn shape(node: &NodeView<'_>) -> Result<Vec<i64>, String> {
    let dims = &node.ty(0)?.dims;
    let size = |d: &Dim| match d {
        Dim::Batch => BATCH_MARK,
        Dim::Fixed(n) => i64::from(*n),
    };
    let range = shape_range(&node.attrs(), dims.len());
    Ok(dims[range].iter().map(size).collect())
}

impl Operator for Shape {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        Ok(vec![Type::new(DType::I64, fixed(&[shape(node)?.len()]))])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        Ok(vec![shape::shape(call.input(0)?.dims(), &call.attrs())?])
    }

    fn lower(&self, _cx: &mut LowerCx<'_>) -> Result<(), String> {
        Err("it was not folded".into())
    }

    fn known(&self, node: &NodeView<'_>) -> Result<Option<Vec<Tensor>>, String> {
        let sizes = shape(node)?;
        Ok(Some(vec![Tensor::new(
            vec![sizes.len()],
            Data::I64(sizes),
        )?]))
    }
}
