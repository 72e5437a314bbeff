//! Trilu: the upper or lower triangle of matrices.

use super::MIXES;
use super::{Call, Operator};
use crate::kernels::{Ex, Scalar, index};
use crate::lower::{Layout, LowerCx};
use crate::reference::numbers::{Number, numbers, tensor};
use crate::reference::places::places;
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};
use sandpiper_core::tensor::DType;

/// Trilu: the upper or lower triangle of matrices.
pub(crate) struct Trilu;

fn diagonal(given: Option<&Tensor>) -> Result<i64, String> {
    let values = given.map(Tensor::to_i64).transpose()?;
    let k = values.and_then(|v| v.first().copied()).unwrap_or(0);
    Ok(k.clamp(-(1 << 30), 1 << 30))
}

impl Operator for Trilu {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let ty = node.ty(0)?;
        diagonal(node.optional_constant(1)?)?;
        match ty.dims.len() {
            0 | 1 => Err("a matrix is expected".into()),
            2 if ty.has_batch() => Err(MIXES.into()),
            _ => Ok(vec![ty.clone()]),
        }
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let (x, upper) = (call.input(0)?, call.attrs().int("upper", 1) != 0);
        let k = diagonal(call.optional(1))?;
        let zero = match x.dtype() {
            DType::F32 => Number::Float(0.0),
            _ => Number::Int(0),
        };
        let values: Vec<Number> = places(x.dims())
            .zip(numbers(x))
            .map(|(place, v)| {
                let (row, column) = (place[place.len() - 2] as i64, place[place.len() - 1] as i64);
                let stays = if upper {
                    column >= row + k
                } else {
                    column <= row + k
                };
                if stays { v } else { zero }
            })
            .collect();
        Ok(vec![tensor(x.dtype(), x.dims().to_vec(), &values)?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let (k, upper) = (
            diagonal(node.optional_constant(1)?)?,
            node.attrs().int("upper", 1) != 0,
        );
        let (dims, dtype) = (node.ty(0)?.item(), node.ty(0)?.dtype);
        let (src, dst) = (cx.read(0, Layout::Plain)?, cx.write(Layout::Plain)?);
        let strides = Layout::Plain.strides(&dims);
        let mut program = Scalar::new("trilu");
        program.nest(&dims, &mut |s, place| {
            let (row, column) = (place[dims.len() - 2].clone(), place[dims.len() - 1].clone());
            let line = row + Ex::Int(k as i32);
            let stays = if upper {
                line.le(column)
            } else {
                column.le(line)
            };
            let x = s.load(src, dtype, index(place, &strides));
            let zero = x.same(0.0);
            s.store(dst, dtype, index(place, &strides), stays.pick(x, zero));
        });
        cx.push(program, 0)
    }
}
