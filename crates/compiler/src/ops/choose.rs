//! Where, Not, Cast, PRelu, BitwiseNot: what takes operands of different kinds element by element.

use super::{Call, Operator};
use crate::kernels::{Bin, Ex, Expr, Scalar, Store, Ty, Un};
use crate::lower::elementwise::{Term, broadcast, lower};
use crate::lower::{LowerCx, loops};
use crate::onnx::{HALF, dtype_of, narrowed, widened};
use crate::reference::numbers::{self, Number};
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};
use sandpiper_core::tensor::DType;

/// Where.
pub(crate) struct Where;

impl Operator for Where {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let (condition, a, b) = (node.ty(0)?, node.ty(1)?, node.ty(2)?);
        if condition.dtype != DType::Bool || a.dtype != b.dtype {
            return Err(format!(
                "a condition of {}, operands of {} and {}",
                condition.dtype, a.dtype, b.dtype
            ));
        }
        let both = Type::new(a.dtype, broadcast(a, b)?);
        Ok(vec![Type::new(a.dtype, broadcast(condition, &both)?)])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let all = [call.input(0)?, call.input(1)?, call.input(2)?];
        let pick = |v: &[Number]| if v[0].truth() { v[1] } else { v[2] };
        Ok(vec![numbers::zip(&all, all[1].dtype(), &pick)?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        loops::elementwise(cx, "where", &[0, 1, 2], &mut |_, v| {
            v[0].clone().pick(v[1].clone(), v[2].clone())
        })
    }
}

/// Not.
pub(crate) struct Not;

impl Operator for Not {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        match node.ty(0)?.dtype {
            DType::Bool => Ok(vec![node.ty(0)?.clone()]),
            other => Err(format!("an operand of {other}")),
        }
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let not = |v: &[Number]| Number::Int(i64::from(!v[0].truth()));
        Ok(vec![numbers::zip(&[call.input(0)?], DType::Bool, &not)?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        loops::elementwise(cx, "not", &[0], &mut |_, v| v[0].clone().not())
    }
}

/// BitwiseNot.
pub(crate) struct BitwiseNot;

impl Operator for BitwiseNot {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        match node.ty(0)?.dtype {
            DType::F32 | DType::Bool => Err("integers are expected".into()),
            _ => Ok(vec![node.ty(0)?.clone()]),
        }
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let x = call.input(0)?;
        let not = |v: &[Number]| Number::Int(!v[0].int());
        Ok(vec![numbers::zip(&[x], x.dtype(), &not)?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        loops::elementwise(cx, "bit-not", &[0], &mut |_, v| {
            let ones = v[0].same(-1.0);
            v[0].clone().bin(Bin::Xor, ones)
        })
    }
}

/// Cast, and CastLike. Floats are truncated to integers; what is out of range saturates at 64 bits
/// and wraps from there. A cast to 16-bit floats rounds to what they can say; the result is stored in
/// 32 bits.
pub(crate) struct Cast;

/// CastLike.
pub(crate) struct CastLike;

fn cast_eval(call: &Call<'_>, dtype: DType) -> Result<Vec<Tensor>, String> {
    Ok(vec![numbers::zip(&[call.input(0)?], dtype, &|v| v[0])?])
}

fn cast_lower(cx: &mut LowerCx<'_>) -> Result<(), String> {
    let (dtype, from) = (cx.out()?.dtype, cx.ty(0)?.dtype);
    if dtype == DType::F32 && matches!(from, DType::I8 | DType::U8 | DType::I32) {
        return lower(cx, "cast", &[Term::Input(0)], Expr::In(0), Store::Float);
    }
    loops::elementwise(cx, "cast", &[0], &mut |_, v| {
        let (x, to) = (v[0].clone(), Ty::of(dtype));
        let zero = x.same(0.0);
        match (dtype, x.ty()) {
            (DType::Bool, _) => x.eq(zero).not(),
            (_, Ty::Real) if to == Ty::Int => x.to(Ty::Long).to(Ty::Int),
            _ => x.to(to),
        }
    })
}

/// The nearest 16-bit float.
fn half(s: &mut Scalar, x: Ex) -> Ex {
    let r = Ex::Real;
    let x = s.once(x);
    let size = s.once(x.clone().un(Un::Abs));
    // From 0.5 to 1 a 32-bit float has steps of 2^-24, as 16-bit floats have below 2^-14.
    let small = s.once(size.clone() + r(0.5)) - r(0.5);
    let bits = s.once(size.clone().bits());
    let odd = bits
        .clone()
        .bin(Bin::ShrU, Ex::Int(13))
        .bin(Bin::And, Ex::Int(1));
    let rounded = (bits + Ex::Int(0xfff) + odd).bin(Bin::And, Ex::Int(!0x1fff));
    let normal = size
        .clone()
        .lt(r(65_520.0))
        .pick(rounded.bits(), r(f32::INFINITY));
    let value = size.clone().lt(r(2f32.powi(-14))).pick(small, normal);
    let signed = value.bin(Bin::CopySign, x.clone());
    // NaN is no number: it stays.
    size.clone().eq(size).pick(signed, x)
}

impl Operator for Cast {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let number = i32::try_from(node.attrs().int("to", 0)).unwrap_or(0);
        Ok(vec![Type::new(dtype_of(number)?, node.ty(0)?.dims.clone())])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let number = i32::try_from(call.attrs().int("to", 0)).unwrap_or(0);
        if number == HALF {
            let half = |v: &[Number]| {
                let rounded = widened(narrowed(v[0].float() as f32));
                Number::Float(f64::from(rounded))
            };
            return Ok(vec![numbers::zip(&[call.input(0)?], DType::F32, &half)?]);
        }
        cast_eval(call, dtype_of(number)?)
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        if cx.view().attrs().int("to", 0) == i64::from(HALF) {
            return loops::elementwise(cx, "cast-f16", &[0], &mut |s, v| {
                let x = v[0].clone().to(Ty::Real);
                half(s, x)
            });
        }
        cast_lower(cx)
    }
}

impl Operator for CastLike {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let dims = node.ty(0)?.dims.clone();
        Ok(vec![Type::new(node.ty(1)?.dtype, dims)])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        cast_eval(call, call.input(1)?.dtype())
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        cast_lower(cx)
    }
}

/// PRelu: the slope is broadcast to the input.
pub(crate) struct PRelu;

impl Operator for PRelu {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let x = node.float(0)?;
        if broadcast(x, node.float(1)?)? != x.dims {
            return Err("the slope does not broadcast to the input".into());
        }
        Ok(vec![x.clone()])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let bend = |v: &[Number]| match v[0].float() {
            x if x < 0.0 => Number::Float(x * v[1].float()),
            _ => v[0],
        };
        let both = [call.input(0)?, call.input(1)?];
        Ok(vec![numbers::zip(&both, DType::F32, &bend)?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        loops::elementwise(cx, "prelu", &[0, 1], &mut |_, v| {
            let (x, slope) = (v[0].clone(), v[1].clone());
            x.clone().lt(Ex::Real(0.0)).pick(x.clone() * slope, x)
        })
    }
}
