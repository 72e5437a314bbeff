//! Operators of two operands that are broadcast: comparisons, logic, bits, powers, rests.

use super::{Call, Operator};
use crate::kernels::{Bin, Ex, Expr, Scalar, Store, Ty, Un, functions};
use crate::lower::elementwise::{Term, broadcast, lower};
use crate::lower::{LowerCx, loops};
use crate::reference::numbers::{self, Number};
use crate::tensor::Tensor;
use crate::typed::{NodeView, Type};
use sandpiper_core::tensor::DType;

/// What an operator takes and gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Two of the same type to a truth.
    Comparison,
    /// Two truths to a truth.
    Logic,
    /// Two integers of the same type to one of it.
    Bits,
    /// Two numbers, of which the first gives the type.
    Numbers,
}

/// An operator of two operands.
pub(crate) struct Pair {
    name: &'static str,
    kind: Kind,
    apply: fn(Number, Number, bool) -> Number,
    program: fn(&mut Scalar, Ex, Ex, bool) -> Ex,
}

fn truth(value: bool) -> Number {
    Number::Int(i64::from(value))
}

fn ordered(a: Number, b: Number) -> Option<std::cmp::Ordering> {
    match (a, b) {
        (Number::Int(a), Number::Int(b)) => Some(a.cmp(&b)),
        _ => a.float().partial_cmp(&b.float()),
    }
}

fn power(a: Number, b: Number) -> Number {
    match (a, b) {
        (Number::Int(a), Number::Int(b)) if b >= 0 => {
            let exponent = u32::try_from(b).unwrap_or(u32::MAX);
            Number::Int(a.wrapping_pow(exponent))
        }
        (Number::Int(a), b) => Number::Int((a as f64).powf(b.float()) as i64),
        (a, b) => Number::Float(a.float().powf(b.float())),
    }
}

fn power_program(s: &mut Scalar, a: Ex, b: Ex) -> Ex {
    let (ty, whole) = (a.ty(), |ty: Ty| matches!(ty, Ty::Int | Ty::Long));
    if whole(ty) && whole(b.ty()) {
        // By squaring: at most 63 bits of the exponent.
        let (base, left) = (s.var(a), s.var(b.to(Ty::Long)));
        let result = s.var(Ex::constant(ty, 1.0));
        s.while_at_most(63, Ex::Long(0).lt(Ex::Var(left)), |s| {
            let odd = Ex::Var(left).bin(Bin::And, Ex::Long(1)).to(Ty::Int);
            let more = Ex::Var(result) * Ex::Var(base);
            s.set(result, odd.pick(more, Ex::Var(result)));
            s.set(base, Ex::Var(base) * Ex::Var(base));
            s.set(left, Ex::Var(left).bin(Bin::ShrS, Ex::Long(1)));
        });
        return Ex::Var(result);
    }
    let value = functions::pow(s, a.to(Ty::Double), b.to(Ty::Double));
    if !whole(ty) {
        return value.to(ty);
    }
    // A whole result that rounding left just below would otherwise be truncated to the one before.
    let near = s.once(value.clone().un(Un::Nearest));
    let off = (value.clone() - near.clone()).un(Un::Abs);
    let slack = near.clone().un(Un::Abs) * Ex::Double(1e-12);
    off.le(slack).pick(near, value).to(ty)
}

/// Rest: with the sign of the divisor, or of the dividend where `fmod`.
fn rest(a: Number, b: Number, fmod: bool) -> Number {
    match (a, b) {
        (Number::Int(_), Number::Int(0)) => Number::Int(0),
        (Number::Int(a), Number::Int(b)) => {
            let rest = a.wrapping_rem(b);
            let other = !fmod && rest != 0 && (rest < 0) != (b < 0);
            Number::Int(if other { rest + b } else { rest })
        }
        (a, b) => Number::Float(a.float() % b.float()),
    }
}

fn rest_program(s: &mut Scalar, a: Ex, b: Ex, fmod: bool) -> Ex {
    let ty = a.ty();
    if matches!(ty, Ty::Real | Ty::Double) {
        let (a, b) = (s.once(a.to(Ty::Double)), s.once(b.to(Ty::Double)));
        let turns = (a.clone() / b.clone()).un(Un::Trunc);
        return (a - turns * b).to(ty);
    }
    let (a, b) = (s.once(a), s.once(b));
    let rest = s.once(a.remainder(b.clone()));
    if fmod {
        return rest;
    }
    let zero = rest.same(0.0);
    let negative = |x: Ex| x.lt(zero.clone());
    let differ = negative(rest.clone()).bin(Bin::Xor, negative(b.clone()));
    let other = differ.bin(Bin::And, rest.clone().eq(zero.clone()).not());
    other.pick(rest.clone() + b, rest)
}

/// A float to the constant power of 2 or 3, whose result has the shape of the float.
fn small_power(node: &NodeView<'_>) -> Option<Expr> {
    let (x, y) = (node.float(0).ok()?, node.optional_constant(1).ok()??);
    let whole = numbers::numbers(y);
    let [power] = whole.as_slice() else {
        return None;
    };
    if y.dims().len() > x.dims.len() {
        return None;
    }
    let x = || Expr::In(0);
    match power.float() {
        2.0 => Some(x().times(x())),
        3.0 => Some(x().times(x()).times(x())),
        _ => None,
    }
}

