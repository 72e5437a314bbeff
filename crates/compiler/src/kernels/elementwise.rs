//! Expressions over elements, with broadcasting and with types converted on the way.

use super::Kernel;
use super::curves::Curve;
use crate::emit::{Func, Local, Ref, at, range};
use crate::typed::Clamp;
use sandpiper_core::tensor::DType;
use wasm_encoder::Instruction as I;

/// An expression over four elements at a time, in f32.
#[derive(Debug, Clone)]
pub(crate) enum Expr {
    /// An operand by index.
    In(usize),
    /// A constant.
    Const(f32),
    /// Sum.
    Add(Box<Expr>, Box<Expr>),
    /// Difference.
    Sub(Box<Expr>, Box<Expr>),
    /// Product.
    Mul(Box<Expr>, Box<Expr>),
    /// Quotient.
    Div(Box<Expr>, Box<Expr>),
    /// Rounded half to even.
    Round(Box<Expr>),
    /// Cut to limits; NaN passes.
    Cut(Box<Expr>, Clamp),
    /// A function of it.
    Curve(Curve, Box<Expr>),
}

impl Expr {
    /// Sum.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self::Add(Box::new(self), Box::new(other))
    }

    /// Difference.
    pub(crate) fn minus(self, other: Self) -> Self {
        Self::Sub(Box::new(self), Box::new(other))
    }

    /// Product.
    pub(crate) fn times(self, other: Self) -> Self {
        Self::Mul(Box::new(self), Box::new(other))
    }

    /// A function of it.
    pub(crate) fn curve(self, curve: Curve) -> Self {
        Self::Curve(curve, Box::new(self))
    }

    /// Cut to 0..1.
    pub(crate) fn within_unit(self) -> Self {
        let (low, high) = (0.0, 1.0);
        Self::Cut(Box::new(self), Clamp { low, high })
    }

    /// The same with other expressions in the place of operands.
    pub(crate) fn mapped(self, operand: &dyn Fn(usize) -> Self) -> Self {
        let inner = |e: Box<Self>| Box::new(e.mapped(operand));
        match self {
            Self::In(index) => operand(index),
            Self::Const(value) => Self::Const(value),
            Self::Add(a, b) => Self::Add(inner(a), inner(b)),
            Self::Sub(a, b) => Self::Sub(inner(a), inner(b)),
            Self::Mul(a, b) => Self::Mul(inner(a), inner(b)),
            Self::Div(a, b) => Self::Div(inner(a), inner(b)),
            Self::Round(a) => Self::Round(inner(a)),
            Self::Cut(a, clamp) => Self::Cut(inner(a), clamp),
            Self::Curve(curve, a) => Self::Curve(curve, inner(a)),
        }
    }

    fn parts(&self) -> Vec<&Self> {
        match self {
            Self::In(_) | Self::Const(_) => Vec::new(),
            Self::Add(a, b) | Self::Sub(a, b) | Self::Mul(a, b) | Self::Div(a, b) => vec![a, b],
            Self::Round(a) | Self::Cut(a, _) | Self::Curve(_, a) => vec![a],
        }
    }

    /// Its operations and operands.
    pub(crate) fn operations(&self) -> usize {
        1 + self.parts().iter().map(|p| p.operations()).sum::<usize>()
    }

    /// How often it takes an operand.
    pub(crate) fn uses(&self, index: usize) -> usize {
        match self {
            Self::In(i) => usize::from(*i == index),
            _ => self.parts().iter().map(|p| p.uses(index)).sum(),
        }
    }

    /// Quotient.
    pub(crate) fn over(self, other: Self) -> Self {
        Self::Div(Box::new(self), Box::new(other))
    }
}

/// An operand and how far apart its elements lie, by dimension.
#[derive(Debug, Clone)]
pub(crate) struct Operand {
    /// Where.
    pub(crate) at: Ref,
    /// Element type: f32, i8, u8 or i32.
    pub(crate) dtype: DType,
    /// Elements from one to the next, by dimension; 0 where it is broadcast.
    pub(crate) strides: Vec<usize>,
}

