//! Moving elements: transposition, slices, padding, joining.

use super::Kernel;
use crate::emit::{Func, Local, Ref, at};
use wasm_encoder::Instruction as I;

/// From this many consecutive bytes on, the host's own copy is faster than a loop of vectors.
const BULK_BYTES: usize = 1024;

/// Copies an array of elements between two layouts.
#[derive(Debug, Clone)]
pub(crate) struct Copy {
    /// Name for reports.
    pub(crate) name: &'static str,
    /// Source.
    pub(crate) src: Ref,
    /// Destination.
    pub(crate) dst: Ref,
    /// Bytes of an element: 1, 4 or 8.
    pub(crate) size: usize,
    /// Extent, outermost first.
    pub(crate) dims: Vec<usize>,
    /// Byte offset of the first element, and bytes from one to the next by dimension, in the
    /// source.
    pub(crate) from: (u32, Vec<i64>),
    /// The same in the destination.
    pub(crate) to: (u32, Vec<i64>),
    /// Bytes of the destination that are filled with a byte first: (byte, number).
    pub(crate) fill: Option<(Fill, usize)>,
}

/// What padding is filled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fill {
    /// This byte.
    Byte(u8),
    /// The byte that lies there at run time.
    At(Ref),
}

impl Copy {
    /// The same without dimensions of 1, and with neighbours merged that are consecutive on both
    /// sides.
    pub(crate) fn simplified(mut self) -> Self {
        let mut dims: Vec<usize> = Vec::new();
        let (mut from, mut to): (Vec<i64>, Vec<i64>) = (Vec::new(), Vec::new());
        for (i, &n) in self.dims.iter().enumerate().filter(|(_, n)| **n != 1) {
            let (f, t) = (self.from.1[i], self.to.1[i]);
            match (dims.last_mut(), from.last_mut(), to.last_mut()) {
                (Some(d), Some(pf), Some(pt)) if *pf == f * n as i64 && *pt == t * n as i64 => {
                    (*d, *pf, *pt) = (*d * n, f, t);
                }
                _ => {
                    dims.push(n);
                    from.push(f);
                    to.push(t);
                }
            }
        }
        (self.dims, self.from.1, self.to.1) = (dims, from, to);
        self
    }

    /// Consecutive bytes that are moved as one.
    fn run(&self) -> usize {
        let size = self.size as i64;
        match (self.dims.last(), self.from.1.last(), self.to.1.last()) {
            (Some(n), Some(f), Some(t)) if *f == size && *t == size => n * self.size,
            _ => self.size,
        }
    }
}

/// Moves `bytes` consecutive bytes; leaves the pointers in place.
pub(super) fn consecutive(f: &mut Func<'_>, src: Local, dst: Local, bytes: usize) {
    if bytes >= BULK_BYTES {
        f.get(dst).get(src).int(bytes as i32);
        f.op(I::MemoryCopy {
            src_mem: 0,
            dst_mem: 0,
        });
        return;
    }
    let vectors = bytes / 16;
    let (from, to) = if vectors > 1 {
        (f.copy_of(src), f.copy_of(dst))
    } else {
        (src, dst)
    };
    f.repeat(vectors, |f| {
        f.get(to).load(from, 0).op(I::V128Store(at(0)));
        if vectors > 1 {
            f.bump(from, 16);
            f.bump(to, 16);
        }
    });
    let mut done = if vectors == 1 { 16 } else { 0 };
    let mut rest = bytes % 16;
    for size in [8, 4, 2, 1] {
        if rest >= size {
            f.get(to).get(from);
            match size {
                8 => f.op(I::I64Load(at(done))).op(I::I64Store(at(done))),
                4 => f.op(I::I32Load(at(done))).op(I::I32Store(at(done))),
                2 => f.op(I::I32Load16U(at(done))).op(I::I32Store16(at(done))),
                _ => f.op(I::I32Load8U(at(done))).op(I::I32Store8(at(done))),
            };
            done += size as u32;
            rest -= size;
        }
    }
}

impl Kernel for Copy {
    fn name(&self) -> &'static str {
        self.name
    }

    fn reads(&self) -> Vec<Ref> {
        match self.fill {
            Some((Fill::At(byte), _)) => vec![self.src, byte],
            _ => vec![self.src],
        }
    }

    fn writes(&self) -> Vec<Ref> {
        vec![self.dst]
    }

    fn shares(&self) -> bool {
        self.fill.is_none()
    }

    fn emit(&self, f: &mut Func<'_>) {
        if let Some((byte, bytes)) = self.fill {
            let all = f.pointer(self.dst, 0);
            f.get(all);
            match byte {
                Fill::Byte(byte) => f.int(i32::from(byte)),
                Fill::At(place) => {
                    let place = f.pointer(place, 0);
                    f.get(place).op(I::I32Load8U(at(0)))
                }
            };
            f.int(bytes as i32).op(I::MemoryFill(0));
        }
        let (src, dst) = (
            f.pointer(self.src, self.from.0),
            f.pointer(self.dst, self.to.0),
        );
        let run = self.run();
        let outer = if run > self.size {
            self.dims.len() - 1
        } else {
            self.dims.len()
        };
        let (dims, [x, y]) = (&self.dims[..outer], [&self.from.1, &self.to.1]);
        let strides = |all: &[i64]| all[..outer].to_vec();
        let pointers = [(src, strides(x)), (dst, strides(y))];
        match dims.split_first() {
            Some((first, inner)) if self.shares() => {
                let pointers = pointers.map(|(p, strides)| (p, strides[1..].to_vec()));
                let moving = [(src, x[0]), (dst, y[0])];
                f.share(*first, &moving, |f| {
                    f.nest(inner, &pointers, &mut |f| consecutive(f, src, dst, run));
                    moving.iter().for_each(|(p, bytes)| f.bump(*p, *bytes));
                });
            }
            None if self.shares() => f.first_part(|f| consecutive(f, src, dst, run)),
            _ => f.nest(dims, &pointers, &mut |f| consecutive(f, src, dst, run)),
        }
    }
}