macro_rules! pairs {
    ($($id:ident $name:literal $kind:ident, $apply:expr, $program:expr;)*) => {
        $(#[doc = $name] pub(crate) static $id: Pair = Pair {
            name: $name, kind: Kind::$kind, apply: $apply, program: $program,
        };)*
    };
}

pairs! {
    EQUAL "equal" Comparison, |a, b, _| truth(ordered(a, b).is_some_and(|o| o.is_eq())), |_, a, b, _| a.eq(b);
    LESS "less" Comparison, |a, b, _| truth(ordered(a, b).is_some_and(|o| o.is_lt())), |_, a, b, _| a.lt(b);
    LESS_OR_EQUAL "less-or-equal" Comparison, |a, b, _| truth(ordered(a, b).is_some_and(|o| o.is_le())), |_, a, b, _| a.le(b);
    GREATER "greater" Comparison, |a, b, _| truth(ordered(a, b).is_some_and(|o| o.is_gt())), |_, a, b, _| b.lt(a);
    GREATER_OR_EQUAL "greater-or-equal" Comparison, |a, b, _| truth(ordered(a, b).is_some_and(|o| o.is_ge())), |_, a, b, _| b.le(a);
    AND "and" Logic, |a, b, _| truth(a.truth() && b.truth()), |_, a, b, _| a.bin(Bin::And, b);
    OR "or" Logic, |a, b, _| truth(a.truth() || b.truth()), |_, a, b, _| a.bin(Bin::Or, b);
    XOR "xor" Logic, |a, b, _| truth(a.truth() != b.truth()), |_, a, b, _| a.bin(Bin::Xor, b);
    BIT_AND "bit-and" Bits, |a, b, _| Number::Int(a.int() & b.int()), |_, a, b, _| a.bin(Bin::And, b);
    BIT_OR "bit-or" Bits, |a, b, _| Number::Int(a.int() | b.int()), |_, a, b, _| a.bin(Bin::Or, b);
    BIT_XOR "bit-xor" Bits, |a, b, _| Number::Int(a.int() ^ b.int()), |_, a, b, _| a.bin(Bin::Xor, b);
    BIT_SHIFT "bit-shift" Bits, |a, b, left| Number::Int(match u32::try_from(b.int()) {
        Ok(b @ 0..64) if left => a.int() << b,
        Ok(b @ 0..64) => a.int() >> b,
        _ => 0,
    }), |_, a, b, left| {
        let op = if left { Bin::Shl } else { Bin::ShrU };
        let inside = b.clone().lt(b.same(32.0));
        let zero = a.same(0.0);
        inside.pick(a.bin(op, b), zero)
    };
    POW "pow" Numbers, |a, b, _| power(a, b), |s, a, b, _| power_program(s, a, b);
    MOD "mod" Numbers, rest, rest_program;
}

/// What the one attribute says that some have: how Mod signs its result, or where BitShift goes.
fn flag(attrs: &crate::onnx::Attrs<'_>) -> bool {
    attrs.int("fmod", 0) != 0 || attrs.text("direction", "") == "LEFT"
}

impl Operator for Pair {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let (a, b) = (node.ty(0)?, node.ty(1)?);
        let bool = |d: DType| d == DType::Bool;
        let fits = match self.kind {
            Kind::Comparison => a.dtype == b.dtype,
            Kind::Logic => bool(a.dtype) && bool(b.dtype),
            // Only bytes: they are the one unsigned type that there is.
            Kind::Bits if self.name == "bit-shift" => a.dtype == DType::U8 && b.dtype == DType::U8,
            Kind::Bits => a.dtype == b.dtype && a.dtype != DType::F32 && !bool(a.dtype),
            Kind::Numbers if self.name == "mod" => a.dtype == b.dtype && !bool(a.dtype),
            Kind::Numbers => !bool(a.dtype) && !bool(b.dtype),
        };
        if !fits {
            return Err(format!("operands of {} and {}", a.dtype, b.dtype));
        }
        let dtype = match self.kind {
            Kind::Comparison | Kind::Logic => DType::Bool,
            Kind::Bits | Kind::Numbers => a.dtype,
        };
        Ok(vec![Type::new(dtype, broadcast(a, b)?)])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let (a, b, fmod) = (call.input(0)?, call.input(1)?, flag(&call.attrs()));
        let dtype = match self.kind {
            Kind::Comparison | Kind::Logic => DType::Bool,
            Kind::Bits | Kind::Numbers => a.dtype(),
        };
        let pair = |v: &[Number]| (self.apply)(v[0], v[1], fmod);
        Ok(vec![numbers::zip(&[a, b], dtype, &pair)?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        if let ("pow", Some(expr)) = (self.name, small_power(&cx.view())) {
            return lower(cx, self.name, &[Term::Input(0)], expr, Store::Float);
        }
        let fmod = flag(&cx.view().attrs());
        loops::elementwise(cx, self.name, &[0, 1], &mut |s, v| {
            (self.program)(s, v[0].clone(), v[1].clone(), fmod)
        })
    }
}
