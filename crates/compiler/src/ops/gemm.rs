//! Gemm: fast with a constant right operand and a constant row to add.

use super::{Call, Operator};
use crate::kernels::{Element, Fill};
use crate::lower::LowerCx;
use crate::lower::dense::{Bias, Ending, Terms, product};
use crate::reference;
use crate::reference::Transposed;
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type, fixed};
use sandpiper_core::tensor::DType;

/// Gemm.
pub(crate) struct Gemm;

/// Rows, columns and inner size of a product of input 0 with a constant matrix at input `b`.
pub(crate) fn sizes(node: &NodeView<'_>, b: usize) -> Result<([usize; 3], Transposed), String> {
    let transposed = Transposed::of(&node.attrs());
    if transposed.a {
        return Err("transA is not supported".into());
    }
    let sizes = transposed.sizes(&node.ty(0)?.item(), &node.frozen(b)?)?;
    if sizes.contains(&0) {
        return Err("a matrix is empty".into());
    }
    Ok((sizes, transposed))
}

/// The type of the product: the first dimension of input 0, and the columns.
pub(crate) fn multiplied(
    node: &NodeView<'_>,
    columns: usize,
    dtype: DType,
) -> Result<Type, String> {
    let rows = node
        .ty(0)?
        .dims
        .first()
        .copied()
        .ok_or("a matrix is expected")?;
    Ok(Type::new(dtype, [vec![rows], fixed(&[columns])].concat()))
}

/// Whether the right operand is constant and what is added is one constant row: weights are then
/// packed.
fn constant(node: &NodeView<'_>) -> bool {
    let Ok(([_, columns, _], _)) = sizes(node, 1) else {
        return false;
    };
    node.optional(2).is_none_or(|c| {
        let dims = c.ty.item();
        let row = dims.iter().rev().skip(1).all(|d| *d == 1) && dims.len() <= 2;
        let last = dims.last().copied().unwrap_or(1);
        c.frozen && row && (last == 1 || last == columns)
    })
}

impl Operator for Gemm {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        node.float(0)?;
        // The types of quantised weights are those of what they are dequantised to.
        node.float(1)?;
        if !constant(node) {
            return super::matrices::gemm_type(node);
        }
        let ([_, columns, _], _) = sizes(node, 1)?;
        Ok(vec![multiplied(node, columns, DType::F32)?])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        call.run(reference::gemm::build(&call.attrs()))
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        if !constant(&node) {
            return super::matrices::gemm(cx);
        }
        let (sizes @ [_, columns, _], transposed) = sizes(&node, 1)?;
        let factor = |name: &str| node.attrs().float(name).unwrap_or(1.0);
        let (alpha, beta) = (factor("alpha"), factor("beta"));
        let values = node.constant(1)?.as_f32()?;
        let weight =
            |column: usize, k: usize, _: usize| alpha * values[transposed.right(k, column, sizes)];
        let c = node.optional_constant(2)?.map(Tensor::as_f32).transpose()?;
        let added =
            |column: usize| c.map_or(0.0, |c| beta * c[if c.len() == 1 { 0 } else { column }]);
        let terms = Terms {
            element: Element::F32,
            weight: &weight,
            bias: Bias::Known((0..columns).map(|n| added(n).to_bits()).collect()),
            finish: Ending::Float(cx.node.clamp),
            fill: Fill::Byte(0),
        };
        product(cx, sizes, &terms)
    }

    fn folds(&self) -> bool {
        false
    }

    fn clamps(&self) -> bool {
        true
    }
}
