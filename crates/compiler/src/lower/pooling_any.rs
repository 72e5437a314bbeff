//! Pooling over any number of spatial dimensions, and with the indices of what was taken, by a plain
//! program: for what the kernels do not take.

use super::loops::Span;
use super::{Layout, LowerCx};
use crate::kernels::{Bin, Ex, Scalar, Ty, index};
use crate::reference::{Fitted, Window};
use crate::typed::{NodeView, Type, fixed};
use sandpiper_core::tensor::DType;

fn fitted(node: &NodeView<'_>) -> Result<Fitted, String> {
    let dims = node.ty(0)?.item();
    if dims.len() < 3 {
        return Err("[N, C, spatial..] is expected".into());
    }
    let fitted = Window::of(&node.attrs())?.fit(&dims[2..], None)?;
    let rank = fitted.out.len();
    let covered = (0..rank).all(|i| {
        let last = (fitted.out[i] - 1) * fitted.strides[i];
        fitted.begin[i] <= (fitted.kernel[i] - 1) * fitted.dilations[i]
            && last < fitted.begin[i] + fitted.input[i]
    });
    match covered {
        true => Ok(fitted),
        false => Err("a window lies in padding only".into()),
    }
}

/// The type of the result.
pub(crate) fn infer(node: &NodeView<'_>, dtype: DType) -> Result<Type, String> {
    let (ty, fitted) = (node.ty(0)?, fitted(node)?);
    let mut dims = ty.dims[..2].to_vec();
    dims.extend(fixed(&fitted.out));
    Ok(Type::new(dtype, dims))
}

/// Adds the program: of the greatest element of each window, with its index in the whole tensor if that
/// is wanted; or of the mean, padding counted or not.
pub(crate) fn lower(cx: &mut LowerCx<'_>, mean: Option<bool>) -> Result<(), String> {
    let node = cx.view();
    let w = fitted(&node)?;
    let (dims, dtype) = (node.ty(0)?.item(), node.ty(0)?.dtype);
    let clamp = cx.node.clamp;
    let src = cx.read(0, Layout::Plain)?;
    let (values, indices) = (cx.write_output(0), cx.write_output(1));
    let out = [&dims[..2], &w.out].concat();
    let strides = Layout::Plain.strides(&dims);
    let dense = Layout::Plain.strides(&out);
    let ty = Ty::of(dtype);
    let taps: usize = w.kernel.iter().product();
    let mut program = Scalar::new("pool");
    program.nest(&out, &mut |s, place| {
        let (best, at) = (s.var(Ex::constant(ty, 0.0)), s.var(Ex::Int(-1)));
        let (sum, count) = (s.var(Ex::Double(0.0)), s.var(Ex::Int(0)));
        s.nest(&w.kernel, &mut |s, tap| {
            let (mut inside, mut from) = (Ex::Int(1), place[..2].to_vec());
            for (i, tap) in tap.iter().enumerate() {
                let span = Span {
                    size: w.input[i],
                    stride: w.strides[i],
                    dilation: w.dilations[i],
                    begin: w.begin[i],
                };
                let (cut, there) = span.source(s, &place[2 + i], tap);
                inside = inside.bin(Bin::And, there);
                from.push(cut);
            }
            let inside = s.once(inside);
            let from = s.once(index(&from, &strides));
            let x = s.load(src, dtype, from.clone());
            let x = s.once(x);
            if mean.is_some() {
                let part = inside.clone().pick(x.to(Ty::Double), Ex::Double(0.0));
                s.set(sum, Ex::Var(sum) + part);
                s.set(count, Ex::Var(count) + inside);
                return;
            }
            // The first element is taken whatever it is, and NaN stays.
            let none = Ex::Var(at).lt(Ex::Int(0));
            let better = x.clone().le(Ex::Var(best)).not();
            let alive = Ex::Var(best).eq(Ex::Var(best));
            let better = none.bin(Bin::Or, better.bin(Bin::And, alive));
            let take = s.once(inside.bin(Bin::And, better));
            s.set(best, take.clone().pick(x, Ex::Var(best)));
            s.set(at, take.pick(from, Ex::Var(at)));
        });
        let to = s.once(index(place, &dense));
        if let Some(values) = values {
            let value = match mean {
                None => Ex::Var(best),
                Some(true) => (Ex::Var(sum) / Ex::Double(taps as f64)).to(ty),
                Some(false) => (Ex::Var(sum) / Ex::Var(count).to(Ty::Double)).to(ty),
            };
            let value = match dtype {
                DType::F32 => value.max(Ex::Real(clamp.low)).min(Ex::Real(clamp.high)),
                _ => value,
            };
            s.store(values, dtype, to.clone(), value);
        }
        if let Some(indices) = indices {
            s.store(indices, DType::I64, to, Ex::Var(at).to(Ty::Long));
        }
    });
    cx.push(program, 0)
}
