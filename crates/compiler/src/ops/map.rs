//! Operators of one float: activations, rounding, roots, exponentials, angles.

use super::{Call, Operator};
use crate::kernels::{Bin, Curve, Ex, Expr, Scalar, Store, Ty, Un, functions as f};
use crate::lower::elementwise::{Term, lower};
use crate::lower::{LowerCx, loops};
use crate::onnx::Attrs;
use crate::reference::elementwise::map;
use crate::reference::numbers::{Number, zip};
use crate::tensor::Tensor;
use crate::typed::{Clamp, NodeView, Type};
use sandpiper_core::tensor::DType;

/// The two numbers that some of them take, from attributes.
type Params = [f32; 2];

/// An operator of one float.
pub(crate) struct Map {
    name: &'static str,
    /// Names and defaults of its attributes.
    params: [(&'static str, f32); 2],
    apply: fn(f32, Params) -> f32,
    program: fn(&mut Scalar, Ex, Params) -> Ex,
}

const NONE: (&str, f32) = ("", 0.0);

impl Map {
    fn params(&self, attrs: &Attrs<'_>) -> Params {
        if self.name == "gelu" {
            // Its only attribute is a word.
            let approximate = attrs.text("approximate", "none") == "tanh";
            return [f32::from(u8::from(approximate)), 0.0];
        }
        self.params
            .map(|(name, default)| attrs.float(name).unwrap_or(default))
    }
}

/// A function of integers, and its program.
type Whole = (fn(i64) -> i64, fn(Ex) -> Ex);

/// Abs, Neg and Sign also take integers, which wrap around.
fn whole(name: &str) -> Option<Whole> {
    match name {
        "abs" => Some((i64::wrapping_abs, |x| x.clone().max(x.same(0.0) - x))),
        "neg" => Some((i64::wrapping_neg, |x| x.same(0.0) - x)),
        "sign" => Some((i64::signum, |x| {
            let (zero, one, minus) = (x.same(0.0), x.same(1.0), x.same(-1.0));
            let positive = zero.clone().lt(x.clone()).pick(one, zero.clone());
            x.lt(zero).pick(minus, positive)
        })),
        _ => None,
    }
}

impl Operator for Map {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let ty = node.ty(0)?;
        match ty.dtype {
            DType::I8 | DType::U8 | DType::I32 | DType::I64 if whole(self.name).is_some() => {
                Ok(vec![ty.clone()])
            }
            _ => Ok(vec![node.float(0)?.clone()]),
        }
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let x = call.input(0)?;
        if let (Some((apply, _)), true) = (whole(self.name), x.dtype() != DType::F32) {
            let one = |v: &[Number]| Number::Int(apply(v[0].int()));
            return Ok(vec![zip(&[x], x.dtype(), &one)?]);
        }
        let params = self.params(&call.attrs());
        Ok(vec![map(x, |x| (self.apply)(x, params))?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let params = self.params(&cx.view().attrs());
        if let (Some((_, program)), true) = (whole(self.name), cx.out()?.dtype != DType::F32) {
            return loops::elementwise(cx, self.name, &[0], &mut |_, v| program(v[0].clone()));
        }
        if let Some(expr) = vector(self.name, params) {
            return lower(cx, self.name, &[Term::Input(0)], expr, Store::Float);
        }
        loops::elementwise(cx, self.name, &[0], &mut |s, v| {
            (self.program)(s, v[0].clone(), params)
        })
    }

    fn by_element(&self) -> bool {
        true
    }
}

/// The expression of those that are computed four at a time, in whatever order elements lie.
fn vector(name: &str, [a, b]: Params) -> Option<Expr> {
    let x = || Expr::In(0);
    let curve = |curve| Some(x().curve(curve));
    match name {
        "abs" => curve(Curve::Abs),
        "neg" => curve(Curve::Neg),
        "sqrt" => curve(Curve::Sqrt),
        "floor" => curve(Curve::Floor),
        "ceil" => curve(Curve::Ceil),
        "round" => Some(Expr::Round(Box::new(x()))),
        "reciprocal" => Some(Expr::Const(1.0).over(x())),
        "sigmoid" => curve(Curve::Sigmoid),
        "tanh" => curve(Curve::Tanh),
        "exp" => curve(Curve::Exp),
        "erf" => curve(Curve::Erf),
        // By the tangent, x/2 (1 + tanh u) is x times the sigmoid of 2 u.
        "gelu" if a != 0.0 => {
            let cube = x()
                .times(x())
                .times(Expr::Const(0.044_715))
                .plus(Expr::Const(1.0));
            let twice = cube.times(x()).times(Expr::Const(2.0 * SQRT_2_OVER_PI));
            Some(x().times(twice.curve(Curve::Sigmoid)))
        }
        "gelu" => curve(Curve::Gelu),
        "elu" => Some(elu(x(), a)),
        "selu" => Some(elu(x(), a).times(Expr::Const(b))),
        // Of another sign, both of its sides are below 0 together.
        "celu" if a > 0.0 => Some(positive(x()).plus(below(x().over(Expr::Const(a)), a))),
        "leaky-relu" => curve(Curve::Leaky(a)),
        "hard-sigmoid" => {
            let line = Expr::Const(a).times(x()).plus(Expr::Const(b));
            Some(line.within_unit())
        }
        "hard-swish" => {
            let line = x().over(Expr::Const(6.0)).plus(Expr::Const(0.5));
            Some(x().times(line.within_unit()))
        }
        "softsign" => Some(x().over(Expr::Const(1.0).plus(x().curve(Curve::Abs)))),
        _ => None,
    }
}

/// x, or 0 below 0.
fn positive(x: Expr) -> Expr {
    let (low, high) = (0.0, f32::INFINITY);
    Expr::Cut(Box::new(x), Clamp { low, high })
}

/// a (e^x - 1) of x below 0; above, e^0 is 1 and nothing is left.
fn below(x: Expr, a: f32) -> Expr {
    let (low, high) = (f32::NEG_INFINITY, 0.0);
    let negative = Expr::Cut(Box::new(x), Clamp { low, high });
    let power = negative.curve(Curve::Exp).minus(Expr::Const(1.0));
    Expr::Const(a).times(power)
}

/// x, or below 0 a (e^x - 1).
fn elu(x: Expr, a: f32) -> Expr {
    positive(x.clone()).plus(below(x, a))
}

/// A function of 64-bit floats as one of 32-bit floats.
fn wide(s: &mut Scalar, x: Ex, function: fn(&mut Scalar, Ex) -> Ex) -> Ex {
    function(s, x.to(Ty::Double)).to(Ty::Real)
}

fn r(value: f32) -> Ex {
    Ex::Real(value)
}

fn double(x: f32, function: fn(f64) -> f64) -> f32 {
    function(f64::from(x)) as f32
}

/// The error function by its series, or by the continued fraction of its complement: exact to 1e-15.
fn erf(x: f64) -> f64 {
    let size = x.abs();
    let value = if size < 2.5 {
        let (mut term, mut sum) = (size, size);
        for n in 1..60 {
            term *= -size * size / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * std::f64::consts::FRAC_2_SQRT_PI
    } else if size.is_nan() {
        size
    } else {
        let fraction = (1..60)
            .rev()
            .fold(size, |f, n| size + f64::from(n) / 2.0 / f);
        1.0 - (-size * size).exp() / fraction * std::f64::consts::FRAC_2_SQRT_PI / 2.0
    };
    value.copysign(x)
}

const SQRT_2_OVER_PI: f32 = 0.797_884_6;

fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2))
}

fn gelu_by_tanh(x: f64) -> f64 {
    let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3));
    0.5 * x * (1.0 + inner.tanh())
}