/// How results are stored.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Store {
    /// As floats.
    Float,
    /// Rounded half to even, with the zero point added, cut to the type's range.
    Quantized {
        /// i8 or u8.
        dtype: DType,
        /// Zero point.
        zero: i32,
    },
}

/// An expression over whole tensors. The result is dense.
#[derive(Debug, Clone)]
pub(crate) struct Elementwise {
    /// Name for reports.
    pub(crate) name: &'static str,
    /// Extent, outermost first.
    pub(crate) dims: Vec<usize>,
    /// Operands.
    pub(crate) operands: Vec<Operand>,
    /// The expression.
    pub(crate) expr: Expr,
    /// Result.
    pub(crate) dst: Ref,
    /// Its form.
    pub(crate) store: Store,
}

impl Elementwise {
    /// The same with as few dimensions as possible.
    pub(crate) fn simplified(mut self) -> Self {
        let mut dims: Vec<usize> = Vec::new();
        let mut strides: Vec<Vec<usize>> = vec![Vec::new(); self.operands.len()];
        for (i, &n) in self.dims.iter().enumerate().filter(|(_, n)| **n != 1) {
            let of = |o: &Operand| o.strides[i];
            let merges =
                |(o, s): (&Operand, &Vec<usize>)| s.last().is_some_and(|l| *l == of(o) * n);
            let all = self.operands.iter().zip(&strides).all(merges);
            match dims.last_mut() {
                Some(last) if all => {
                    *last *= n;
                    let each = self.operands.iter().zip(&mut strides);
                    each.for_each(|(o, s)| {
                        s.pop();
                        s.push(of(o));
                    });
                }
                _ => {
                    dims.push(n);
                    self.operands
                        .iter()
                        .zip(&mut strides)
                        .for_each(|(o, s)| s.push(of(o)));
                }
            }
        }
        if dims.is_empty() {
            dims.push(1);
            strides.iter_mut().for_each(|s| s.push(0));
        }
        self.dims = dims;
        self.operands
            .iter_mut()
            .zip(strides)
            .for_each(|(o, s)| o.strides = s);
        self
    }

    fn out_bytes(&self) -> usize {
        match self.store {
            Store::Float => 4,
            Store::Quantized { .. } => 1,
        }
    }

    /// Pushes four elements of an operand as floats.
    fn load(&self, f: &mut Func<'_>, index: usize, pointer: Local) {
        let operand = &self.operands[index];
        let single = operand.strides.last() == Some(&0);
        match (operand.dtype, single) {
            (DType::I8 | DType::U8, true) => {
                f.get(pointer);
                f.op(if operand.dtype == DType::I8 {
                    I::I32Load8S(at(0))
                } else {
                    I::I32Load8U(at(0))
                });
                f.op(I::I32x4Splat);
            }
            (DType::I8, false) => {
                f.get(pointer).op(I::V128Load32Zero(at(0)));
                f.op(I::I16x8ExtendLowI8x16S).op(I::I32x4ExtendLowI16x8S);
            }
            (DType::U8, false) => {
                f.get(pointer).op(I::V128Load32Zero(at(0)));
                f.op(I::I16x8ExtendLowI8x16U).op(I::I32x4ExtendLowI16x8U);
            }
            (_, true) => {
                f.load_splat(pointer, 0);
            }
            (_, false) => {
                f.load(pointer, 0);
            }
        }
        if operand.dtype != DType::F32 {
            f.op(I::F32x4ConvertI32x4S);
        }
    }

