//! Functions of four floats at a time.

use crate::emit::{Func, Local};
use crate::math::{EXP_LEAST, EXP_TERMS, LN_2_HIGH, LN_2_LOW, ROUNDER};
use wasm_encoder::Instruction as I;

/// A function of one float.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Curve {
    /// Magnitude.
    Abs,
    /// Sign turned.
    Neg,
    /// Square root.
    Sqrt,
    /// Rounded down.
    Floor,
    /// Rounded up.
    Ceil,
    /// 1 / (1 + e^-x), within 4 units in the last place.
    Sigmoid,
    /// The hyperbolic tangent, within 4e-7 of its value.
    Tanh,
    /// x, or below 0 this many times x.
    Leaky(f32),
}

/// Below this, the tangent is taken from its series, since 1 - e^-2x would lose digits.
const TANH_SERIES_BELOW: f32 = 0.35;
/// Coefficients of tanh(x) / x by powers of x^2, highest first: Taylor's. Below the limit the first
/// term left out is under 1e-8 of the result.
const TANH_TERMS: [f32; 7] = [
    21_844.0 / 6_081_075.0,
    -1382.0 / 155_925.0,
    62.0 / 2835.0,
    -17.0 / 315.0,
    2.0 / 15.0,
    -1.0 / 3.0,
    1.0,
];

/// e^x of x <= 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exp {
    v: Local,
    turns: Local,
    rest: Local,
    power: Local,
}

/// Pushes a polynomial of a variable.
fn polynomial(f: &mut Func<'_>, x: Local, sum: Local, terms: &[f32]) {
    f.floats(terms.first().copied().unwrap_or(0.0)).set(sum);
    for term in terms.iter().skip(1) {
        f.get(sum).get(x).op(I::F32x4Mul);
        f.floats(*term).op(I::F32x4Add).set(sum);
    }
    f.get(sum);
}

impl Exp {
    /// With variables of its own.
    pub(crate) fn new(f: &mut Func<'_>) -> Self {
        let [v, turns, rest, power] = [(); 4].map(|()| f.v128());
        Self {
            v,
            turns,
            rest,
            power,
        }
    }

    /// Pops a vector x <= 0 and pushes e^x: see `math::exp`, which does the same by the same steps.
    pub(crate) fn apply(self, f: &mut Func<'_>) {
        f.floats(EXP_LEAST).op(I::F32x4PMax).set(self.v);
        f.get(self.v).floats(std::f32::consts::LOG2_E);
        f.op(I::F32x4Mul);
        f.floats(ROUNDER).op(I::F32x4Add).set(self.turns);
        f.get(self.turns).floats(ROUNDER).op(I::F32x4Sub);
        f.set(self.rest);
        f.get(self.v).get(self.rest).floats(LN_2_HIGH);
        f.op(I::F32x4Mul).op(I::F32x4Sub);
        f.get(self.rest).floats(LN_2_LOW);
        f.op(I::F32x4Mul).op(I::F32x4Sub).set(self.rest);
        polynomial(f, self.rest, self.power, &EXP_TERMS);
        f.set(self.power);
        f.get(self.turns).ints(ROUNDER.to_bits() as i32 - 127);
        f.op(I::I32x4Sub);
        f.int(23).op(I::I32x4Shl).get(self.power).op(I::F32x4Mul);
    }
}

impl Curve {
    /// Pops a vector and pushes its values.
    pub(crate) fn apply(self, f: &mut Func<'_>) {
        match self {
            Self::Abs => {
                f.op(I::F32x4Abs);
            }
            Self::Neg => {
                f.op(I::F32x4Neg);
            }
            Self::Sqrt => {
                f.op(I::F32x4Sqrt);
            }
            Self::Floor => {
                f.op(I::F32x4Floor);
            }
            Self::Ceil => {
                f.op(I::F32x4Ceil);
            }
            Self::Leaky(slope) => {
                let x = f.v128();
                f.set(x);
                f.get(x).floats(slope).op(I::F32x4Mul);
                f.get(x).get(x).floats(0.0).op(I::F32x4Lt);
                f.op(I::V128Bitselect);
            }
            Self::Sigmoid => sigmoid(f),
            Self::Tanh => tanh(f),
        }
    }
}

/// By e = e^-|x|: 1 / (1 + e), or e / (1 + e) below 0.
fn sigmoid(f: &mut Func<'_>) {
    let (x, e, exp) = (f.v128(), f.v128(), Exp::new(f));
    f.set(x);
    f.get(x).op(I::F32x4Abs).op(I::F32x4Neg);
    exp.apply(f);
    f.set(e);
    f.get(e).floats(1.0);
    f.get(x).floats(0.0).op(I::F32x4Lt);
    f.op(I::V128Bitselect);
    f.floats(1.0).get(e).op(I::F32x4Add).op(I::F32x4Div);
}

/// By e = e^-2|x|: (1 - e) / (1 + e) with the sign of x, or a series near 0.
fn tanh(f: &mut Func<'_>) {
    let [x, e, square, sum] = [(); 4].map(|()| f.v128());
    let exp = Exp::new(f);
    f.set(x);
    f.get(x).op(I::F32x4Abs).floats(-2.0).op(I::F32x4Mul);
    exp.apply(f);
    f.set(e);
    f.get(x).get(x).op(I::F32x4Mul).set(square);
    polynomial(f, square, sum, &TANH_TERMS);
    f.get(x).op(I::F32x4Mul);
    f.floats(1.0).get(e).op(I::F32x4Sub);
    f.floats(1.0).get(e).op(I::F32x4Add).op(I::F32x4Div);
    // The sign bit of x on a value that is not negative.
    f.get(x).floats(-0.0).op(I::V128And).op(I::V128Or);
    f.get(x).op(I::F32x4Abs).floats(TANH_SERIES_BELOW);
    f.op(I::F32x4Lt).op(I::V128Bitselect);
}
