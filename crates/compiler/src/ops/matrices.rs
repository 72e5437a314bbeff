//! Products of matrices that are not constant: MatMul by a kernel, Gemm and MatMulInteger by programs;
//! MatMulInteger with a constant matrix by the kernel of other products.

use super::MIXES;
use super::matmul::columns;
use super::{Call, Operator};
use crate::kernels::{Ex, Product, Scalar, index};
use crate::lower::loops::broadcast_strides;
use crate::lower::sums::Summed;
use crate::lower::{Layout, LowerCx, dense};
use crate::reference::Transposed;
use crate::reference::elementwise::{broadcast, source};
use crate::reference::places::places;
use crate::tensor::{Data, Tensor};
use crate::typed::{Clamp, NodeView, Type};
use sandpiper_core::tensor::{DType, Dim};

/// Shapes of a product by the rules of numpy: a vector counts as a row on the left, as a column on
/// the right.
pub(crate) struct Shape {
    /// Leading dimensions, broadcast.
    pub(crate) outer: Vec<usize>,
    /// Rows, columns, inner size.
    pub(crate) sizes: [usize; 3],
    /// The result.
    pub(crate) dims: Vec<usize>,
    a: Vec<usize>,
    b: Vec<usize>,
}

/// The product of operands of these shapes.
pub(crate) fn product(a: &[usize], b: &[usize]) -> Result<Shape, String> {
    let bad = || format!("{a:?} times {b:?} is no product of matrices");
    let (row, column) = (a.len() == 1, b.len() == 1);
    let left = if row { vec![1, a[0]] } else { a.to_vec() };
    let right = if column { vec![b[0], 1] } else { b.to_vec() };
    let ([outer_a @ .., rows, inner], [outer_b @ .., depth, columns]) = (&left[..], &right[..])
    else {
        return Err(bad());
    };
    if inner != depth {
        return Err(bad());
    }
    let outer = broadcast(outer_a, outer_b)?;
    let mut dims = outer.clone();
    if !row {
        dims.push(*rows);
    }
    if !column {
        dims.push(*columns);
    }
    Ok(Shape {
        sizes: [*rows, *columns, *inner],
        dims,
        a: outer_a.to_vec(),
        b: outer_b.to_vec(),
        outer,
    })
}

/// The type of a product: the batch must be the first dimension of the left operand or of both.
pub(crate) fn product_type(a: &Type, b: &Type, dtype: DType) -> Result<Type, String> {
    let shape = product(&a.item(), &b.item())?;
    let mut dims = crate::typed::fixed(&shape.dims);
    let outer =
        |t: &Type| t.has_batch() && t.dims.len() == shape.outer.len() + 2 && t.dims.len() > 2;
    let rows = a.has_batch() && a.dims.len() == 2 && !b.has_batch() && b.dims.len() <= 2;
    if a.has_batch() || b.has_batch() {
        let fits = rows || ((!a.has_batch() || outer(a)) && (!b.has_batch() || outer(b)));
        if !fits {
            return Err(MIXES.into());
        }
        dims[0] = Dim::Batch;
    }
    Ok(Type::new(dtype, dims))
}

/// Adds the program of a product of bytes: inputs are the operands and their zero points, which are by
/// row or column if there is more than one. `finish` makes results of sums.
pub(crate) fn multiply(
    cx: &mut LowerCx<'_>,
    [a, b, a_zero, b_zero]: [usize; 4],
    finish: &dyn Fn(Ex) -> Ex,
) -> Result<(), String> {
    let node = cx.view();
    let [left, right] = [cx.read(a, Layout::Plain)?, cx.read(b, Layout::Plain)?];
    let (a, b) = (node.ty(a)?, node.ty(b)?);
    let shape = product(&a.item(), &b.item())?;
    let [rows, columns, inner] = shape.sizes;
    let mut zeros = Vec::new();
    for i in [a_zero, b_zero] {
        zeros.push(match node.optional(i) {
            Some(zero) => {
                let stride = usize::from(zero.ty.elements() > 1);
                Some((cx.read(i, Layout::Plain)?, zero.ty.dtype, stride))
            }
            None => None,
        });
    }
    let (dst, dtype) = (cx.write(Layout::Plain)?, cx.out()?.dtype);
    let rank = shape.outer.len();
    let outer_a = matrix_steps(&shape.a, rank, rows * inner);
    let outer_b = matrix_steps(&shape.b, rank, inner * columns);
    let outer_y = matrix_steps(&shape.outer, rank, rows * columns);
    let mut program = Scalar::new("matmul-integer");
    program.nest(&shape.outer, &mut |s, place| {
        let (x, w) = (
            s.once(index(place, &outer_a)),
            s.once(index(place, &outer_b)),
        );
        let y = s.once(index(place, &outer_y));
        s.nest(&[rows, columns], &mut |s, at| {
            let (row, column) = (at[0].clone(), at[1].clone());
            let zero = |s: &mut Scalar, which: usize, at: &Ex| {
                zeros[which].map(|(place, dtype, stride)| {
                    let zero = s.load(place, dtype, index(std::slice::from_ref(at), &[stride]));
                    s.once(zero)
                })
            };
            let (row_zero, column_zero) = (zero(s, 0, &row), zero(s, 1, &column));
            let first = s.once(x.clone() + index(std::slice::from_ref(&row), &[inner]));
            let sum = s.var(Ex::Int(0));
            s.each(inner, |s, k| {
                let mut l = s.load(left, a.dtype, first.clone() + k.clone());
                let mut r = s.load(
                    right,
                    b.dtype,
                    w.clone() + index(&[k, column.clone()], &[columns, 1]),
                );
                if let Some(zero) = &row_zero {
                    l = l - zero.clone();
                }
                if let Some(zero) = &column_zero {
                    r = r - zero.clone();
                }
                s.set(sum, Ex::Var(sum) + l * r);
            });
            let to = y.clone() + index(&[row, column], &[columns, 1]);
            s.store(dst, dtype, to, finish(Ex::Var(sum)));
        });
    });
    let macs = (shape.outer.iter().product::<usize>() * rows * columns) as u64 * inner as u64;
    cx.push_int(program, macs)
}

