//! Products of matrices of floats that are not known before the module runs, as in attention.
//!
//! Nothing is packed: rows of the right operand are read as they lie, eight columns at a time, and each
//! element of the left one is spread over a register.

use super::Kernel;
use crate::emit::{Func, Local, Ref};
use crate::typed::Clamp;
use wasm_encoder::{BlockType, Instruction as I};

/// Rows of a tile.
const ROWS: usize = 4;
/// Columns of a tile: with four rows, 8 accumulators, more would spill on x86.
const COLUMNS: usize = 8;

/// Steps of one turn of the innermost loop.
const UNROLL: usize = 4;

/// Products over leading dimensions.
#[derive(Debug, Clone)]
pub(crate) struct Product {
    /// Left operand, right operand.
    pub(crate) sources: [Ref; 2],
    /// Result.
    pub(crate) dst: Ref,
    /// Leading dimensions.
    pub(crate) outer: Vec<usize>,
    /// Elements from one matrix to the next by leading dimension: left, right, result.
    pub(crate) steps: [Vec<usize>; 3],
    /// Rows, columns, inner size.
    pub(crate) sizes: [usize; 3],
    /// Limits of the result.
    pub(crate) clamp: Clamp,
}

impl Product {
    /// One tile of at most `ROWS` by `COLUMNS`, at these addresses of left, right and result.
    fn tile(
        &self,
        f: &mut Func<'_>,
        [left, right, dst]: [Local; 3],
        (rows, columns): (usize, usize),
    ) {
        let [_, all, inner] = self.sizes;
        let vectors = columns.div_ceil(4);
        let mut some = |n: usize| -> Vec<Local> { (0..n).map(|_| f.v128()).collect() };
        let sums: Vec<Vec<Local>> = (0..rows).map(|_| some(vectors)).collect();
        let (row, spread) = (some(vectors), some(rows));
        let never = f.never();
        for sum in sums.iter().flatten() {
            f.floats(0.0).set(*sum);
        }
        let (l, r) = (f.copy_of(left), f.copy_of(right));
        let step = |f: &mut Func<'_>, k: usize| {
            for (v, vector) in row.iter().enumerate() {
                f.load(r, (4 * k * all + 16 * v) as u32).set(*vector);
            }
            // As in `tile`: one use of what is spread, and the last row is done with the vectors.
            for (i, spread) in spread.iter().enumerate() {
                f.load_splat(l, (4 * (i * inner + k)) as u32).set(*spread);
                f.get(never).rarely(|f| {
                    f.ints(0).set(*spread);
                });
            }
            for (i, sums) in sums.iter().enumerate() {
                for (sum, vector) in sums.iter().zip(&row) {
                    let (a, b) = if i + 1 == rows {
                        (*vector, spread[i])
                    } else {
                        (spread[i], *vector)
                    };
                    f.get(a).get(b).get(*sum).op(I::F32x4RelaxedMadd);
                    f.set(*sum);
                }
            }
        };
        let steps = |f: &mut Func<'_>, count: usize| {
            // Leaving after each step has the sums computed there (see `tile`).
            f.op(I::Block(BlockType::Empty));
            for k in 0..count {
                step(f, k);
                f.get(never).rarely_leave(0);
            }
            f.op(I::End);
            f.bump(l, 4 * count as i64);
            f.bump(r, (4 * count * all) as i64);
        };
        f.repeat(inner / UNROLL, |f| steps(f, UNROLL));
        if !inner.is_multiple_of(UNROLL) {
            steps(f, inner % UNROLL);
        }
        for (i, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                f.get(*sum).clamp(self.clamp.low, self.clamp.high).set(*sum);
                let offset = (4 * i * all + 16 * v) as u32;
                f.store_bytes(dst, offset, *sum, 4 * (columns - 4 * v).min(4));
            }
        }
    }

    /// Some rows of the result.
    fn rows(&self, f: &mut Func<'_>, [left, right, dst]: [Local; 3], rows: usize) {
        let [_, columns, _] = self.sizes;
        let (b, y) = (f.copy_of(right), f.copy_of(dst));
        f.repeat(columns / COLUMNS, |f| {
            self.tile(f, [left, b, y], (rows, COLUMNS));
            f.bump(b, 4 * COLUMNS as i64);
            f.bump(y, 4 * COLUMNS as i64);
        });
        if !columns.is_multiple_of(COLUMNS) {
            self.tile(f, [left, b, y], (rows, columns % COLUMNS));
        }
    }
}

impl Kernel for Product {
    fn name(&self) -> &'static str {
        "matmul-f32"
    }

    fn reads(&self) -> Vec<Ref> {
        self.sources.to_vec()
    }

    fn writes(&self) -> Vec<Ref> {
        vec![self.dst]
    }

    fn shares(&self) -> bool {
        true
    }

    fn emit(&self, f: &mut Func<'_>) {
        let [rows, columns, inner] = self.sizes;
        let places = [self.sources[0], self.sources[1], self.dst].map(|r| f.pointer(r, 0));
        let bytes = |steps: &Vec<usize>| steps.iter().map(|s| 4 * *s as i64).collect::<Vec<_>>();
        let moving: Vec<_> = places
            .iter()
            .zip(&self.steps)
            .map(|(p, steps)| (*p, bytes(steps)))
            .collect();
        f.nest(&self.outer, &moving, &mut |f| {
            let [left, right, dst] = places.map(|p| f.copy_of(p));
            let moving = [(left, 4 * ROWS * inner), (dst, 4 * ROWS * columns)];
            let moving = moving.map(|(p, bytes)| (p, bytes as i64));
            f.share(rows / ROWS, &moving, |f| {
                self.rows(f, [left, right, dst], ROWS);
                moving.iter().for_each(|(p, bytes)| f.bump(*p, *bytes));
            });
            if !rows.is_multiple_of(ROWS) {
                f.last_part(|f| self.rows(f, [left, right, dst], rows % ROWS));
            }
        });
    }
}
