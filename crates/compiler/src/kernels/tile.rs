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

use super::rows::shuffled;
use super::{Element, Pixels};
use crate::emit::{Func, Local, at};
use wasm_encoder::{BlockType, Instruction as I};

/// Steps of one turn of the innermost loop.
const UNROLL: usize = 4;
/// A window of at most so many steps is no loop.
const STRAIGHT: usize = 36;
/// Vectors of sums: on x86 there are 16 registers, and more than 8 sums would not all stay there.
const SUMS: usize = 8;

/// How activations and weights are multiplied. Weights of a step lie together: `[channel][element]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Floats, one to a step.
    Floats,
    /// Integers of 16 bits, two to a step.
    Words {
        /// Weights do not fit 8 bits, and lie as 16.
        wide: bool,
    },
    /// Bytes, four to a step, which activations hold as the host multiplies them
    /// ([`Func::signed_bytes`]). So many steps follow a window whose activations lie anywhere in it.
    Bytes {
        /// Those steps.
        more: usize,
    },
    /// Activations of 16 bits with the weights of [`Mode::Bytes`], four to a step. Sums are by half of
    /// a step: two channels to a vector. At most so many channels are summed together: 4 or 8.
    Widened {
        /// Those channels.
        together: usize,
    },
}

/// In front of the weights of a step that follows a window: the offset of its activations from the
/// first of the window, and padding.
pub(crate) const STEP_HEAD: usize = 16;

impl Mode {
    /// That multiplies these, where no byte is multiplied as such.
    pub(crate) fn of(element: Element) -> Self {
        match element {
            Element::F32 => Self::Floats,
            Element::Int { wide, .. } => Self::Words { wide },
        }
    }

    /// Elements of a step.
    pub(crate) fn elements(self) -> usize {
        match self {
            Self::Floats => 1,
            Self::Words { .. } => 2,
            Self::Bytes { .. } | Self::Widened { .. } => 4,
        }
    }

    /// Bytes of an activation.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Floats => 4,
            Self::Words { .. } | Self::Widened { .. } => 2,
            Self::Bytes { .. } => 1,
        }
    }

    /// Bytes of weights of a channel for a step.
    pub(crate) fn weights(self) -> usize {
        match self {
            Self::Words { wide: false } => 2,
            _ => 4,
        }
    }

    /// Channels that are summed together, in a panel of this width.
    pub(crate) fn channels(self, width: usize) -> usize {
        match self {
            Self::Widened { together } => together.min(width),
            _ => width,
        }
    }

    /// Pixels of a tile whose channels fill panels of this width.
    pub(crate) fn pixels(self, width: usize) -> usize {
        let vectors = match self {
            Self::Widened { .. } => self.channels(width) / 2,
            _ => width / 4,
        };
        (SUMS / vectors).min(4)
    }
}

