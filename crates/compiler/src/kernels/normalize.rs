//! Normalisation of rows of consecutive floats: less the mean, over the standard deviation.

use super::Kernel;
use super::rows::{Sum, along};
use crate::emit::{Func, Local, Ref, at};
use wasm_encoder::Instruction as I;

/// What a normalised element is multiplied with, and what is added to it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Affine {
    /// Nothing.
    None,
    /// A factor and a summand for each element of a row, the same for every row.
    Elements(Ref, Option<Ref>),
    /// A factor and a summand for each piece of a row; after so many rows they begin again.
    Pieces(Ref, Option<Ref>, usize),
}

/// Normalises each of `rows` rows of `pieces` times `len` floats.
#[derive(Debug, Clone)]
pub(crate) struct Normalize {
    /// Source.
    pub(crate) src: Ref,
    /// Result.
    pub(crate) dst: Ref,
    /// Number of rows; a multiple of the rows after which factors begin again.
    pub(crate) rows: usize,
    /// Pieces of a row.
    pub(crate) pieces: usize,
    /// Elements of a piece.
    pub(crate) len: usize,
    /// Whether the mean is taken away; else it counts as 0, and the root mean square is the divisor.
    pub(crate) centred: bool,
    /// Is added to the variance.
    pub(crate) epsilon: f64,
    /// Factors and summands.
    pub(crate) affine: Affine,
    /// Where mean and inverted deviation of each row go.
    pub(crate) moments: [Option<Ref>; 2],
}

struct Locals {
    x: Local,
    y: Local,
    affine: [Option<Local>; 2],
    moments: [Option<Local>; 2],
    /// Mean, factor, summand, in all lanes.
    mean: Local,
    factor: Local,
    summand: Local,
    v: Local,
    sum: Sum,
}

impl Normalize {
    fn len(&self) -> usize {
        self.pieces * self.len
    }

    /// Mean and inverted deviation of the row at `x`, as vectors, and to where they are wanted.
    fn moments(&self, f: &mut Func<'_>, l: &Locals) {
        let count = I::F64Const((self.len() as f64).into());
        f.floats(0.0).set(l.mean);
        if self.centred {
            l.sum.row(f, l.x, self.len(), &|_| {});
            f.get(l.sum.total).op(count.clone()).op(I::F64Div);
            f.op(I::F32DemoteF64).op(I::F32x4Splat).set(l.mean);
        }
        l.sum.row(f, l.x, self.len(), &|f| {
            f.get(l.mean).op(I::F32x4Sub).set(l.v);
            f.get(l.v).get(l.v).op(I::F32x4Mul);
        });
        f.op(I::F64Const(1.0.into()));
        f.get(l.sum.total).op(count).op(I::F64Div);
        f.op(I::F64Const(self.epsilon.into())).op(I::F64Add);
        f.op(I::F64Sqrt).op(I::F64Div);
        f.op(I::F32DemoteF64).op(I::F32x4Splat).set(l.factor);
        for (moment, value) in l.moments.iter().zip([l.mean, l.factor]) {
            if let Some(moment) = moment {
                f.get(*moment).get(value).op(I::F32x4ExtractLane(0));
                f.op(I::F32Store(at(0)));
                f.bump(*moment, 4);
            }
        }
    }

    /// Stores `len` elements by mean, `factor` and `affine`, whose pointers run along if they are
    /// by element.
    fn store(&self, f: &mut Func<'_>, l: &Locals, factor: Local, len: usize) {
        let by_element = matches!(self.affine, Affine::Elements(..));
        let summand = l.affine[1];
        let mut pointers = vec![l.x, l.y];
        pointers.extend(l.affine.iter().flatten().filter(|_| by_element));
        along(f, len, &pointers, &|f, count| {
            f.load(l.x, 0).get(l.mean).op(I::F32x4Sub);
            f.get(factor).op(I::F32x4Mul);
            if let (true, Some(scale)) = (by_element, l.affine[0]) {
                f.load(scale, 0).op(I::F32x4Mul);
            }
            match (by_element, summand) {
                (true, Some(summand)) => {
                    f.load(summand, 0).op(I::F32x4Add);
                }
                (false, Some(_)) => {
                    f.get(l.summand).op(I::F32x4Add);
                }
                (_, None) => {}
            }
            f.set(l.v);
            f.store_bytes(l.y, 0, l.v, 4 * count);
        });
        f.bump(l.x, 4 * len as i64);
        f.bump(l.y, 4 * len as i64);
    }

    /// Moves along a row in pieces, each with its factor and summand.
    fn by_pieces(&self, f: &mut Func<'_>, l: &Locals) {
        let scaled = f.v128();
        f.repeat(self.pieces, |f| {
            f.get(l.factor).set(scaled);
            if let Some(scale) = l.affine[0] {
                f.get(l.factor).load_splat(scale, 0).op(I::F32x4Mul);
                f.set(scaled);
                f.bump(scale, 4);
            }
            if let Some(summand) = l.affine[1] {
                f.load_splat(summand, 0).set(l.summand);
                f.bump(summand, 4);
            }
            self.store(f, l, scaled, self.len);
        });
    }
}

impl Kernel for Normalize {
    fn name(&self) -> &'static str {
        "normalize"
    }

    fn reads(&self) -> Vec<Ref> {
        let (scale, bias) = match self.affine {
            Affine::None => (None, None),
            Affine::Elements(scale, bias) | Affine::Pieces(scale, bias, _) => (Some(scale), bias),
        };
        let all = [Some(self.src), scale, bias];
        all.into_iter().flatten().collect()
    }

    fn writes(&self) -> Vec<Ref> {
        let all = [Some(self.dst), self.moments[0], self.moments[1]];
        all.into_iter().flatten().collect()
    }

    fn shares(&self) -> bool {
        true
    }

    fn emit(&self, f: &mut Func<'_>) {
        let (affine, period) = match self.affine {
            Affine::None => ([None, None], 1),
            Affine::Elements(scale, bias) => ([Some(scale), bias], 1),
            Affine::Pieces(scale, bias, rows) => ([Some(scale), bias], rows),
        };
        let l = Locals {
            x: f.pointer(self.src, 0),
            y: f.pointer(self.dst, 0),
            affine: affine.map(|a| a.map(|a| f.pointer(a, 0))),
            moments: self.moments.map(|m| m.map(|m| f.pointer(m, 0))),
            mean: f.v128(),
            factor: f.v128(),
            summand: f.v128(),
            v: f.v128(),
            sum: Sum::new(f),
        };
        let by_pieces = matches!(self.affine, Affine::Pieces(..));
        // Rows are shared, or, where factors begin again, as many of them as have factors of their own.
        let together = if by_pieces { period.max(1) } else { 1 };
        let step = 4 * (together * self.len()) as i64;
        let mut moving = vec![(l.x, step), (l.y, step)];
        let moments = l.moments.iter().flatten();
        moving.extend(moments.map(|m| (*m, 4 * together as i64)));
        f.share(self.rows / together, &moving, |f| {
            f.repeat(together, |f| {
                self.moments(f, &l);
                match by_pieces {
                    true => self.by_pieces(f, &l),
                    false => self.store(f, &l, l.factor, self.len()),
                }
            });
            if by_pieces {
                let used = 4 * (together * self.pieces) as i64;
                l.affine.iter().flatten().for_each(|p| f.bump(*p, -used));
            }
        });
    }
}
