//! From operators over elements to one kernel.

use super::loops::aligned;
use super::{Layout, LowerCx};
use crate::emit::Ref;
use crate::kernels::{Elementwise, Expr, Operand, Store};
use crate::tensor::Tensor;
use crate::typed::Type;
use sandpiper_core::tensor::{DType, Dim};

/// The type of two operands that are broadcast, by the rules of numpy.
pub(crate) fn broadcast(a: &Type, b: &Type) -> Result<Vec<Dim>, String> {
    let rank = a.dims.len().max(b.dims.len());
    let at = |t: &Type, i: usize| {
        (i + t.dims.len())
            .checked_sub(rank)
            .map_or(Dim::Fixed(1), |i| t.dims[i])
    };
    let one = |i| match (at(a, i), at(b, i)) {
        (x, y) if x == y => Ok(x),
        (Dim::Fixed(1), y) => Ok(y),
        (x, Dim::Fixed(1)) => Ok(x),
        (x, y) => Err(format!("dimensions {x:?} and {y:?} cannot be broadcast")),
    };
    (0..rank).map(one).collect()
}

/// An operand of the kernel.
pub(crate) enum Term<'a> {
    /// An input of the node.
    Input(usize),
    /// A constant that is broadcast.
    Constant(&'a Tensor),
}

/// Elements from one to the next along the result's dimensions, slowest first.
fn strides(dims: &[usize], layout: Layout) -> Vec<usize> {
    let dense = layout.strides(dims);
    let along = |axis: usize| if dims[axis] == 1 { 0 } else { dense[axis] };
    layout.order(dims.len()).into_iter().map(along).collect()
}

/// Adds the kernel that makes the node's output from these operands.
pub(crate) fn lower(
    cx: &mut LowerCx<'_>,
    name: &'static str,
    terms: &[Term<'_>],
    expr: Expr,
    store: Store,
) -> Result<(), String> {
    let out = cx.out()?.item();
    // The order of what is at hand, unless an operand of fewer dimensions has another one.
    let mut layout = Layout::Plain;
    let mut full = true;
    for term in terms {
        if let Term::Input(i) = term
            && !cx.is_constant(*i)
        {
            full &= cx.ty(*i)?.dims.len() == out.len();
            if cx.layout(*i) == Layout::Last {
                layout = Layout::Last;
            }
        }
    }
    if !full {
        layout = Layout::Plain;
    }
    let mut operands = Vec::with_capacity(terms.len());
    for term in terms {
        let constant = match term {
            Term::Constant(tensor) => Some(*tensor),
            Term::Input(i) if cx.is_constant(*i) => Some(cx.view().constant(*i)?),
            Term::Input(_) => None,
        };
        operands.push(match (constant, term) {
            (Some(tensor), _) => constant_operand(cx, tensor, out.len(), layout)?,
            (None, Term::Input(i)) => {
                let ty = cx.ty(*i)?;
                let at = cx.read(*i, layout)?;
                operand(at, ty.dtype, &aligned(&ty.item(), out.len()), layout)?
            }
            (None, Term::Constant(_)) => return Err("a constant is missing".into()),
        });
    }
    let order = layout.order(out.len());
    let dst = cx.write(layout)?;
    let dims = order.iter().map(|a| out[*a]).collect();
    cx.push(
        Elementwise {
            name,
            dims,
            operands,
            expr,
            dst,
            store,
        }
        .simplified(),
        0,
    )
}

fn constant_operand(
    cx: &mut LowerCx<'_>,
    tensor: &Tensor,
    rank: usize,
    layout: Layout,
) -> Result<Operand, String> {
    let dims = aligned(tensor.dims(), rank);
    let tensor = tensor.reshaped(dims.clone())?;
    let at = cx.tensor(&tensor, layout)?;
    operand(at, tensor.dtype(), &dims, layout)
}

fn operand(at: Ref, dtype: DType, dims: &[usize], layout: Layout) -> Result<Operand, String> {
    match dtype {
        DType::F32 | DType::I8 | DType::U8 | DType::I32 => Ok(Operand {
            at,
            dtype,
            strides: strides(dims, layout),
        }),
        other => Err(format!("elements of {other} are not computed with")),
    }
}