/// What a tile needs to know.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tile {
    /// How it multiplies.
    pub(crate) mode: Mode,
    /// Bytes from one pixel's window to the next.
    pub(crate) pixel: usize,
    /// Steps of a run.
    pub(crate) steps: usize,
    /// Channels of a panel.
    pub(crate) width: usize,
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
    pub(crate) fn new(f: &mut Func<'_>, mode: Mode, width: usize) -> Self {
        let vectors = match mode {
            Mode::Widened { .. } => mode.channels(width) / 2,
            _ => width / 4,
        };
        let pixels = mode.pixels(width);
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
    pub(crate) fn of(mode: Mode, pixels: &Pixels, run: usize, width: usize) -> Self {
        Self {
            mode,
            pixel: pixels.steps[2],
            steps: run.div_ceil(mode.elements()),
            width,
        }
    }

    /// Bytes of weights for a step.
    fn right_bytes(&self) -> usize {
        self.width * self.mode.weights()
    }

    /// Bytes of weights for a run.
    fn run_bytes(&self) -> usize {
        self.steps * self.right_bytes()
    }

    /// Bytes of activations for a step.
    fn left_bytes(&self) -> usize {
        self.mode.elements() * self.mode.bytes()
    }

    /// Bytes of weights for a window of so many runs.
    pub(crate) fn window_bytes(&self, runs: usize) -> usize {
        let more = match self.mode {
            Mode::Bytes { more } => more * (STEP_HEAD + self.right_bytes()),
            _ => 0,
        };
        runs * self.run_bytes() + more
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
        let first = f.copy_of(pointers.0);
        if outer * inner * self.steps <= STRAIGHT {
            f.op(I::Block(BlockType::Empty));
            for tap in 0..outer * inner {
                let left = tap / inner * outer_step + tap % inner * inner_step;
                let offsets = (left, tap * self.run_bytes());
                for k in 0..self.steps {
                    self.step(f, r, pointers, size, (k, offsets));
                    f.get(r.never).rarely_leave(0);
                }
            }
            f.op(I::End);
            f.bump(pointers.1, (outer * inner * self.run_bytes()) as i64);
        } else {
            let (left, _) = pointers;
            f.repeat(outer, |f| {
                f.repeat(inner, |f| {
                    self.run(f, r, pointers, size);
                    f.bump(left, inner_step as i64);
                });
                f.bump(left, outer_step as i64 - (inner * inner_step) as i64);
            });
        }
        if let Mode::Bytes { more } = self.mode {
            let (left, right) = pointers;
            f.repeat(more, |f| {
                f.get(right).op(I::I32Load(at(0)));
                f.get(first).op(I::I32Add).set(left);
                self.step(f, r, pointers, size, (0, (0, STEP_HEAD)));
                f.bump(right, (STEP_HEAD + self.right_bytes()) as i64);
            });
        }
    }

    /// Adds the products of a run. `left` ends where it began, `right` behind the weights of the
    /// run.
    fn run(&self, f: &mut Func<'_>, r: &Registers, (left, right): (Local, Local), size: usize) {
        let step_bytes = self.right_bytes();
        f.op(I::Block(BlockType::Empty));
        let count = f.i32();
        f.int(self.steps as i32).set(count);
        f.op(I::Loop(BlockType::Empty));
        for k in 0..UNROLL {
            self.step(f, r, (left, right), size, (k, (0, 0)));
            f.get(count).int(k as i32 + 1).op(I::I32Eq).rarely_leave(1);
        }
        let left_bytes = (UNROLL * self.left_bytes()) as i64;
        let right_bytes = (UNROLL * step_bytes) as i64;
        f.bump(left, left_bytes);
        f.bump(right, right_bytes);
        f.bump(count, -(UNROLL as i64));
        f.op(I::Br(0)).op(I::End).op(I::End);
        let turns = (self.steps.div_ceil(UNROLL) - 1) as i64;
        f.bump(left, -turns * left_bytes);
        f.bump(right, self.run_bytes() as i64 - turns * right_bytes);
    }

    /// Step `k` behind these offsets: four bytes of each pixel, or eight.
    fn step(
        &self,
        f: &mut Func<'_>,
        r: &Registers,
        (left, right): (Local, Local),
        size: usize,
        (k, (left_offset, right_offset)): (usize, (usize, usize)),
    ) {
        let offset = (right_offset + k * self.right_bytes()) as u32;
        for (v, vector) in (0..).zip(&r.right) {
            match self.mode {
                Mode::Widened { .. } | Mode::Words { wide: false } => {
                    f.get(right).op(I::V128Load8x8S(at(offset + 8 * v)))
                }
                _ => f.load(right, offset + 16 * v),
            };
            f.set(*vector);
        }
        let left_offset = left_offset + k * self.left_bytes();
        for (i, spread) in r.left[..size].iter().enumerate() {
            let offset = (left_offset + i * self.pixel) as u32;
            match self.mode {
                Mode::Widened { .. } => f.get(left).op(I::V128Load64Splat(at(offset))),
                _ => f.load_splat(left, offset),
            };
            f.set(*spread);
            f.get(r.never).rarely(|f| {
                f.ints(0).set(*spread);
            });
        }
        for (i, (sums, spread)) in r.sums[..size].iter().zip(&r.left).enumerate() {
            for (sum, right) in sums.iter().zip(&r.right) {
                match self.mode {
                    Mode::Floats => {
                        // On x86 the first factor is overwritten: the last pixel is done with the
                        // weights, the others copy what is spread.
                        let (a, b) = if i + 1 == size {
                            (right, spread)
                        } else {
                            (spread, right)
                        };
                        f.get(*a).get(*b).get(*sum).op(I::F32x4RelaxedMadd);
                    }
                    Mode::Bytes { .. } => {
                        // Activations are the second operand: that is the one that hosts disagree
                        // about.
                        f.get(*right).get(*spread).get(*sum);
                        f.op(I::I32x4RelaxedDotI8x16I7x16AddS);
                    }
                    Mode::Words { .. } | Mode::Widened { .. } => {
                        f.get(*sum).get(*spread).get(*right);
                        f.op(I::I32x4DotI16x8S).op(I::I32x4Add);
                    }
                }
                f.set(*sum);
            }
        }
    }

    fn widened(&self) -> bool {
        matches!(self.mode, Mode::Widened { .. })
    }

    /// Begins the sums of a pixel.
    pub(crate) fn begin(
        &self,
        f: &mut Func<'_>,
        sums: &[Local],
        bias: &dyn Fn(&mut Func<'_>, usize),
    ) {
        for (v, sum) in sums.iter().enumerate() {
            if self.widened() {
                f.ints(0);
            } else {
                bias(f, v);
            }
            f.set(*sum);
        }
    }

    /// Ends them; gives those that hold four channels each.
    pub(crate) fn end<'a>(
        &self,
        f: &mut Func<'_>,
        sums: &'a [Local],
        bias: &dyn Fn(&mut Func<'_>, usize),
    ) -> &'a [Local] {
        if !self.widened() {
            return sums;
        }
        for (v, halves) in sums.chunks_exact(2).enumerate() {
            shuffled(f, halves[0], halves[1], [0, 2, 4, 6]);
            shuffled(f, halves[0], halves[1], [1, 3, 5, 7]);
            f.op(I::I32x4Add);
            bias(f, v);
            f.op(I::I32x4Add).set(sums[v]);
        }
        &sums[..sums.len() / 2]
    }
}
