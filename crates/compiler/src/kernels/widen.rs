//! From bytes to integers of 16 bits, with padding around: what [`super::Dense`] reads.

use super::Kernel;
use crate::emit::{Func, Local, Ref, at};
use sandpiper_core::tensor::DType;
use wasm_encoder::Instruction as I;

/// Widens images of rows.
#[derive(Debug, Clone)]
pub(crate) struct Widen {
    /// Source: dense bytes, channels last.
    pub(crate) src: Ref,
    /// Result, dense.
    pub(crate) dst: Ref,
    /// i8 or u8.
    pub(crate) dtype: DType,
    /// Number of images.
    pub(crate) images: usize,
    /// Rows of an image.
    pub(crate) rows: usize,
    /// Elements of a row.
    pub(crate) row: usize,
    /// Rows of padding above and below.
    pub(crate) around: [usize; 2],
    /// Elements of padding before and behind each row.
    pub(crate) beside: [usize; 2],
    /// What padding is filled with.
    pub(crate) fill: i16,
}

impl Widen {
    /// The same with all elements in one row, where there is no padding.
    pub(crate) fn merged(self) -> Self {
        if self.around != [0, 0] || self.beside != [0, 0] {
            return self;
        }
        Self {
            images: 1,
            rows: 1,
            row: self.images * self.rows * self.row,
            ..self
        }
    }

    /// Elements of a row of the result.
    fn full_row(&self) -> usize {
        self.beside[0] + self.row + self.beside[1]
    }

    /// Stores `count` times what pads, and moves the pointer behind it.
    fn pad(&self, f: &mut Func<'_>, (dst, vector): (Local, Local), count: usize) {
        f.repeat(count / 8, |f| {
            f.get(dst).get(vector).op(I::V128Store(at(0)));
            f.bump(dst, 16);
        });
        f.store_bytes(dst, 0, vector, 2 * (count % 8));
        f.bump(dst, 2 * (count % 8) as i64);
    }

    /// Widens `count` elements, and moves the pointers behind them.
    fn widen(&self, f: &mut Func<'_>, (src, dst, wide): (Local, Local, Local), count: usize) {
        // Two at a time: half the turns.
        let some = |f: &mut Func<'_>, vectors: usize, rest: usize| {
            for v in 0..vectors as u32 {
                f.load_8_wide(src, 8 * v, self.dtype).set(wide);
                let bytes = if rest > 0 { 2 * rest } else { 16 };
                f.store_bytes(dst, 16 * v, wide, bytes);
            }
            let done = if rest > 0 { rest } else { 8 * vectors };
            f.bump(src, done as i64);
            f.bump(dst, 2 * done as i64);
        };
        f.repeat(count / 16, |f| some(f, 2, 0));
        if count % 16 >= 8 {
            some(f, 1, 0);
        }
        if count % 8 > 0 {
            some(f, 1, count % 8);
        }
    }
}

impl Kernel for Widen {
    fn name(&self) -> &'static str {
        "widen"
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
        let (src, dst) = (f.pointer(self.src, 0), f.pointer(self.dst, 0));
        let (fill, wide) = (f.v128(), f.v128());
        let lane = i32::from(self.fill.cast_unsigned());
        f.ints(lane | lane << 16).set(fill);
        if self.images == 1 && self.rows == 1 && self.around == [0, 0] && self.beside == [0, 0] {
            let blocks = self.row / 16;
            f.share(blocks, &[(src, 16), (dst, 32)], |f| {
                self.widen(f, (src, dst, wide), 16);
            });
            f.last_part(|f| self.widen(f, (src, dst, wide), self.row % 16));
            return;
        }
        let full = self.full_row();
        f.repeat(self.images, |f| {
            let (above, below) = (self.around[0] * full, self.around[1] * full);
            f.first_part(|f| {
                let dst = f.copy_of(dst);
                self.pad(f, (dst, fill), above);
            });
            f.bump(dst, 2 * above as i64);
            let (from, to) = (f.copy_of(src), f.copy_of(dst));
            let moving = [(from, self.row as i64), (to, 2 * full as i64)];
            f.share(self.rows, &moving, |f| {
                self.pad(f, (to, fill), self.beside[0]);
                self.widen(f, (from, to, wide), self.row);
                self.pad(f, (to, fill), self.beside[1]);
            });
            f.bump(src, (self.rows * self.row) as i64);
            f.bump(dst, (2 * self.rows * full) as i64);
            f.last_part(|f| {
                let dst = f.copy_of(dst);
                self.pad(f, (dst, fill), below);
            });
            f.bump(dst, 2 * below as i64);
        });
    }
}
