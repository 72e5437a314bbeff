//! MatMul: fast with a constant matrix on the right.

use super::matrices::product_type;
use super::{Call, Operator};
use crate::kernels::{Element, Fill};
use crate::lower::LowerCx;
use crate::lower::dense::{Bias, Ending, Terms, product};
use crate::reference;
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type, fixed};
use sandpiper_core::tensor::DType;

/// MatMul.
pub(crate) struct MatMul;

/// Columns of the constant matrix at input `b`, which must fit input 0.
pub(crate) fn columns(node: &NodeView<'_>, b: usize) -> Result<usize, String> {
    let (a, w) = (node.ty(0)?.item(), node.frozen(b)?);
    let (Some(&inner), &[depth, columns]) = (a.last(), w.as_slice()) else {
        return Err("the right operand must be a constant matrix".into());
    };
    if inner != depth || a.len() < 2 || columns == 0 {
        return Err(format!("{a:?} times {w:?} is not supported"));
    }
    Ok(columns)
}

/// The type of the product.
pub(crate) fn multiplied(
    node: &NodeView<'_>,
    columns: usize,
    dtype: DType,
) -> Result<Type, String> {
    let mut dims = node.ty(0)?.dims.clone();
    dims.pop();
    dims.extend(fixed(&[columns]));
    Ok(Type::new(dtype, dims))
}

/// Whether the right operand is a constant matrix: its weights are then packed.
fn constant(node: &NodeView<'_>) -> bool {
    columns(node, 1).is_ok()
}

impl Operator for MatMul {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        node.float(0)?;
        node.float(1)?;
        if !constant(node) {
            return Ok(vec![product_type(node.ty(0)?, node.ty(1)?, DType::F32)?]);
        }
        Ok(vec![multiplied(node, columns(node, 1)?, DType::F32)?])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        call.run(reference::gemm::matmul())
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        if !constant(&node) {
            return super::matrices::matmul(cx);
        }
        let columns = columns(&node, 1)?;
        let values = node.constant(1)?.as_f32()?;
        let inner = values.len() / columns;
        let rows = node.ty(0)?.elements() / inner;
        let weight = |column: usize, k: usize, _: usize| values[k * columns + column];
        let terms = Terms {
            element: Element::F32,
            weight: &weight,
            bias: Bias::Known(vec![0; columns]),
            finish: Ending::Float(cx.node.clamp),
            fill: Fill::Byte(0),
        };
        product(cx, [rows, columns, inner], &terms)
    }

    fn folds(&self) -> bool {
        false
    }

    fn clamps(&self) -> bool {
        true
    }
}
