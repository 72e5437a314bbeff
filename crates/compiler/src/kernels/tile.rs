//! The innermost loop of convolutions and products: a tile of pixels by channels in registers.
//!
//! Its form follows from the code that Cranelift makes of it, which was read. Cranelift places a
//! pure instruction where the end of a block first needs it, behind all loads of the block, so a
//! block with several steps loads everything first and keeps the sums on the stack. And it folds a
//! load into the instruction that spreads it only if the spread value has one use. Hence:
//!
//! - after each step the loop may be left with the sums as they are, which makes them be computed
//!   there;
//! - each spread activation goes through a branch that is never taken, and so has one use: the
//!   branch. It costs one fused comparison, a shuffle of the vector units costs more;
//! - both kinds of branches are hinted to be rare, so that their code lies apart.
//!
//! Measured on an AMD EPYC (family 25, AVX2 and FMA, 3.2 GHz), 1x1 convolution of 276 to 276
//! channels: 14.8 multiply-accumulates per ns as one block of four steps with shuffles, 23.2 this
//! way; the same tile in hand-written assembly does 25.6.

use super::{Element, Pixels};
use crate::emit::{Func, Local, at};
use wasm_encoder::{BlockType, Instruction as I};

/// Steps of one turn of the innermost loop.
const UNROLL: usize = 4;
/// A window of at most so many steps is no loop.
const STRAIGHT: usize = 36;
/// Vectors of sums: on x86 there are 16 registers, and more than 8 sums would not all stay there.
const SUMS: usize = 8;

/// Pixels of a tile whose channels fill panels of this width.
pub(crate) fn pixels_of(width: usize) -> usize {
    if width == 4 { 4 } else { 4 * SUMS / width }
}

/// What a tile needs to know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tile {
    /// What is multiplied.
    pub(crate) element: Element,
    /// Bytes from one pixel's window to the next.
    pub(crate) pixel: usize,
    /// Steps of a run: one per element, or, of integers, one per two.
    pub(crate) steps: usize,
}

/// Its variables, for panels of one width.
pub(crate) struct Registers {
    /// Sums by pixel and vector of channels.
    pub(crate) sums: Vec<Vec<Local>>,
    /// Overwritten at will.
    pub(crate) scratch: Local,
    left: Vec<Local>,
    right: Vec<Local>,
    never: Local,
}

impl Registers {
    /// For panels of this width.
    pub(crate) fn new(f: &mut Func<'_>, width: usize) -> Self {
        let (pixels, vectors) = (pixels_of(width), width / 4);
        let mut some = |n: usize| -> Vec<Local> { (0..n).map(|_| f.v128()).collect() };
        Self {
            sums: (0..pixels).map(|_| some(vectors)).collect(),
            left: some(pixels),
            right: some(vectors),
            scratch: some(1)[0],
            never: f.never(),
        }
    }
}

impl Tile {
    pub(crate) fn of(element: Element, pixels: &Pixels, run: usize) -> Self {
        Self {
            element,
            pixel: pixels.steps[2],
            steps: match element {
                Element::F32 => run,
                Element::Int { .. } => run.div_ceil(2),
            },
        }
    }

    /// Bytes of weights for a step in a panel of this width.
    fn right_bytes(&self, width: usize) -> usize {
        match self.element {
            Element::Int { wide: false, .. } => 2 * width,
            _ => 4 * width,
        }
    }

    /// Bytes of weights for a run in a panel of this width.
    pub(crate) fn run_bytes(&self, width: usize) -> usize {
        self.steps * self.right_bytes(width)
    }

