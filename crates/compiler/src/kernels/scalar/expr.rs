//! Expressions of programs.

use crate::emit::Ref;
use sandpiper_core::tensor::DType;
use std::ops;
use wasm_encoder::ValType;

/// Type of a scalar in a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ty {
    /// 32-bit integer: i8, u8, bool and i32 in memory.
    Int,
    /// 64-bit integer.
    Long,
    /// 32-bit float.
    Real,
    /// 64-bit float, only between loads and stores.
    Double,
}

impl Ty {
    /// How elements of a type are computed with.
    pub(crate) fn of(dtype: DType) -> Self {
        match dtype {
            DType::F32 => Self::Real,
            DType::I64 => Self::Long,
            DType::I8 | DType::U8 | DType::I32 | DType::Bool => Self::Int,
        }
    }

    pub(super) fn wasm(self) -> ValType {
        match self {
            Self::Int => ValType::I32,
            Self::Long => ValType::I64,
            Self::Real => ValType::F32,
            Self::Double => ValType::F64,
        }
    }
}

/// A variable of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Var {
    pub(super) index: usize,
    pub(super) ty: Ty,
}

/// Operators of two operands of the same type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bin {
    /// Sum; integers wrap around.
    Add,
    /// Difference; integers wrap around.
    Sub,
    /// Product; integers wrap around.
    Mul,
    /// Quotient; of integers truncated (see [`Ex::divided`] for what makes it total).
    Div,
    /// Rest of the truncated quotient, integers only.
    Rem,
    /// Rest of the unsigned quotient.
    RemU,
    /// Bits of both, integers only.
    And,
    /// Bits of one or both, integers only.
    Or,
    /// Bits of one, integers only.
    Xor,
    /// Shifted to the left, integers only.
    Shl,
    /// Shifted to the right, filled with zeros; integers only.
    ShrU,
    /// Shifted to the right, filled with the sign; integers only.
    ShrS,
    /// Lesser; of floats NaN if one is.
    Min,
    /// Greater; of floats NaN if one is.
    Max,
    /// 1 if less (signed), else 0; an Int.
    Lt,
    /// 1 if less or equal (signed), else 0; an Int.
    Le,
    /// 1 if equal, else 0; an Int.
    Eq,
    /// The sign of the second on the first, floats only.
    CopySign,
}

/// Operators of one operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Un {
    /// Magnitude, floats only.
    Abs,
    /// Sign turned, floats only.
    Neg,
    /// Rounded down, floats only.
    Floor,
    /// Rounded up, floats only.
    Ceil,
    /// Rounded half to even, floats only.
    Nearest,
    /// Rounded towards zero, floats only.
    Trunc,
    /// Square root, floats only.
    Sqrt,
}

/// An expression.
#[derive(Debug, Clone)]
pub(crate) enum Ex {
    /// A 32-bit integer.
    Int(i32),
    /// A 64-bit integer.
    Long(i64),
    /// A 32-bit float.
    Real(f32),
    /// A 64-bit float.
    Double(f64),
    /// A variable.
    Var(Var),
    /// An element by its index, an Int.
    Load(Ref, DType, Box<Ex>),
    /// Two operands.
    Bin(Bin, Box<Ex>, Box<Ex>),
    /// One operand.
    Un(Un, Box<Ex>),
    /// The second if the first, an Int, is not 0; else the third. Both are computed.
    Select(Box<Ex>, Box<Ex>, Box<Ex>),
    /// Converted to another type: floats to integers saturate and truncate, NaN becomes 0.
    To(Ty, Box<Ex>),
    /// The bits of a float as an integer of its width, or the other way.
    Bits(Box<Ex>),
}

impl Ex {
    /// Its type.
    pub(crate) fn ty(&self) -> Ty {
        match self {
            Self::Int(_) => Ty::Int,
            Self::Long(_) => Ty::Long,
            Self::Real(_) => Ty::Real,
            Self::Double(_) => Ty::Double,
            Self::Var(v) => v.ty,
            Self::Load(_, dtype, _) => Ty::of(*dtype),
            Self::Bin(Bin::Lt | Bin::Le | Bin::Eq, _, _) => Ty::Int,
            Self::Bin(_, a, _) | Self::Un(_, a) => a.ty(),
            Self::Select(_, a, _) => a.ty(),
            Self::To(ty, _) => *ty,
            Self::Bits(a) => match a.ty() {
                Ty::Int => Ty::Real,
                Ty::Long => Ty::Double,
                Ty::Real => Ty::Int,
                Ty::Double => Ty::Long,
            },
        }
    }

