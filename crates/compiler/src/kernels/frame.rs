//! Images with padding around, and bytes in the form in which they are multiplied: what windows go over.

use super::Kernel;
use super::copy::{Fill, consecutive};
use crate::emit::{Func, Local, Ref, at};
use sandpiper_core::tensor::DType;
use wasm_encoder::Instruction as I;

/// What becomes of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Elements of so many bytes stay as they are.
    Same(usize),
    /// Bytes of this type become integers of 16 bits.
    Widened(DType),
    /// Bytes of this type become what the host multiplies ([`Func::signed_bytes`]): 128 less, or more,
    /// where it takes them in the other way.
    Multiplied(DType),
}

impl Form {
    /// Bytes of an element before and after.
    pub(crate) fn bytes(self) -> (usize, usize) {
        match self {
            Self::Same(size) => (size, size),
            Self::Widened(_) => (1, 2),
            Self::Multiplied(_) => (1, 1),
        }
    }
}

/// Copies images, row by row, into the middle of larger ones.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    /// Name for reports.
    pub(crate) name: &'static str,
    /// Source, dense.
    pub(crate) src: Ref,
    /// Result, dense.
    pub(crate) dst: Ref,
    /// What becomes of an element.
    pub(crate) form: Form,
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
    /// The byte of which padding consists, before it is widened.
    pub(crate) fill: Fill,
}

impl Frame {
    fn padded(&self) -> bool {
        self.around != [0, 0] || self.beside != [0, 0]
    }

    /// Sets a vector full of padding.
    fn spread(&self, f: &mut Func<'_>, fill: Local, flip: Local) {
        let signed = self.form == Form::Widened(DType::I8);
        match self.fill {
            Fill::Byte(byte) if signed => f.int(byte.cast_signed().into()),
            Fill::Byte(byte) => f.int(byte.into()),
            Fill::At(place) => {
                let place = f.pointer(place, 0);
                f.get(place).op(if signed {
                    I::I32Load8S(at(0))
                } else {
                    I::I32Load8U(at(0))
                })
            }
        };
        f.op(match self.form {
            Form::Same(_) | Form::Multiplied(_) => I::I8x16Splat,
            Form::Widened(_) => I::I16x8Splat,
        });
        if let Form::Multiplied(_) = self.form {
            f.get(flip).op(I::V128Xor);
        }
        f.set(fill);
    }

    /// Stores so many bytes of padding, and moves the pointer behind them.
    fn pad(f: &mut Func<'_>, (dst, fill): (Local, Local), bytes: usize) {
        f.repeat(bytes / 16, |f| {
            f.get(dst).get(fill).op(I::V128Store(at(0)));
            f.bump(dst, 16);
        });
        f.store_bytes(dst, 0, fill, bytes % 16);
        f.bump(dst, (bytes % 16) as i64);
    }

    /// Brings over `count` elements, and moves the pointers behind them. `wide` is overwritten, or what
    /// bytes are flipped by.
    fn take(&self, f: &mut Func<'_>, (src, dst, wide): (Local, Local, Local), count: usize) {
        let (from, to) = self.form.bytes();
        let dtype = match self.form {
            Form::Widened(dtype) => dtype,
            Form::Multiplied(_) => {
                Self::flip(f, (src, dst, wide), count);
                return;
            }
            Form::Same(_) => {
                consecutive(f, src, dst, count * from);
                f.bump(src, (count * from) as i64);
                f.bump(dst, (count * to) as i64);
                return;
            }
        };
        let some = |f: &mut Func<'_>, count: usize| {
            for first in (0..count).step_by(8) {
                f.load_8_wide(src, first as u32, dtype).set(wide);
                let bytes = 2 * (count - first).min(8);
                f.store_bytes(dst, 2 * first as u32, wide, bytes);
            }
            f.bump(src, count as i64);
            f.bump(dst, 2 * count as i64);
        };
        f.repeat(count / BLOCK, |f| some(f, BLOCK));
        some(f, count % BLOCK);
    }

    /// The vector that brings bytes of this type into the form that the host multiplies.
    fn multiplied(f: &mut Func<'_>, dtype: DType, flip: Local) {
        f.signed_bytes();
        if dtype != DType::U8 {
            f.op(I::I32Eqz);
        }
        f.int(7).op(I::I32Shl).op(I::I8x16Splat).set(flip);
    }

    /// Brings over `count` bytes with some bits flipped, and moves the pointers behind them.
    fn flip(f: &mut Func<'_>, (src, dst, flip): (Local, Local, Local), count: usize) {
        let value = f.v128();
        let one = |f: &mut Func<'_>, count: usize| {
            f.load(src, 0).get(flip).op(I::V128Xor).set(value);
            f.store_bytes(dst, 0, value, count);
            f.bump(src, count as i64);
            f.bump(dst, count as i64);
        };
        f.repeat(count / 16, |f| one(f, 16));
        if !count.is_multiple_of(16) {
            one(f, count % 16);
        }
    }

    /// All elements without padding.
    fn whole(&self, f: &mut Func<'_>, (src, dst, wide): (Local, Local, Local)) {
        let count = self.images * self.rows * self.row;
        let (from, to) = self.form.bytes();
        let moving = [(src, (BLOCK * from) as i64), (dst, (BLOCK * to) as i64)];
        f.share(count / BLOCK, &moving, |f| {
            self.take(f, (src, dst, wide), BLOCK);
        });
        f.last_part(|f| self.take(f, (src, dst, wide), count % BLOCK));
    }
}

/// Elements that are widened in one turn.
const BLOCK: usize = 16;

impl Kernel for Frame {
    fn name(&self) -> &'static str {
        self.name
    }

    fn reads(&self) -> Vec<Ref> {
        match self.fill {
            Fill::Byte(_) => vec![self.src],
            Fill::At(byte) => vec![self.src, byte],
        }
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
        if let Form::Multiplied(dtype) = self.form {
            Self::multiplied(f, dtype, wide);
        }
        if !self.padded() {
            self.whole(f, (src, dst, wide));
            return;
        }
        self.spread(f, fill, wide);
        let (from, to) = self.form.bytes();
        let (row, beside) = (self.row, self.beside.map(|n| n * to));
        let full = beside[0] + row * to + beside[1];
        let around = self.around.map(|n| n * full);
        f.repeat(self.images, |f| {
            f.first_part(|f| {
                let dst = f.copy_of(dst);
                Self::pad(f, (dst, fill), around[0]);
            });
            f.bump(dst, around[0] as i64);
            let (x, y) = (f.copy_of(src), f.copy_of(dst));
            let moving = [(x, (row * from) as i64), (y, full as i64)];
            f.share(self.rows, &moving, |f| {
                Self::pad(f, (y, fill), beside[0]);
                self.take(f, (x, y, wide), row);
                Self::pad(f, (y, fill), beside[1]);
            });
            f.bump(src, (self.rows * row * from) as i64);
            f.bump(dst, (self.rows * full) as i64);
            f.last_part(|f| {
                let dst = f.copy_of(dst);
                Self::pad(f, (dst, fill), around[1]);
            });
            f.bump(dst, around[1] as i64);
        });
    }
}