    /// Adds the products of all runs of a window to the sums of `size` pixels. `taps` are the runs:
    /// number and bytes between them, outer and inner. `left` and `right` are overwritten.
    pub(crate) fn window(
        &self,
        f: &mut Func<'_>,
        r: &Registers,
        pointers: (Local, Local),
        (size, taps): (usize, [(usize, usize); 2]),
    ) {
        let [(outer, outer_step), (inner, inner_step)] = taps;
        if outer * inner * self.steps <= STRAIGHT {
            let width = 4 * r.right.len();
            f.op(I::Block(BlockType::Empty));
            for tap in 0..outer * inner {
                let left = tap / inner * outer_step + tap % inner * inner_step;
                let offsets = (left, tap * self.run_bytes(width));
                for k in 0..self.steps {
                    self.step(f, r, pointers, size, (k, offsets));
                    f.get(r.never).rarely_leave(0);
                }
            }
            f.op(I::End);
            return;
        }
        let (left, _) = pointers;
        f.repeat(outer, |f| {
            f.repeat(inner, |f| {
                self.run(f, r, pointers, size);
                f.bump(left, inner_step as i64);
            });
            f.bump(left, outer_step as i64 - (inner * inner_step) as i64);
        });
    }

    /// Adds the products of a run. `left` ends where it began, `right` behind the weights of the
    /// run.
    fn run(&self, f: &mut Func<'_>, r: &Registers, (left, right): (Local, Local), size: usize) {
        let width = 4 * r.right.len();
        let step_bytes = self.right_bytes(width);
        f.op(I::Block(BlockType::Empty));
        let count = f.i32();
        f.int(self.steps as i32).set(count);
        f.op(I::Loop(BlockType::Empty));
        for k in 0..UNROLL {
            self.step(f, r, (left, right), size, (k, (0, 0)));
            f.get(count).int(k as i32 + 1).op(I::I32Eq).rarely_leave(1);
        }
        let (left_bytes, right_bytes) = ((4 * UNROLL) as i64, (UNROLL * step_bytes) as i64);
        f.bump(left, left_bytes);
        f.bump(right, right_bytes);
        f.bump(count, -(UNROLL as i64));
        f.op(I::Br(0)).op(I::End).op(I::End);
        let turns = (self.steps.div_ceil(UNROLL) - 1) as i64;
        f.bump(left, -turns * left_bytes);
        f.bump(right, self.run_bytes(width) as i64 - turns * right_bytes);
    }

    /// Step `k` behind these offsets: four bytes of each pixel, one float or two integers of 16
    /// bits.
    fn step(
        &self,
        f: &mut Func<'_>,
        r: &Registers,
        (left, right): (Local, Local),
        size: usize,
        (k, (left_offset, right_offset)): (usize, (usize, usize)),
    ) {
        let offset = (right_offset + k * self.right_bytes(4 * r.right.len())) as u32;
        for (v, vector) in (0..).zip(&r.right) {
            match self.element {
                Element::Int { wide: false, .. } => {
                    f.get(right).op(I::V128Load8x8S(at(offset + 8 * v)))
                }
                _ => f.load(right, offset + 16 * v),
            };
            f.set(*vector);
        }
        for (i, spread) in r.left[..size].iter().enumerate() {
            f.load_splat(left, (left_offset + i * self.pixel + 4 * k) as u32)
                .set(*spread);
            f.get(r.never).rarely(|f| {
                f.ints(0).set(*spread);
            });
        }
        for (i, (sums, spread)) in r.sums[..size].iter().zip(&r.left).enumerate() {
            for (sum, right) in sums.iter().zip(&r.right) {
                match self.element {
                    Element::F32 => {
                        // On x86 the first factor is overwritten: the last pixel is done with the
                        // weights, the others copy what is spread.
                        let (a, b) = if i + 1 == size {
                            (right, spread)
                        } else {
                            (spread, right)
                        };
                        f.get(*a).get(*b).get(*sum).op(I::F32x4RelaxedMadd);
                    }
                    Element::Int { .. } => {
                        f.get(*sum).get(*spread).get(*right);
                        f.op(I::I32x4DotI16x8S).op(I::I32x4Add);
                    }
                }
                f.set(*sum);
            }
        }
    }
}