    /// A constant of a type.
    pub(crate) fn constant(ty: Ty, value: f64) -> Self {
        match ty {
            Ty::Int => Self::Int(value as i32),
            Ty::Long => Self::Long(value as i64),
            Ty::Real => Self::Real(value as f32),
            Ty::Double => Self::Double(value),
        }
    }

    /// A constant of this expression's type.
    pub(crate) fn same(&self, value: f64) -> Self {
        Self::constant(self.ty(), value)
    }

    /// Applied to another operand.
    pub(crate) fn bin(self, op: Bin, other: Self) -> Self {
        Self::Bin(op, Box::new(self), Box::new(other))
    }

    /// An operator applied.
    pub(crate) fn un(self, op: Un) -> Self {
        Self::Un(op, Box::new(self))
    }

    /// Converted.
    pub(crate) fn to(self, ty: Ty) -> Self {
        if self.ty() == ty {
            self
        } else {
            Self::To(ty, Box::new(self))
        }
    }

    /// The bits.
    pub(crate) fn bits(self) -> Self {
        Self::Bits(Box::new(self))
    }

    /// Less.
    pub(crate) fn lt(self, other: Self) -> Self {
        self.bin(Bin::Lt, other)
    }

    /// Less or equal.
    pub(crate) fn le(self, other: Self) -> Self {
        self.bin(Bin::Le, other)
    }

    /// Equal.
    pub(crate) fn eq(self, other: Self) -> Self {
        self.bin(Bin::Eq, other)
    }

    /// Lesser.
    pub(crate) fn min(self, other: Self) -> Self {
        self.bin(Bin::Min, other)
    }

    /// Greater.
    pub(crate) fn max(self, other: Self) -> Self {
        self.bin(Bin::Max, other)
    }

    /// 1 if it is 0, else 0.
    pub(crate) fn not(self) -> Self {
        let zero = self.same(0.0);
        self.eq(zero)
    }

    /// `a` if this is not 0, else `b`.
    pub(crate) fn pick(self, a: Self, b: Self) -> Self {
        Self::Select(Box::new(self), Box::new(a), Box::new(b))
    }

    /// Truncated quotient of integers that traps nowhere: by 0 it is 0, and the least by -1 is itself.
    pub(crate) fn divided(self, by: Self) -> Self {
        let (zero, one, minus) = (by.same(0.0), by.same(1.0), by.same(-1.0));
        let special = by
            .clone()
            .eq(zero.clone())
            .bin(Bin::Or, by.clone().eq(minus.clone()));
        let negated = zero.clone() - self.clone();
        let quotient = self.bin(Bin::Div, special.clone().pick(one, by.clone()));
        special.pick(by.eq(minus).pick(negated, zero), quotient)
    }

    /// Rest of [`Ex::divided`], with the sign of the dividend.
    pub(crate) fn remainder(self, by: Self) -> Self {
        let (zero, one, minus) = (by.same(0.0), by.same(1.0), by.same(-1.0));
        let special = by
            .clone()
            .eq(zero.clone())
            .bin(Bin::Or, by.clone().eq(minus));
        let rest = self.bin(Bin::Rem, special.clone().pick(one, by));
        special.pick(zero, rest)
    }
}

macro_rules! operator {
    ($trait:ident, $method:ident, $bin:ident) => {
        impl ops::$trait for Ex {
            type Output = Self;
            fn $method(self, other: Self) -> Self {
                self.bin(Bin::$bin, other)
            }
        }
    };
}
operator!(Add, add, Add);
operator!(Sub, sub, Sub);
operator!(Mul, mul, Mul);
operator!(Div, div, Div);

/// The index of a place: the sum of its coordinates times strides.
pub(crate) fn index(place: &[Ex], strides: &[usize]) -> Ex {
    let mut sum: Option<Ex> = None;
    for (i, stride) in place.iter().zip(strides) {
        let term = match (i, stride) {
            (Ex::Int(0), _) | (_, 0) => continue,
            (i, 1) => i.clone(),
            (i, stride) => i.clone() * Ex::Int(*stride as i32),
        };
        sum = Some(match sum {
            Some(sum) => sum + term,
            None => term,
        });
    }
    sum.unwrap_or(Ex::Int(0))
}