fn exp_below(s: &mut Scalar, x: &Ex) -> Ex {
    // Only taken below 0, so that the other side may not overflow.
    wide(s, x.clone().min(r(0.0)), f::exp)
}

macro_rules! maps {
    ($($id:ident $name:literal $params:expr, $apply:expr, $program:expr;)*) => {
        $(#[doc = $name] pub(crate) static $id: Map = Map {
            name: $name, params: $params, apply: $apply, program: $program,
        };)*
    };
}

const PLAIN: [(&str, f32); 2] = [NONE, NONE];

maps! {
    ABS "abs" PLAIN, |x, _| x.abs(), |_, x, _| x.un(Un::Abs);
    NEG "neg" PLAIN, |x, _| -x, |_, x, _| x.un(Un::Neg);
    FLOOR "floor" PLAIN, |x, _| x.floor(), |_, x, _| x.un(Un::Floor);
    CEIL "ceil" PLAIN, |x, _| x.ceil(), |_, x, _| x.un(Un::Ceil);
    ROUND "round" PLAIN, |x, _| x.round_ties_even(), |_, x, _| x.un(Un::Nearest);
    SQRT "sqrt" PLAIN, |x, _| x.sqrt(), |_, x, _| x.un(Un::Sqrt);
    RECIPROCAL "reciprocal" PLAIN, |x, _| 1.0 / x, |_, x, _| r(1.0) / x;
    SIGN "sign" PLAIN, |x, _| if x > 0.0 { 1.0 } else if x < 0.0 { -1.0 } else { x }, |_, x, _| {
        let below = x.clone().lt(r(0.0)).pick(r(-1.0), x.clone());
        r(0.0).lt(x).pick(r(1.0), below)
    };
    EXP "exp" PLAIN, |x, _| double(x, f64::exp), |s, x, _| wide(s, x, f::exp);
    LOG "log" PLAIN, |x, _| double(x, f64::ln), |s, x, _| wide(s, x, f::log);
    SIGMOID "sigmoid" PLAIN, |x, _| double(x, |x| 1.0 / (1.0 + (-x).exp())), |s, x, _| wide(s, x, f::sigmoid);
    TANH "tanh" PLAIN, |x, _| double(x, f64::tanh), |s, x, _| wide(s, x, f::tanh);
    SINH "sinh" PLAIN, |x, _| double(x, f64::sinh), |s, x, _| wide(s, x, f::sinh);
    COSH "cosh" PLAIN, |x, _| double(x, f64::cosh), |s, x, _| wide(s, x, f::cosh);
    ASINH "asinh" PLAIN, |x, _| double(x, f64::asinh), |s, x, _| wide(s, x, f::asinh);
    ACOSH "acosh" PLAIN, |x, _| double(x, f64::acosh), |s, x, _| wide(s, x, f::acosh);
    ATANH "atanh" PLAIN, |x, _| double(x, f64::atanh), |s, x, _| wide(s, x, f::atanh);
    SIN "sin" PLAIN, |x, _| double(x, f64::sin), |s, x, _| wide(s, x, f::sin);
    COS "cos" PLAIN, |x, _| double(x, f64::cos), |s, x, _| wide(s, x, f::cos);
    TAN "tan" PLAIN, |x, _| double(x, f64::tan), |s, x, _| wide(s, x, f::tan);
    ASIN "asin" PLAIN, |x, _| double(x, f64::asin), |s, x, _| wide(s, x, f::asin);
    ACOS "acos" PLAIN, |x, _| double(x, f64::acos), |s, x, _| wide(s, x, f::acos);
    ATAN "atan" PLAIN, |x, _| double(x, f64::atan), |s, x, _| wide(s, x, f::atan);
    ERF "erf" PLAIN, |x, _| double(x, erf), |s, x, _| wide(s, x, f::erf);
    GELU "gelu" PLAIN, |x, [approximate, _]| double(x, if approximate != 0.0 { gelu_by_tanh } else { gelu }), |s, x, [approximate, _]| {
        if approximate != 0.0 {
            let inner = r(SQRT_2_OVER_PI) * (x.clone() + r(0.044_715) * x.clone() * x.clone() * x.clone());
            return x * r(0.5) * (r(1.0) + wide(s, inner, f::tanh));
        }
        let inner = x.clone() * r(std::f32::consts::FRAC_1_SQRT_2);
        x * r(0.5) * (r(1.0) + wide(s, inner, f::erf))
    };
    SOFTPLUS "softplus" PLAIN, |x, _| double(x, |x| x.max(0.0) + (-x.abs()).exp().ln_1p()), |s, x, _| wide(s, x, f::softplus);
    SOFTSIGN "softsign" PLAIN, |x, _| x / (1.0 + x.abs()), |_, x, _| x.clone() / (r(1.0) + x.un(Un::Abs));
    MISH "mish" PLAIN, |x, _| double(x, |x| x * (x.max(0.0) + (-x.abs()).exp().ln_1p()).tanh()), |s, x, _| {
        let inner = f::softplus(s, x.clone().to(Ty::Double));
        x * f::tanh(s, inner).to(Ty::Real)
    };
    HARD_SWISH "hard-swish" PLAIN, |x, _| x * (x / 6.0 + 0.5).clamp(0.0, 1.0), |_, x, _| {
        x.clone() * (x / r(6.0) + r(0.5)).max(r(0.0)).min(r(1.0))
    };
    HARD_SIGMOID "hard-sigmoid" [("alpha", 0.2), ("beta", 0.5)], |x, [a, b]| (a * x + b).clamp(0.0, 1.0), |_, x, [a, b]| {
        (r(a) * x + r(b)).max(r(0.0)).min(r(1.0))
    };
    LEAKY_RELU "leaky-relu" [("alpha", 0.01), NONE], |x, [a, _]| if x < 0.0 { a * x } else { x }, |_, x, [a, _]| {
        x.clone().lt(r(0.0)).pick(r(a) * x.clone(), x)
    };
    THRESHOLDED_RELU "thresholded-relu" [("alpha", 1.0), NONE], |x, [a, _]| if x > a { x } else { 0.0 }, |_, x, [a, _]| {
        r(a).lt(x.clone()).pick(x, r(0.0))
    };
    ELU "elu" [("alpha", 1.0), NONE], |x, [a, _]| if x < 0.0 { a * x.exp_m1() } else { x }, |s, x, [a, _]| {
        let below = r(a) * (exp_below(s, &x) - r(1.0));
        x.clone().lt(r(0.0)).pick(below, x)
    };
    SELU "selu" [("alpha", 1.673_263_2), ("gamma", 1.050_701)], |x, [a, g]| g * if x > 0.0 { x } else { a * x.exp_m1() }, |s, x, [a, g]| {
        let below = r(a) * (exp_below(s, &x) - r(1.0));
        r(g) * r(0.0).lt(x.clone()).pick(x, below)
    };
    CELU "celu" [("alpha", 1.0), NONE], |x, [a, _]| x.max(0.0) + (a * (x / a).exp_m1()).min(0.0), |s, x, [a, _]| {
        let below = r(a) * (wide(s, x.clone() / r(a), f::exp) - r(1.0));
        x.max(r(0.0)) + below.min(r(0.0))
    };
    SHRINK "shrink" [("lambd", 0.5), ("bias", 0.0)], |x, [l, b]| if x < -l { x + b } else if x > l { x - b } else { 0.0 }, |_, x, [l, b]| {
        let above = r(l).lt(x.clone()).pick(x.clone() - r(b), r(0.0));
        x.clone().lt(r(-l)).pick(x + r(b), above)
    };
}

