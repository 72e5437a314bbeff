//! Functions of one number as programs over scalars, in 64-bit floats.
//!
//! Series are cut where the first term left out is below 1e-16 of the result, so that results
//! rounded to f32 are within a unit in the last place, except where said otherwise. Formulas are
//! textbook ones: argument reduction to a small interval and a Taylor series there.

use super::scalar::{Bin, Ex, Scalar, Ty, Un};
use std::f64::consts;

fn d(value: f64) -> Ex {
    Ex::Double(value)
}

/// Coefficients, highest power first, at `x`.
fn horner(x: &Ex, terms: &[f64]) -> Ex {
    let mut terms = terms.iter();
    let first = d(terms.next().copied().unwrap_or(0.0));
    terms.fold(first, |sum, term| sum * x.clone() + d(*term))
}

/// 1/n! for n from `high` down in steps of `step` to `low`, with alternating signs if asked; the
/// last one is positive.
fn factorials(high: u32, low: u32, step: u32, alternating: bool) -> Vec<f64> {
    let mut terms = Vec::new();
    let (mut n, mut sign) = (low, 1.0);
    while n <= high {
        terms.push(sign / (1..=n).map(f64::from).product::<f64>());
        n += step;
        if alternating {
            sign = -sign;
        }
    }
    terms.reverse();
    terms
}

/// e^x. Arguments beyond 200 are taken as 200: both are infinite (or 0) as f32.
pub(crate) fn exp(s: &mut Scalar, x: Ex) -> Ex {
    let x = s.once(x.max(d(-200.0)).min(d(200.0)));
    let n = s.once((x.clone() * d(consts::LOG2_E)).un(Un::Nearest));
    // ln 2 in two parts, of which the first has so few bits that its product with n is exact.
    let (high, low) = (0.693_147_180_369_123_8, 1.908_214_929_270_587_7e-10);
    let rest = s.once(x - n.clone() * d(high) - n.clone() * d(low));
    let power = horner(&rest, &factorials(13, 0, 1, false));
    let exponent = (n.to(Ty::Long) + Ex::Long(1023)).bin(Bin::Shl, Ex::Long(52));
    s.once(power * exponent.bits())
}

/// The natural logarithm; NaN below 0.
pub(crate) fn log(s: &mut Scalar, x: Ex) -> Ex {
    let x = s.once(x);
    let bits = s.once(x.clone().bits());
    let exponent = bits.clone().bin(Bin::ShrU, Ex::Long(52)) - Ex::Long(1023);
    let fraction = bits.bin(Bin::And, Ex::Long((1 << 52) - 1));
    let mantissa = s.once(fraction.bin(Bin::Or, Ex::Long(1023 << 52)).bits());
    let large = s.once(d(consts::SQRT_2).lt(mantissa.clone()));
    let mantissa = s.once(large.clone().pick(mantissa.clone() * d(0.5), mantissa));
    let exponent = exponent.to(Ty::Double) + large.to(Ty::Double);
    let f = s.once((mantissa.clone() - d(1.0)) / (mantissa + d(1.0)));
    let square = s.once(f.clone() * f.clone());
    let terms: Vec<f64> = (0..12).rev().map(|i| 2.0 / f64::from(2 * i + 1)).collect();
    let series = f * horner(&square, &terms);
    let value = s.once(exponent * d(consts::LN_2) + series);
    // Also for NaN, which is not less than infinity.
    let finite = x.clone().lt(d(f64::INFINITY));
    let value = finite.pick(value, x.clone());
    let value = x.clone().lt(d(0.0)).pick(d(f64::NAN), value);
    s.once(x.eq(d(0.0)).pick(d(f64::NEG_INFINITY), value))
}

/// log(1 + e^x) without overflow.
pub(crate) fn softplus(s: &mut Scalar, x: Ex) -> Ex {
    let x = s.once(x);
    let e = exp(s, x.clone().un(Un::Abs).un(Un::Neg));
    let log = log(s, e + d(1.0));
    s.once(x.max(d(0.0)) + log)
}

/// 1 / (1 + e^-x).
pub(crate) fn sigmoid(s: &mut Scalar, x: Ex) -> Ex {
    let e = exp(s, x.un(Un::Neg));
    s.once(d(1.0) / (d(1.0) + e))
}

