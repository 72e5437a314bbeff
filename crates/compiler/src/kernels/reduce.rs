//! Reductions of floats along one axis of [outer, len, inner]: along rows if nothing lies inside, else
//! four columns at a time.

use super::Kernel;
use super::rows::{Sum, along, mask, reduce, shuffled};
use crate::emit::{Func, Local, Ref, at};
use wasm_encoder::Instruction as I;

/// Elements of a column that are summed in 32 bits; the sums of such blocks are added in 64 bits.
const BLOCK: usize = 32;

/// Extremes of a row that are found side by side: with one, each comparison would wait for the one before.
const SIDE: usize = 4;

/// What becomes of the elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reduction {
    /// Their sum.
    Sum,
    /// Their mean.
    Mean,
    /// The sum of their magnitudes.
    L1,
    /// The root of the sum of their squares.
    L2,
    /// The sum of their squares.
    Squares,
    /// The least, or NaN if there is one.
    Least,
    /// The greatest, or NaN if there is one.
    Greatest,
}

/// A reduction of [outer, len, inner] to [outer, inner].
#[derive(Debug, Clone)]
pub(crate) struct Reduce {
    /// Name for reports.
    pub(crate) name: &'static str,
    /// Source.
    pub(crate) src: Ref,
    /// Result.
    pub(crate) dst: Ref,
    /// What is done.
    pub(crate) reduction: Reduction,
    /// Extents; the middle one goes.
    pub(crate) dims: [usize; 3],
}

impl Reduce {
    /// For an extreme: where it starts, and how two are compared.
    fn extreme(&self) -> Option<(f32, I<'static>)> {
        match self.reduction {
            Reduction::Least => Some((f32::INFINITY, I::F32x4Min)),
            Reduction::Greatest => Some((f32::NEG_INFINITY, I::F32x4Max)),
            _ => None,
        }
    }

    /// Replaces the vector that was pushed by what is summed. `v` is overwritten.
    fn term(&self, f: &mut Func<'_>, v: Local) {
        match self.reduction {
            Reduction::L1 => {
                f.op(I::F32x4Abs);
            }
            Reduction::L2 | Reduction::Squares => {
                f.set(v);
                f.get(v).get(v).op(I::F32x4Mul);
            }
            _ => {}
        }
    }

    fn row(&self, f: &mut Func<'_>, (x, y): (Local, Local), sum: Sum, v: Local) {
        let len = self.dims[1];
        f.get(y);
        if let Some((start, op)) = self.extreme() {
            let mosts = [(); SIDE].map(|()| f.v128());
            mosts.iter().for_each(|most| {
                f.floats(start).set(*most);
            });
            let [most, ..] = mosts;
            let blocks = len / (4 * SIDE);
            f.repeat(blocks, |f| {
                for (i, most) in mosts.iter().enumerate() {
                    f.get(*most).load(x, 16 * i as u32);
                    f.op(op.clone()).set(*most);
                }
                f.bump(x, 16 * SIDE as i64);
            });
            along(f, len % (4 * SIDE), &[x], &|f, count| {
                f.get(most).load(x, 0);
                if count < 4 {
                    f.floats(start).op(mask(count)).op(I::V128Bitselect);
                }
                f.op(op.clone()).set(most);
            });
            f.bump(x, -((blocks * 16 * SIDE) as i64));
            for other in &mosts[1..] {
                f.get(most).get(*other).op(op.clone()).set(most);
            }
            reduce(f, most, &op);
            f.get(most).op(I::F32x4ExtractLane(0));
        } else {
            sum.row(f, x, len, &|f| self.term(f, v));
            f.get(sum.total);
            match self.reduction {
                Reduction::Mean => {
                    f.op(I::F64Const((len as f64).into())).op(I::F64Div);
                }
                Reduction::L2 => {
                    f.op(I::F64Sqrt);
                }
                _ => {}
            }
            f.op(I::F32DemoteF64);
        }
        f.op(I::F32Store(at(0)));
        f.bump(x, 4 * len as i64);
        f.bump(y, 4);
    }

    /// Four columns from `x` on; `x` stays.
    fn columns(&self, f: &mut Func<'_>, (x, y): (Local, Local), c: &Columns, used: usize) {
        let [_, len, inner] = self.dims;
        let from = f.copy_of(x);
        let each = |f: &mut Func<'_>, times: usize, op: &I<'static>| {
            f.repeat(times, |f| {
                f.get(c.part).load(from, 0);
                self.term(f, c.v);
                f.op(op.clone()).set(c.part);
                f.bump(from, 4 * inner as i64);
            });
        };
        if let Some((start, op)) = self.extreme() {
            f.floats(start).set(c.part);
            each(f, len, &op);
        } else {
            c.sums.iter().for_each(|s| {
                f.floats(0.0).set(*s);
            });
            let block = |f: &mut Func<'_>, times: usize| {
                f.floats(0.0).set(c.part);
                each(f, times, &I::F32x4Add);
                for (sum, lanes) in c.sums.iter().zip([[0, 1, 2, 3], [2, 3, 0, 1]]) {
                    f.get(*sum);
                    shuffled(f, c.part, c.part, lanes);
                    f.op(I::F64x2PromoteLowF32x4).op(I::F64x2Add).set(*sum);
                }
            };
            f.repeat(len / BLOCK, |f| block(f, BLOCK));
            if !len.is_multiple_of(BLOCK) {
                block(f, len % BLOCK);
            }
            for sum in c.sums {
                f.get(sum);
                match self.reduction {
                    Reduction::Mean => {
                        f.op(I::F64Const((len as f64).into()));
                        f.op(I::F64x2Splat).op(I::F64x2Div);
                    }
                    Reduction::L2 => {
                        f.op(I::F64x2Sqrt);
                    }
                    _ => {}
                }
                f.op(I::F32x4DemoteF64x2Zero).set(sum);
            }
            shuffled(f, c.sums[0], c.sums[1], [0, 1, 4, 5]);
            f.set(c.part);
        }
        f.store_bytes(y, 0, c.part, 4 * used);
        f.bump(x, 4 * used as i64);
        f.bump(y, 4 * used as i64);
    }
}

struct Columns {
    part: Local,
    sums: [Local; 2],
    v: Local,
}

impl Kernel for Reduce {
    fn name(&self) -> &'static str {
        self.name
    }

    fn reads(&self) -> Vec<Ref> {
        vec![self.src]
    }

    fn writes(&self) -> Vec<Ref> {
        vec![self.dst]
    }

    fn shares(&self) -> bool {
        true
    }

    fn emit(&self, f: &mut Func<'_>) {
        let [outer, len, inner] = self.dims;
        let places = (f.pointer(self.src, 0), f.pointer(self.dst, 0));
        let v = f.v128();
        if inner == 1 {
            let sum = Sum::new(f);
            let moving = [(places.0, 4 * len as i64), (places.1, 4)];
            f.share(outer, &moving, |f| self.row(f, places, sum, v));
            return;
        }
        let c = Columns {
            part: f.v128(),
            sums: [f.v128(), f.v128()],
            v,
        };
        let moving = [
            (places.0, 4 * (len * inner) as i64),
            (places.1, 4 * inner as i64),
        ];
        f.share(outer, &moving, |f| {
            f.repeat(inner / 4, |f| self.columns(f, places, &c, 4));
            if !inner.is_multiple_of(4) {
                self.columns(f, places, &c, inner % 4);
            }
            f.bump(places.0, 4 * (len as i64 - 1) * inner as i64);
        });
    }
}
