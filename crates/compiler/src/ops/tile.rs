//! Tile: constant repeats along every dimension.

use super::MIXES;
use super::{Call, Operator};
use crate::kernels::Copy;
use crate::lower::{Layout, LowerCx};
use crate::reference::places::{places, ravel};
use crate::tensor::{Tensor, elements};
use crate::typed::{NodeView, Type};
use sandpiper_core::tensor::Dim;

/// Tile by constant repeats.
pub(crate) struct Tile;

fn repeats(given: &Tensor, rank: usize) -> Result<Vec<usize>, String> {
    let size = |d: i64| usize::try_from(d).map_err(|_| format!("{d} repeats"));
    let repeats: Vec<usize> = given
        .to_i64()?
        .into_iter()
        .map(size)
        .collect::<Result<_, _>>()?;
    match repeats.len() == rank {
        true => Ok(repeats),
        false => Err(format!("{} repeats for {rank} dimensions", repeats.len())),
    }
}

impl Operator for Tile {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let ty = node.ty(0)?;
        let repeats = repeats(node.constant(1)?, ty.dims.len())?;
        let dim = |(d, n): (&Dim, &usize)| match d {
            Dim::Batch if *n == 1 => Ok(Dim::Batch),
            Dim::Batch => Err(MIXES.to_owned()),
            Dim::Fixed(d) => {
                let size = u32::try_from(*n).ok().and_then(|n| n.checked_mul(*d));
                size.map(Dim::Fixed)
                    .ok_or_else(|| "its result is too large".to_owned())
            }
        };
        let dims = ty
            .dims
            .iter()
            .zip(&repeats)
            .map(dim)
            .collect::<Result<_, _>>()?;
        Ok(vec![Type::new(ty.dtype, dims)])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let x = call.input(0)?;
        let repeats = repeats(call.input(1)?, x.dims().len())?;
        let dims: Vec<usize> = x.dims().iter().zip(&repeats).map(|(d, n)| d * n).collect();
        elements(&dims).ok_or("its result is too large")?;
        let sources: Vec<usize> = places(&dims)
            .map(|place| {
                let wrapped: Vec<usize> = place.iter().zip(x.dims()).map(|(p, d)| p % d).collect();
                ravel(&wrapped, x.dims())
            })
            .collect();
        Ok(vec![x.gathered(dims, |i| sources[i])?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let (dims, out, dtype) = (cx.ty(0)?.item(), cx.out()?.item(), cx.out()?.dtype);
        let strides = Layout::Plain.strides(&dims);
        let dense = Layout::Plain.strides(&out);
        // Every dimension as two: repeats, and the elements that are repeated.
        let both = |a: &dyn Fn(usize) -> usize, b: &dyn Fn(usize) -> usize| -> Vec<usize> {
            (0..dims.len()).flat_map(|i| [a(i), b(i)]).collect()
        };
        let size = dtype.size_bytes();
        let bytes = |v: Vec<usize>| v.into_iter().map(|s| (s * size) as i64).collect();
        let (src, dst) = (cx.read(0, Layout::Plain)?, cx.write(Layout::Plain)?);
        let kernel = Copy {
            name: "tile",
            src,
            dst,
            size,
            dims: both(&|i| out[i] / dims[i], &|i| dims[i]),
            from: (0, bytes(both(&|_| 0, &|i| strides[i]))),
            to: (0, bytes(both(&|i| dense[i] * dims[i], &|i| dense[i]))),
            fill: None,
        };
        cx.push(kernel.simplified(), 0)
    }
}