/// The hyperbolic tangent.
pub(crate) fn tanh(s: &mut Scalar, x: Ex) -> Ex {
    let x = s.once(x);
    let e = exp(s, x.clone().un(Un::Abs) * d(-2.0));
    let value = (d(1.0) - e.clone()) / (d(1.0) + e);
    odd(s, x, value)
}

/// A value for |x| with the sign of x; x itself where it is tiny.
fn odd(s: &mut Scalar, x: Ex, value: Ex) -> Ex {
    let tiny = x.clone().un(Un::Abs).lt(d(1e-5));
    let signed = value.bin(Bin::CopySign, x.clone());
    s.once(tiny.pick(x, signed))
}

/// The hyperbolic sine.
pub(crate) fn sinh(s: &mut Scalar, x: Ex) -> Ex {
    let x = s.once(x);
    let size = s.once(x.clone().un(Un::Abs));
    let e = exp(s, size.clone());
    let square = s.once(size.clone() * size.clone());
    let series = size.clone() * horner(&square, &factorials(13, 1, 2, false));
    let large = (e.clone() - d(1.0) / e) * d(0.5);
    let value = size.lt(d(0.5)).pick(series, large);
    odd(s, x, value)
}

/// The hyperbolic cosine.
pub(crate) fn cosh(s: &mut Scalar, x: Ex) -> Ex {
    let e = exp(s, x.un(Un::Abs));
    s.once((e.clone() + d(1.0) / e) * d(0.5))
}

/// The inverse hyperbolic sine.
pub(crate) fn asinh(s: &mut Scalar, x: Ex) -> Ex {
    let x = s.once(x);
    let size = s.once(x.clone().un(Un::Abs));
    let root = (size.clone() * size.clone() + d(1.0)).un(Un::Sqrt);
    let value = log(s, size + root);
    odd(s, x, value)
}

/// The inverse hyperbolic cosine; NaN below 1.
pub(crate) fn acosh(s: &mut Scalar, x: Ex) -> Ex {
    let x = s.once(x);
    let root = (x.clone() * x.clone() - d(1.0)).un(Un::Sqrt);
    log(s, x + root)
}

/// The inverse hyperbolic tangent.
pub(crate) fn atanh(s: &mut Scalar, x: Ex) -> Ex {
    let x = s.once(x);
    let log = log(s, (d(1.0) + x.clone()) / (d(1.0) - x.clone()));
    let value = s.once(log * d(0.5));
    let tiny = x.clone().un(Un::Abs).lt(d(1e-5));
    s.once(tiny.pick(x, value))
}

/// Sine and cosine. Of arguments above 2^26 only some digits are right.
fn sine_and_cosine(s: &mut Scalar, x: Ex) -> (Ex, Ex) {
    let x = s.once(x);
    let n = s.once((x.clone() * d(consts::FRAC_2_PI)).un(Un::Nearest));
    // A right angle in two parts, of which the first has few bits.
    let (high, low) = (1.570_796_251_296_997, 7.549_789_415_861_596e-8);
    let rest = s.once(x - n.clone() * d(high) - n.clone() * d(low));
    let square = s.once(rest.clone() * rest.clone());
    let sine = s.once(rest * horner(&square, &factorials(17, 1, 2, true)));
    let cosine = s.once(horner(&square, &factorials(18, 0, 2, true)));
    let turn = s.once(n.to(Ty::Long).to(Ty::Int));
    let odd = s.once(turn.clone().bin(Bin::And, Ex::Int(1)));
    let flip = |turn: Ex, value: Ex| {
        let negative = value.clone().un(Un::Neg);
        turn.bin(Bin::And, Ex::Int(2)).pick(negative, value)
    };
    let a = odd.clone().pick(cosine.clone(), sine.clone());
    let b = odd.pick(sine, cosine);
    let sine = s.once(flip(turn.clone(), a));
    let cosine = s.once(flip(turn + Ex::Int(1), b));
    (sine, cosine)
}

/// The sine.
pub(crate) fn sin(s: &mut Scalar, x: Ex) -> Ex {
    sine_and_cosine(s, x).0
}

