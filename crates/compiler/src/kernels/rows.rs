//! Vectors along a row of consecutive floats: what softmax, reductions and normalisation share.

use crate::emit::{Func, Local};
use wasm_encoder::Instruction as I;

/// Vectors that are summed side by side: with one, each addition would wait for the one before.
const SIDE: usize = 4;
/// Elements that are summed in 32 bits; the sums of such blocks are added in 64 bits, so that an
/// element sees at most 20 roundings of 32 bits, however long the row is.
const BLOCK: usize = 256;

/// All ones in the first `count` lanes.
pub(super) fn mask(count: usize) -> I<'static> {
    let ones = (1u128 << (32 * count)) - 1;
    I::V128Const(ones as i128)
}

/// Pushes the lanes of two variables in this order; lanes of the second count from 4.
pub(super) fn shuffled(f: &mut Func<'_>, a: Local, b: Local, lanes: [u8; 4]) {
    let mut bytes = [0u8; 16];
    for (i, byte) in bytes.iter_mut().enumerate() {
        *byte = lanes[i / 4] * 4 + (i % 4) as u8;
    }
    f.get(a).get(b).op(I::I8x16Shuffle(bytes));
}

/// Reduces a variable so that all of its lanes hold the result.
pub(super) fn reduce(f: &mut Func<'_>, vector: Local, op: &I<'static>) {
    for lanes in [[2, 3, 0, 1], [1, 0, 3, 2]] {
        f.get(vector);
        shuffled(f, vector, vector, lanes);
        f.op(op.clone()).set(vector);
    }
}

/// Calls `body(elements of the vector)` for the vectors of `len` floats, moving `pointers` along and
/// back.
pub(super) fn along(
    f: &mut Func<'_>,
    len: usize,
    pointers: &[Local],
    body: &dyn Fn(&mut Func<'_>, usize),
) {
    f.repeat(len / 4, |f| {
        body(f, 4);
        pointers.iter().for_each(|p| f.bump(*p, 16));
    });
    if !len.is_multiple_of(4) {
        body(f, len % 4);
    }
    pointers
        .iter()
        .for_each(|p| f.bump(*p, -16 * (len / 4) as i64));
}

/// The sum of a function of a row's elements.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sum {
    parts: [Local; SIDE],
    /// The result, a 64-bit float.
    pub(super) total: Local,
}

impl Sum {
    /// With variables of its own.
    pub(super) fn new(f: &mut Func<'_>) -> Self {
        Self {
            parts: [(); SIDE].map(|()| f.v128()),
            total: f.local(wasm_encoder::ValType::F64),
        }
    }

    /// Sums `len` floats from `pointer` on, each after `term`, which replaces the vector that was
    /// pushed.
    pub(super) fn row(
        self,
        f: &mut Func<'_>,
        pointer: Local,
        len: usize,
        term: &dyn Fn(&mut Func<'_>),
    ) {
        f.op(I::F64Const(0.0.into())).set(self.total);
        let at = f.copy_of(pointer);
        f.repeat(len / BLOCK, |f| self.block(f, at, BLOCK, term));
        if !len.is_multiple_of(BLOCK) {
            self.block(f, at, len % BLOCK, term);
        }
    }

    /// Adds a block to the total, and moves behind it.
    fn block(self, f: &mut Func<'_>, at: Local, len: usize, term: &dyn Fn(&mut Func<'_>)) {
        let add = |f: &mut Func<'_>, i: usize, used: usize| {
            f.get(self.parts[i]).load(at, 16 * i as u32);
            term(f);
            if used < 4 {
                f.op(mask(used)).op(I::V128And);
            }
            f.op(I::F32x4Add).set(self.parts[i]);
        };
        for part in self.parts {
            f.floats(0.0).set(part);
        }
        let vectors = len / 4;
        f.repeat(vectors / SIDE, |f| {
            (0..SIDE).for_each(|i| add(f, i, 4));
            f.bump(at, 16 * SIDE as i64);
        });
        let rest = vectors % SIDE;
        (0..rest).for_each(|i| add(f, i, 4));
        if !len.is_multiple_of(4) {
            add(f, rest, len % 4);
        }
        f.bump(at, (16 * rest + 4 * (len % 4)) as i64);
        let [a, b, c, d] = self.parts;
        f.get(a).get(b).op(I::F32x4Add);
        f.get(c).get(d).op(I::F32x4Add);
        f.op(I::F32x4Add).set(a);
        reduce(f, a, &I::F32x4Add);
        f.get(self.total).get(a).op(I::F32x4ExtractLane(0));
        f.op(I::F64PromoteF32).op(I::F64Add).set(self.total);
    }
}
