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
    /// e^x, within 2 units in the last place.
    Exp,
    /// The error function, within 4e-7 of its value.
    Erf,
    /// x times the share of a normal distribution below x, within 1e-6 of its value and 1e-7.
    Gelu,
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

/// Beyond this the error function is 1 as a float.
const ERF_ENDS: f32 = 4.0;
/// Coefficients of erf(x) / x by powers of x^2 as a quotient, highest first: the fit of least greatest
/// error below [`ERF_ENDS`], 2.5e-8 of the value. All are positive: nothing cancels.
const ERF_ABOVE: [f32; 6] = [
    1.986_769_1e-6,
    0.000_284_564_48,
    0.003_883_332_2,
    0.053_101_71,
    0.193_544_97,
    std::f32::consts::FRAC_2_SQRT_PI,
];
/// Those of its divisor.
const ERF_BELOW: [f32; 6] = [
    3.741_996e-5,
    0.001_185_566_1,
    0.015_207_23,
    0.115_349_956,
    0.504_857_3,
    1.0,
];
/// erfc(x) e^(x^2) for x >= 0 is t times a polynomial of t = 1 / (1 + 0.4 x).
const TAIL_SLOPE: f32 = 0.4;
/// Its coefficients, highest first: the fit of least greatest error, 6.4e-8 of the value.
const TAIL_TERMS: [f32; 9] = [
    0.041_612_89,
    -0.142_081_83,
    0.087_657_355,
    0.083_732_63,
    0.082_703_41,
    0.192_127_68,
    0.202_213_95,
    0.226_397_02,
    0.225_636_96,
];

/// e^x of x <= 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exp {
    v: Local,
    turns: Local,
    rest: Local,
    power: Local,
    /// Whether steps may be rounded once.
    fused: bool,
}

/// Pushes a polynomial of a variable. Each step is rounded once where the host has the instruction.
fn fused(f: &mut Func<'_>, x: Local, sum: Local, terms: &[f32]) {
    f.floats(terms.first().copied().unwrap_or(0.0)).set(sum);
    for term in terms.iter().skip(1) {
        f.get(sum).get(x).floats(*term);
        f.op(I::F32x4RelaxedMadd).set(sum);
    }
    f.get(sum);
}

/// Pushes a polynomial of a variable, with the same bits on every host.
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
            fused: false,
        }
    }

    /// The same with steps that are rounded once where the host can: not the bits of `math::exp`.
    pub(crate) fn fused(self) -> Self {
        let fused = true;
        Self { fused, ..self }
    }

    /// Pops a vector x <= 0 and pushes e^x: see `math::exp`, which does the same by the same steps.
    pub(crate) fn apply(self, f: &mut Func<'_>) {
        f.floats(EXP_LEAST).op(I::F32x4PMax).set(self.v);
        self.power(f);
        f.get(self.turns).ints(ROUNDER.to_bits() as i32 - 127);
        f.op(I::I32x4Sub);
        f.int(23).op(I::I32x4Shl).get(self.power).op(I::F32x4Mul);
    }

    /// Pops any vector and pushes e^x: infinite above 88.7, 0 below -104. Scaled in two halves, since
    /// neither the greatest nor the least power of two that is needed is a float.
    fn apply_any(self, f: &mut Func<'_>) {
        f.floats(-104.0).op(I::F32x4PMax);
        f.floats(89.0).op(I::F32x4PMin).set(self.v);
        self.power(f);
        f.get(self.turns).ints(ROUNDER.to_bits() as i32);
        f.op(I::I32x4Sub).set(self.turns);
        f.get(self.turns).int(1).op(I::I32x4ShrS).set(self.rest);
        f.get(self.power);
        for half in [false, true] {
            if half {
                f.get(self.turns).get(self.rest).op(I::I32x4Sub);
            } else {
                f.get(self.rest);
            }
            f.ints(127).op(I::I32x4Add).int(23).op(I::I32x4Shl);
            f.op(I::F32x4Mul);
        }
    }

    /// From `v`: the power of two, behind the rounder's bits, and e to the power of what is left.
    fn power(self, f: &mut Func<'_>) {
        f.get(self.v).floats(std::f32::consts::LOG2_E);
        f.op(I::F32x4Mul);
        f.floats(ROUNDER).op(I::F32x4Add).set(self.turns);
        f.get(self.turns).floats(ROUNDER).op(I::F32x4Sub);
        f.set(self.rest);
        f.get(self.v).get(self.rest).floats(LN_2_HIGH);
        f.op(I::F32x4Mul).op(I::F32x4Sub);
        f.get(self.rest).floats(LN_2_LOW);
        f.op(I::F32x4Mul).op(I::F32x4Sub).set(self.rest);
        let sum = if self.fused { fused } else { polynomial };
        sum(f, self.rest, self.power, &EXP_TERMS);
        f.set(self.power);
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
            Self::Exp => Exp::new(f).apply_any(f),
            Self::Erf => erf(f),
            Self::Gelu => gelu(f),
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

/// Pushes erfc(z) of a variable z >= 0; `power` holds -z^2.
fn tail(f: &mut Func<'_>, z: Local, power: Local) {
    let (t, sum, exp) = (f.v128(), f.v128(), Exp::new(f));
    f.floats(1.0);
    f.floats(1.0).get(z).floats(TAIL_SLOPE).op(I::F32x4Mul);
    f.op(I::F32x4Add).op(I::F32x4Div).set(t);
    fused(f, t, sum, &TAIL_TERMS);
    f.get(t).op(I::F32x4Mul);
    f.get(power);
    exp.apply(f);
    f.op(I::F32x4Mul);
}

/// x times a quotient of polynomials of x^2, which may come out a little above 1.
fn erf(f: &mut Func<'_>) {
    let [x, square, sum] = [(); 3].map(|()| f.v128());
    f.clamp(-ERF_ENDS, ERF_ENDS).set(x);
    f.get(x).get(x).op(I::F32x4Mul).set(square);
    fused(f, square, sum, &ERF_ABOVE);
    f.get(x).op(I::F32x4Mul);
    fused(f, square, sum, &ERF_BELOW);
    f.op(I::F32x4Div).clamp(-1.0, 1.0);
}

/// By q = erfc(|x| / sqrt 2) / 2: x times q below 0, x times (1 - q) above.
fn gelu(f: &mut Func<'_>) {
    let [x, z, half, q] = [(); 4].map(|()| f.v128());
    f.set(x);
    f.get(x).op(I::F32x4Abs);
    f.floats(std::f32::consts::FRAC_1_SQRT_2).op(I::F32x4Mul);
    f.set(z);
    f.get(x).get(x).op(I::F32x4Mul).floats(-0.5);
    f.op(I::F32x4Mul).set(half);
    tail(f, z, half);
    f.floats(0.5).op(I::F32x4Mul).set(q);
    f.get(q);
    f.floats(1.0).get(q).op(I::F32x4Sub);
    f.get(x).floats(0.0).op(I::F32x4Lt);
    f.op(I::V128Bitselect);
    f.get(x).op(I::F32x4Mul);
}