/// The cosine.
pub(crate) fn cos(s: &mut Scalar, x: Ex) -> Ex {
    sine_and_cosine(s, x).1
}

/// The tangent.
pub(crate) fn tan(s: &mut Scalar, x: Ex) -> Ex {
    let (sine, cosine) = sine_and_cosine(s, x);
    s.once(sine / cosine)
}

/// The inverse tangent.
pub(crate) fn atan(s: &mut Scalar, x: Ex) -> Ex {
    let x = s.once(x);
    let size = s.once(x.clone().un(Un::Abs));
    let large = s.once(d(1.0).lt(size.clone()));
    let inverse = d(1.0) / size.clone();
    let mut t = s.once(large.clone().pick(inverse, size));
    // Half the angle, twice: at most an eighth of a right angle is left.
    for _ in 0..2 {
        let root = (t.clone() * t.clone() + d(1.0)).un(Un::Sqrt);
        t = s.once(t / (d(1.0) + root));
    }
    let square = s.once(t.clone() * t.clone());
    let alternating = |i: u32| if i.is_multiple_of(2) { 1.0 } else { -1.0 };
    let terms: Vec<f64> = (0..12)
        .rev()
        .map(|i| 4.0 * alternating(i) / f64::from(2 * i + 1))
        .collect();
    let angle = s.once(t * horner(&square, &terms));
    let value = large.pick(d(consts::FRAC_PI_2) - angle.clone(), angle);
    s.once(value.bin(Bin::CopySign, x))
}

/// The inverse sine; NaN beyond 1.
pub(crate) fn asin(s: &mut Scalar, x: Ex) -> Ex {
    let x = s.once(x);
    let root = ((d(1.0) - x.clone()) * (d(1.0) + x.clone())).un(Un::Sqrt);
    atan(s, x / root)
}

/// The inverse cosine; NaN beyond 1.
pub(crate) fn acos(s: &mut Scalar, x: Ex) -> Ex {
    let asin = asin(s, x);
    s.once(d(consts::FRAC_PI_2) - asin)
}

/// The error function: a series below 1, and beyond it formula 7.1.26 of Abramowitz and Stegun, whose
/// error is at most 1.5e-7.
pub(crate) fn erf(s: &mut Scalar, x: Ex) -> Ex {
    let x = s.once(x);
    let size = s.once(x.clone().un(Un::Abs));
    let square = s.once(size.clone() * size.clone());
    let factorial = |n: u32| (1..=n).map(f64::from).product::<f64>();
    let term = |n: u32| {
        let sign = if n.is_multiple_of(2) { 1.0 } else { -1.0 };
        sign * consts::FRAC_2_SQRT_PI / (factorial(n) * f64::from(2 * n + 1))
    };
    let terms: Vec<f64> = (0..15).rev().map(term).collect();
    let series = s.once(size.clone() * horner(&square, &terms));
    let e = exp(s, square.un(Un::Neg));
    let t = s.once(d(1.0) / (d(1.0) + d(0.327_591_1) * size.clone()));
    let fit = [
        1.061_405_429,
        -1.453_152_027,
        1.421_413_741,
        -0.284_496_736,
        0.254_829_592,
        0.0,
    ];
    let far = s.once(d(1.0) - horner(&t, &fit) * e);
    let value = size.lt(d(1.0)).pick(series, far);
    s.once(value.bin(Bin::CopySign, x))
}

/// x to the power of y: of a negative x, NaN unless y is a whole number.
pub(crate) fn pow(s: &mut Scalar, x: Ex, y: Ex) -> Ex {
    let (x, y) = (s.once(x), s.once(y));
    let log = log(s, x.clone().un(Un::Abs));
    let size = exp(s, y.clone() * log);
    let whole = y.clone().un(Un::Nearest).eq(y.clone());
    let half = y.clone() * d(0.5);
    let odd = s.once(half.clone().un(Un::Nearest).eq(half).not());
    let negative = odd.pick(size.clone().un(Un::Neg), size.clone());
    let below = whole.pick(negative, d(f64::NAN));
    let value = s.once(x.clone().lt(d(0.0)).pick(below, size));
    let one = x.eq(d(1.0)).bin(Bin::Or, y.eq(d(0.0)));
    s.once(one.pick(d(1.0), value))
}
