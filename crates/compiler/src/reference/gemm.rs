//! Gemm and MatMul.

use super::elementwise::{broadcast, source};
use super::{Built, optional, plain, required};
use crate::onnx::Attrs;
use crate::tensor::Tensor;

/// Which operands of a product of matrices are transposed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Transposed {
    /// The left one.
    pub(crate) a: bool,
    /// The right one.
    pub(crate) b: bool,
}

impl Transposed {
    /// Reads `transA` and `transB`.
    pub(crate) fn of(attrs: &Attrs<'_>) -> Self {
        Self {
            a: attrs.int("transA", 0) != 0,
            b: attrs.int("transB", 0) != 0,
        }
    }

    /// Rows, columns and inner size of the product.
    pub(crate) fn sizes(self, a: &[usize], b: &[usize]) -> Result<[usize; 3], String> {
        let (&[a0, a1], &[b0, b1]) = (a, b) else {
            return Err(format!("{a:?} times {b:?}: two matrices are expected"));
        };
        let (rows, inner) = if self.a { (a1, a0) } else { (a0, a1) };
        let (depth, columns) = if self.b { (b1, b0) } else { (b0, b1) };
        if inner != depth {
            return Err(format!("{a:?} times {b:?}: the inner dimensions differ"));
        }
        Ok([rows, columns, inner])
    }

    /// Flat element (row, k) of the left operand.
    pub(crate) fn left(self, row: usize, k: usize, [rows, _, inner]: [usize; 3]) -> usize {
        if self.a {
            k * rows + row
        } else {
            row * inner + k
        }
    }

    /// Flat element (k, column) of the right operand.
    pub(crate) fn right(self, k: usize, column: usize, [_, columns, inner]: [usize; 3]) -> usize {
        if self.b {
            column * inner + k
        } else {
            k * columns + column
        }
    }
}

/// Builds Gemm: alpha * A * B + beta * C, with C broadcast.
pub(crate) fn build(attrs: &Attrs<'_>) -> Built {
    let transposed = Transposed::of(attrs);
    let alpha = f64::from(attrs.float("alpha").unwrap_or(1.0));
    let beta = f64::from(attrs.float("beta").unwrap_or(1.0));
    plain(move |inputs| {
        let (a, b) = (required(inputs, 0)?, required(inputs, 1)?);
        let sizes @ [rows, columns, inner] = transposed.sizes(a.dims(), b.dims())?;
        let dims = [rows, columns];
        let c = optional(inputs, 2);
        if let Some(c) = c
            && broadcast(&dims, c.dims())? != dims
        {
            return Err(format!(
                "C of {:?} does not broadcast to {dims:?}",
                c.dims()
            ));
        }
        let added = c
            .map(|c| Ok::<_, String>((c.as_f32()?, c.dims())))
            .transpose()?;
        let (x, y) = (a.as_f32()?, b.as_f32()?);
        let one = |i: usize| {
            let (row, column) = (i / columns, i % columns);
            let product = |k| {
                let (l, r) = (
                    transposed.left(row, k, sizes),
                    transposed.right(k, column, sizes),
                );
                f64::from(x[l]) * f64::from(y[r])
            };
            let sum: f64 = (0..inner).map(product).sum();
            let c = added.map_or(0.0, |(c, d)| f64::from(c[source(i, &dims, d)]));
            (alpha * sum + beta * c) as f32
        };
        Ok(vec![Tensor::f32(
            &dims,
            (0..rows * columns).map(one).collect(),
        )?])
    })
}

/// Builds MatMul of anything times a matrix.
pub(crate) fn matmul() -> Built {
    plain(|inputs| {
        let (a, b) = (required(inputs, 0)?, required(inputs, 1)?);
        let bad = || {
            format!(
                "{:?} times {:?} is no product of matrices",
                a.dims(),
                b.dims()
            )
        };
        let (row, column) = (a.dims().len() == 1, b.dims().len() == 1);
        let left = if row {
            [&[1], a.dims()].concat()
        } else {
            a.dims().to_vec()
        };
        let right = if column {
            [b.dims(), &[1]].concat()
        } else {
            b.dims().to_vec()
        };
        let ([outer_a @ .., rows, inner], [outer_b @ .., depth, columns]) = (&left[..], &right[..])
        else {
            return Err(bad());
        };
        if inner != depth {
            return Err(bad());
        }
        let (rows, columns, inner) = (*rows, *columns, *inner);
        let outer = broadcast(outer_a, outer_b)?;
        let count: usize = outer.iter().product();
        let (x, y) = (a.as_f32()?, b.as_f32()?);
        let mut values = Vec::with_capacity(count * rows * columns);
        for i in 0..count {
            let x = &x[source(i, &outer, outer_a) * rows * inner..];
            let y = &y[source(i, &outer, outer_b) * inner * columns..];
            for at in 0..rows * columns {
                let (row, column) = (at / columns, at % columns);
                let product =
                    |k| f64::from(x[row * inner + k]) * f64::from(y[k * columns + column]);
                values.push((0..inner).map(product).sum::<f64>() as f32);
            }
        }
        let mut dims = outer;
        dims.extend((!row).then_some(rows));
        dims.extend((!column).then_some(columns));
        Ok(vec![Tensor::f32(&dims, values)?])
    })
}