/// Cut to the limits of a fused Relu or Clip; NaN passes.
fn cut(value: Ex, clamp: Clamp) -> Ex {
    if clamp == Clamp::NONE {
        return value;
    }
    value.max(Ex::Real(clamp.low)).min(Ex::Real(clamp.high))
}

/// The type of a Gemm whose operands need not be constant.
pub(crate) fn gemm_type(node: &NodeView<'_>) -> Result<Vec<Type>, String> {
    let (a, b) = (node.float(0)?, node.float(1)?);
    let transposed = Transposed::of(&node.attrs());
    let [rows, columns, _] = transposed.sizes(&a.item(), &b.item())?;
    let mut dims = crate::typed::fixed(&[rows, columns]);
    let c = node.optional(2).map(|_| node.float(2)).transpose()?;
    if let Some(c) = c
        && broadcast(&[rows, columns], &c.item())? != [rows, columns]
    {
        return Err(format!(
            "C of {:?} does not broadcast to the result",
            c.dims
        ));
    }
    let batched = |t: &Type| t.has_batch();
    if batched(b) || (batched(a) && transposed.a) || c.is_some_and(|c| batched(c) && !batched(a)) {
        return Err(MIXES.into());
    }
    if batched(a) {
        dims[0] = Dim::Batch;
    }
    Ok(vec![Type::new(DType::F32, dims)])
}

/// Adds the kernel of MatMul.
pub(crate) fn matmul(cx: &mut LowerCx<'_>) -> Result<(), String> {
    let node = cx.view();
    let shape = product(&node.ty(0)?.item(), &node.ty(1)?.item())?;
    let [rows, columns, inner] = shape.sizes;
    let sources = [cx.read(0, Layout::Plain)?, cx.read(1, Layout::Plain)?];
    let [a, b] = [(&shape.a, rows * inner), (&shape.b, inner * columns)]
        .map(|(dims, each)| matrix_steps(dims, shape.outer.len(), each));
    let y = matrix_steps(&shape.outer, shape.outer.len(), rows * columns);
    let kernel = Product {
        sources,
        dst: cx.write(Layout::Plain)?,
        steps: [a, b, y],
        sizes: shape.sizes,
        clamp: cx.node.clamp,
        outer: shape.outer,
    };
    let macs = kernel.outer.iter().product::<usize>() * rows * columns;
    cx.push(kernel, macs as u64 * inner as u64)
}

/// Elements from one matrix to the next by leading dimension; 0 where it is broadcast.
fn matrix_steps(dims: &[usize], rank: usize, each: usize) -> Vec<usize> {
    let strides = broadcast_strides(dims, rank);
    strides.into_iter().map(|s| s * each).collect()
}

