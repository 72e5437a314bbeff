//! ConvInteger: bytes to 32-bit integers, over one or two spatial dimensions. With constant weights by
//! the kernels of other convolutions, else by a program.

use super::{Call, Operator};
use crate::kernels::{Bin, Ex, Scalar, index};
use crate::lower::dense::convolution;
use crate::lower::scales::eight_bit;
use crate::lower::sums::Summed;
use crate::lower::window::{Geometry, image, result};
use crate::lower::{Layout, LowerCx};
use crate::reference::Window;
use crate::reference::conv::Convolution;
use crate::tensor::{Data, Tensor};
use crate::typed::{NodeView, Type};
use sandpiper_core::tensor::DType;

/// ConvInteger: x, w, zero point of x, zero point of w (one, or one per output channel).
pub(crate) struct ConvInteger;

/// Geometry, output channels, groups.
fn plan(node: &NodeView<'_>) -> Result<(Geometry, usize, usize), String> {
    let (x, w) = (image(node.ty(0)?)?, node.ty(1)?.item());
    let groups = usize::try_from(node.attrs().int("group", 1)).unwrap_or(0);
    let fits = w.len() == x.len()
        && groups > 0
        && w[1].checked_mul(groups) == Some(x[1])
        && w[0] % groups == 0;
    if !fits || node.ty(1)?.has_batch() {
        return Err(format!(
            "an input of {x:?}, weights of {w:?}, {groups} groups"
        ));
    }
    let fitted = Window::of(&node.attrs())?.fit(&x[2..], Some(&w[2..]))?;
    for (input, count) in [(2, 1), (3, w[0])] {
        let have = node.optional(input).map_or(1, |v| v.ty.elements());
        if have != 1 && have != count {
            return Err(format!("{have} zero points for {count}"));
        }
    }
    Ok((Geometry::of(&x, &fitted), w[0], groups))
}

impl Operator for ConvInteger {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        for input in [0, 1] {
            eight_bit(node.ty(input)?.dtype)?;
        }
        let (g, outputs, _) = plan(node)?;
        let spatial = &g.out[4 - node.ty(0)?.dims.len()..];
        let rest = [&[outputs], spatial].concat();
        Ok(vec![result(node.ty(0)?, DType::I32, &rest)])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let (x, w) = (call.input(0)?, call.input(1)?);
        let zeros = |i: usize| call.optional(i).map_or(Ok(vec![0]), Tensor::to_i64);
        let (x_zero, w_zero) = (zeros(2)?, zeros(3)?);
        let (xs, ws) = (x.to_i64()?, w.to_i64()?);
        let each = (ws.len() / w.dims()[0].max(1)).max(1);
        let one = |i: usize| w_zero[if w_zero.len() == 1 { 0 } else { i / each }];
        let product = |x: usize, w: usize| (xs[x] - x_zero[0]) * (ws[w] - one(w));
        let conv = Convolution::of(&call.attrs())?;
        let (dims, sums) = conv.run(x.dims(), w.dims(), product, |_, sum: i64| sum as i32)?;
        Ok(vec![Tensor::new(dims, Data::I32(sums))?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let node = cx.view();
        let (g, outputs, groups) = plan(&node)?;
        let each = node.ty(1)?.elements() / outputs;
        if let Some(summed) = Summed::of(&node, outputs, |i| i / each)? {
            let taps = g.kernel[0] * g.kernel[1];
            let weight =
                |m: usize, c: usize, tap: usize| summed.values[m * each + c * taps + tap] as f32;
            let terms = summed.terms(cx, &weight)?;
            return convolution(cx, &g, (outputs, groups), &terms);
        }
        let (x, w) = (node.ty(0)?.dtype, node.ty(1)?.dtype);
        let [src, weights] = [cx.read(0, Layout::Plain)?, cx.read(1, Layout::Plain)?];
        let mut zeros = [None, None];
        for (slot, input) in zeros.iter_mut().zip([2, 3]) {
            if node.optional(input).is_some() {
                let ty = node.ty(input)?;
                let stride = usize::from(ty.elements() > 1);
                *slot = Some((cx.read(input, Layout::Plain)?, ty.dtype, stride));
            }
        }
        let dst = cx.write(Layout::Plain)?;
        let (inputs, each) = (g.channels / groups, outputs / groups);
        let [h, width] = g.input;
        let [kh, kw] = g.kernel;
        let dims = [g.images, groups, each, g.out[0], g.out[1]];
        let dense = Layout::Plain.strides(&dims);
        let mut program = Scalar::new("conv-integer");
        program.nest(&dims, &mut |s, place| {
            let channel = s.once(index(&place[1..3], &[each, 1]));
            let [x_zero, w_zero] = [0, 1].map(|i| {
                let zero = zeros[i].map(|(at, dtype, stride)| {
                    s.load(at, dtype, index(std::slice::from_ref(&channel), &[stride]))
                });
                zero.map(|zero| s.once(zero))
            });
            let sum = s.var(Ex::Int(0));
            s.nest(&[kh, kw], &mut |s, tap| {
                let (mut inside, mut at) = (Ex::Int(1), Vec::new());
                for i in 0..2 {
                    let (cut, there) = g.span(i).source(s, &place[3 + i], &tap[i]);
                    inside = inside.bin(Bin::And, there);
                    at.push(cut);
                }
                let inside = s.once(inside);
                s.each(inputs, |s, c| {
                    let from = [
                        place[0].clone(),
                        place[1].clone(),
                        c.clone(),
                        at[0].clone(),
                        at[1].clone(),
                    ];
                    let area = h * width;
                    let from = index(&from, &[g.channels * area, inputs * area, area, width, 1]);
                    let with = [channel.clone(), c, tap[0].clone(), tap[1].clone()];
                    let with = index(&with, &[inputs * kh * kw, kh * kw, kw, 1]);
                    let mut a = s.load(src, x, from);
                    let mut b = s.load(weights, w, with);
                    if let Some(zero) = &x_zero {
                        a = a - zero.clone();
                    }
                    if let Some(zero) = &w_zero {
                        b = b - zero.clone();
                    }
                    // Padding is a true zero: it adds nothing.
                    let part = inside.clone().pick(a * b, Ex::Int(0));
                    s.set(sum, Ex::Var(sum) + part);
                });
            });
            s.store(dst, DType::I32, index(place, &dense), Ex::Var(sum));
        });
        let macs = dims.iter().product::<usize>() * inputs * kh * kw;
        cx.push_int(program, macs as u64)
    }

    fn folds(&self) -> bool {
        false
    }
}