/// IsNaN and IsInf: from a float to a truth.
pub(crate) struct Test {
    name: &'static str,
    infinite: bool,
}

/// IsNaN.
pub(crate) static IS_NAN: Test = Test {
    name: "is-nan",
    infinite: false,
};
/// IsInf.
pub(crate) static IS_INF: Test = Test {
    name: "is-inf",
    infinite: true,
};

impl Test {
    /// Whether positive and negative infinity count.
    fn signs(&self, attrs: &Attrs<'_>) -> [bool; 2] {
        ["detect_positive", "detect_negative"].map(|n| attrs.int(n, 1) != 0)
    }
}

impl Operator for Test {
    fn infer(&self, node: &NodeView<'_>) -> Result<Vec<Type>, String> {
        let dims = node.float(0)?.dims.clone();
        Ok(vec![Type::new(DType::Bool, dims)])
    }

    fn eval(&self, call: &Call<'_>) -> Result<Vec<Tensor>, String> {
        let (x, [positive, negative]) = (call.input(0)?, self.signs(&call.attrs()));
        let one = |x: &f32| match self.infinite {
            false => x.is_nan(),
            true => (*x == f32::INFINITY && positive) || (*x == f32::NEG_INFINITY && negative),
        };
        let bools = x.as_f32()?.iter().map(|x| u8::from(one(x))).collect();
        let data = crate::tensor::Data::Bool(bools);
        Ok(vec![Tensor::new(x.dims().to_vec(), data)?])
    }

    fn lower(&self, cx: &mut LowerCx<'_>) -> Result<(), String> {
        let [positive, negative] = self.signs(&cx.view().attrs());
        loops::elementwise(cx, self.name, &[0], &mut |_, v| {
            let x = v[0].clone();
            if !self.infinite {
                return x.clone().eq(x).not();
            }
            let is = |wanted: bool, value: f32| {
                let found = x.clone().eq(r(value));
                found.bin(Bin::And, Ex::Int(i32::from(wanted)))
            };
            is(positive, f32::INFINITY).bin(Bin::Or, is(negative, f32::NEG_INFINITY))
        })
    }
}
