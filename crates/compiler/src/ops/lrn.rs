//! LRN: each element over a power of the squares of its neighbours among the channels.

use super::{Call, Operator};
use crate::kernels::{Ex, Scalar, Ty, functions, index};
use crate::lower::loops::Span;
use crate::lower::{Layout, LowerCx};
use crate::onnx::Attrs;
use crate::reference::places::{places, ravel};
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};
use sandpiper_core::tensor::DType;

/// LRN.
pub(crate) struct Lrn;

struct Params {
    alpha: f64,
    beta: f64,
    bias: f64,
    size: usize,
}

impl Params {
    fn of(attrs: &Attrs<'_>) -> Result<Self, String> {
        let float = |name: &str, default: f32| f64::from(attrs.float(name).unwrap_or(default));
        let size = usize::try_from(attrs.int("size", 0))
            .ok()
            .filter(|s| (1..4096).contains(s));
        Ok(Self {
            alpha: float("alpha", 1e-4),
            beta: float("beta", 0.75),
            bias: float("bias", 1.0),
            size: size.ok_or("size must be positive")?,
        })
    }

    /// Channels before and after that count.
    fn reach(&self) -> (usize, usize) {
        ((self.size - 1) / 2, self.size / 2)
    }
}

impl Operator for Lrn {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        Params::of(&node.attrs())?;
        match node.float(0)?.dims.len() {
            0 | 1 => Err("channels are expected".into()),
            _ => Ok(vec![node.ty(0)?.clone()]),
        }
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let (x, p) = (call.input(0)?, Params::of(&call.attrs())?);
        let values = x.as_f32()?;
        let (before, after) = p.reach();
        let one = |place: Vec<usize>| {
            let c = place[1];
            let last = (c + after).min(x.dims()[1] - 1);
            let square = |i: usize| {
                let mut other = place.clone();
                other[1] = i;
                f64::from(values[ravel(&other, x.dims())]).powi(2)
            };
            let sum: f64 = (c.saturating_sub(before)..=last).map(square).sum();
            let under = (p.bias + p.alpha / p.size as f64 * sum).powf(p.beta);
            (f64::from(values[ravel(&place, x.dims())]) / under) as f32
        };
        let all = places(x.dims()).map(one).collect();
        Ok(vec![Tensor::f32(x.dims(), all)?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let (p, dims) = (Params::of(&node.attrs())?, node.ty(0)?.item());
        let (before, _) = p.reach();
        let (src, dst) = (cx.read(0, Layout::Plain)?, cx.write(Layout::Plain)?);
        let view = [dims[0], dims[1], dims[2..].iter().product()];
        let strides = Layout::Plain.strides(&view);
        let span = Span {
            size: dims[1],
            stride: 1,
            dilation: 1,
            begin: before,
        };
        let mut program = Scalar::new("lrn");
        program.nest(&view, &mut |s, place| {
            let sum = s.var(Ex::Double(0.0));
            s.each(p.size, |s, i| {
                let (cut, inside) = span.source(s, &place[1], &i);
                let from = [place[0].clone(), cut, place[2].clone()];
                let x = s
                    .load(src, DType::F32, index(&from, &strides))
                    .to(Ty::Double);
                let x = s.once(x);
                let square = inside.pick(x.clone() * x, Ex::Double(0.0));
                s.set(sum, Ex::Var(sum) + square);
            });
            let under = Ex::Double(p.bias) + Ex::Double(p.alpha / p.size as f64) * Ex::Var(sum);
            let under = functions::pow(s, under, Ex::Double(p.beta));
            let x = s
                .load(src, DType::F32, index(place, &strides))
                .to(Ty::Double);
            s.store(
                dst,
                DType::F32,
                index(place, &strides),
                (x / under).to(Ty::Real),
            );
        });
        cx.push(program, 0)
    }
}