    fn value(&self, f: &mut Func<'_>, expr: &Expr, pointers: &[Local]) {
        let pair = |f: &mut Func<'_>, a: &Expr, b: &Expr, op: I<'static>| {
            self.value(f, a, pointers);
            self.value(f, b, pointers);
            f.op(op);
        };
        match expr {
            Expr::In(index) => self.load(f, *index, pointers[*index]),
            Expr::Const(value) => {
                f.floats(*value);
            }
            Expr::Add(a, b) => pair(f, a, b, I::F32x4Add),
            Expr::Sub(a, b) => pair(f, a, b, I::F32x4Sub),
            Expr::Mul(a, b) => pair(f, a, b, I::F32x4Mul),
            Expr::Div(a, b) => pair(f, a, b, I::F32x4Div),
            Expr::Round(a) => {
                self.value(f, a, pointers);
                f.op(I::F32x4Nearest);
            }
            Expr::Curve(curve, a) => {
                self.value(f, a, pointers);
                curve.apply(f);
            }
            Expr::Cut(a, clamp) => {
                self.value(f, a, pointers);
                f.clamp(clamp.low, clamp.high);
            }
        }
    }

    /// Computes and stores `count` elements, at most four.
    fn step(
        &self,
        f: &mut Func<'_>,
        pointers: &[Local],
        (dst, result): (Local, Local),
        count: usize,
    ) {
        if count == 0 {
            return;
        }
        self.value(f, &self.expr, pointers);
        if let Store::Quantized { dtype, zero } = self.store {
            let (low, high) = range(dtype);
            f.quantize(zero, low, high, result)
                .narrow(false, dtype, result);
        }
        f.set(result);
        f.store_bytes(dst, 0, result, count * self.out_bytes());
        for (pointer, operand) in pointers.iter().zip(&self.operands) {
            let stride = operand.strides.last().copied().unwrap_or(0);
            f.bump(
                *pointer,
                (count * stride * operand.dtype.size_bytes()) as i64,
            );
        }
        f.bump(dst, (count * self.out_bytes()) as i64);
    }
}

impl Kernel for Elementwise {
    fn name(&self) -> &'static str {
        self.name
    }

    fn reads(&self) -> Vec<Ref> {
        self.operands.iter().map(|o| o.at).collect()
    }

    fn writes(&self) -> Vec<Ref> {
        vec![self.dst]
    }

    fn shares(&self) -> bool {
        true
    }

    fn elementwise(&self) -> Option<&Elementwise> {
        Some(self)
    }

    fn emit(&self, f: &mut Func<'_>) {
        let pointers: Vec<Local> = self.operands.iter().map(|o| f.pointer(o.at, 0)).collect();
        let (dst, result) = (f.pointer(self.dst, 0), f.v128());
        let Some((&inner, outer)) = self.dims.split_last() else {
            return;
        };
        let bytes = |o: &Operand, i: usize| (o.strides[i] * o.dtype.size_bytes()) as i64;
        let last = outer.len();
        // The inner loop moves the operands forward; the destination simply runs on.
        let row = |f: &mut Func<'_>| {
            f.repeat(inner / 4, |f| self.step(f, &pointers, (dst, result), 4));
            if inner % 4 > 0 {
                self.step(f, &pointers, (dst, result), inner % 4);
            }
            for (pointer, operand) in pointers.iter().zip(&self.operands) {
                f.bump(*pointer, -(inner as i64) * bytes(operand, last));
            }
        };
        let operands = || pointers.iter().copied().zip(&self.operands);
        let Some((&first, within)) = outer.split_first() else {
            let each = operands().map(|(p, o)| (p, 4 * bytes(o, 0)));
            let moving: Vec<_> = each.chain([(dst, 4 * self.out_bytes() as i64)]).collect();
            f.share(inner / 4, &moving, |f| {
                self.step(f, &pointers, (dst, result), 4);
            });
            f.last_part(|f| self.step(f, &pointers, (dst, result), inner % 4));
            return;
        };
        let moving: Vec<_> = operands()
            .map(|(p, o)| (p, (1..last).map(|i| bytes(o, i)).collect::<Vec<_>>()))
            .collect();
        let within_bytes = (within.iter().product::<usize>() * inner * self.out_bytes()) as i64;
        let each = operands().map(|(p, o)| (p, bytes(o, 0)));
        let shared: Vec<_> = each.chain([(dst, within_bytes)]).collect();
        f.share(first, &shared, |f| {
            f.nest(within, &moving, &mut |f| row(f));
            operands().for_each(|(p, o)| f.bump(p, bytes(o, 0)));
        });
    }
}