/// Adds the program of Gemm.
pub(crate) fn gemm(cx: &mut LowerCx<'_>) -> Result<(), String> {
    let node = cx.view();
    let attrs = node.attrs();
    let transposed = Transposed::of(&attrs);
    let [rows, columns, inner] = transposed.sizes(&node.ty(0)?.item(), &node.ty(1)?.item())?;
    let factor = |name: &str| Ex::Real(attrs.float(name).unwrap_or(1.0));
    let (alpha, beta) = (factor("alpha"), factor("beta"));
    let [left, right] = [cx.read(0, Layout::Plain)?, cx.read(1, Layout::Plain)?];
    let added = match node.optional(2) {
        Some(c) => Some((
            cx.read(2, Layout::Plain)?,
            broadcast_strides(&c.ty.item(), 2),
        )),
        None => None,
    };
    let (dst, clamp) = (cx.write(Layout::Plain)?, cx.node.clamp);
    let left_strides = if transposed.a { [1, rows] } else { [inner, 1] };
    let right_strides = if transposed.b {
        [1, inner]
    } else {
        [columns, 1]
    };
    let float = DType::F32;
    let mut program = Scalar::new("gemm");
    program.nest(&[rows, columns], &mut |s, at| {
        let sum = s.var(Ex::Real(0.0));
        s.each(inner, |s, k| {
            let l = s.load(
                left,
                float,
                index(&[at[0].clone(), k.clone()], &left_strides),
            );
            let r = s.load(right, float, index(&[k, at[1].clone()], &right_strides));
            s.set(sum, Ex::Var(sum) + l * r);
        });
        let mut y = Ex::Var(sum) * alpha.clone();
        if let Some((c, strides)) = &added {
            y = y + s.load(*c, float, index(at, strides)) * beta.clone();
        }
        s.store(dst, float, index(at, &[columns, 1]), cut(y, clamp));
    });
    cx.push(program, (rows * columns) as u64 * inner as u64)
}

/// Dimensions and sums of a product of integers, each operand with its zero points: one for all, or one
/// by row of the left and column of the right.
pub(crate) fn sums(
    (a, a_zero): (&Tensor, &[i64]),
    (b, b_zero): (&Tensor, &[i64]),
) -> Result<(Vec<usize>, Vec<i64>), String> {
    let shape = product(a.dims(), b.dims())?;
    let [rows, columns, inner] = shape.sizes;
    let (x, w) = (a.to_i64()?, b.to_i64()?);
    let one = |zeros: &[i64], i: usize| zeros[if zeros.len() == 1 { 0 } else { i }];
    let mut sums = Vec::new();
    for (i, _) in places(&shape.outer).enumerate() {
        let l = source(i, &shape.outer, &shape.a);
        let r = source(i, &shape.outer, &shape.b);
        for row in 0..rows {
            for column in 0..columns {
                let term = |k: usize| {
                    let x = x[(l * rows + row) * inner + k] - one(a_zero, row);
                    x * (w[(r * inner + k) * columns + column] - one(b_zero, column))
                };
                sums.push((0..inner).map(term).sum::<i64>());
            }
        }
    }
    Ok((shape.dims, sums))
}

/// MatMulInteger: bytes to 32-bit integers.
pub(crate) struct MatMulInteger;

impl Operator for MatMulInteger {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        for i in [0, 1] {
            crate::lower::scales::eight_bit(node.ty(i)?.dtype)?;
        }
        let shape = product(&node.ty(0)?.item(), &node.ty(1)?.item())?;
        let [one_left, one_right] = [0, 1].map(|i| node.ty(i).is_ok_and(|t| t.dims.len() <= 2));
        for (input, size, single) in [
            (2, shape.sizes[0], one_left),
            (3, shape.sizes[1], one_right),
        ] {
            let count = node.optional(input).map_or(1, |v| v.ty.elements());
            if count != 1 && (count != size || !single) {
                return Err(format!("{count} zero points for {size}"));
            }
        }
        Ok(vec![product_type(node.ty(0)?, node.ty(1)?, DType::I32)?])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let zeros = |i: usize| call.optional(i).map_or(Ok(vec![0]), Tensor::to_i64);
        let (a, b) = ((call.input(0)?, zeros(2)?), (call.input(1)?, zeros(3)?));
        let (dims, sums) = sums((a.0, &a.1), (b.0, &b.1))?;
        let sums = sums.into_iter().map(|s| s as i32).collect();
        Ok(vec![Tensor::new(dims, Data::I32(sums))?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let Ok(columns) = columns(&node, 1) else {
            return multiply(cx, [0, 1, 2, 3], &|sum| sum);
        };
        let Some(summed) = Summed::of(&node, columns, |i| i % columns)? else {
            return multiply(cx, [0, 1, 2, 3], &|sum| sum);
        };
        let inner = summed.values.len() / columns;
        let rows = node.ty(0)?.elements() / inner;
        let weight = |column: usize, k: usize, _: usize| summed.values[k * columns + column] as f32;
        let terms = summed.terms(cx, &weight)?;
        dense::product(cx, [rows, columns, inner], &terms)
    }
}
