//! Depthwise convolutions: every channel by itself, four or eight of them in a vector.

use super::{Element, Finish, Kernel, Pixels};
use crate::emit::{Func, Local, Ref};
use sandpiper_core::tensor::DType;
use wasm_encoder::{BlockType, Instruction as I};

/// Most elements of a window: they are unrolled.
pub(crate) const MAX_DEPTHWISE_TAPS: usize = 49;
/// Pixels that are computed together, so that weights are read once for them.
const TILE: usize = 4;
/// 16-bit lanes 0..4 of two vectors, interleaved; then lanes 4..8.
const LOW: [u8; 16] = [0, 1, 16, 17, 2, 3, 18, 19, 4, 5, 20, 21, 6, 7, 22, 23];
const HIGH: [u8; 16] = [8, 9, 24, 25, 10, 11, 26, 27, 12, 13, 28, 29, 14, 15, 30, 31];

/// A depthwise convolution.
#[derive(Debug, Clone)]
pub(crate) struct Depthwise {
    /// Source with channels last, padded.
    pub(crate) src: Ref,
    /// Result, channels last.
    pub(crate) dst: Ref,
    /// Weights as `pack_depthwise` lays them out.
    pub(crate) weights: Ref,
    /// Bias in the type of the accumulators, a whole number of vectors.
    pub(crate) bias: Ref,
    /// What is multiplied.
    pub(crate) element: Element,
    /// What becomes of the sums.
    pub(crate) finish: Finish,
    /// Output pixels.
    pub(crate) pixels: Pixels,
    /// Offsets in bytes of a window's elements from its first.
    pub(crate) taps: Vec<u32>,
    /// Channels.
    pub(crate) channels: usize,
}

/// Channels that are computed together.
pub(crate) fn width(element: Element) -> usize {
    match element {
        Element::F32 => 4,
        Element::Int { .. } => 8,
    }
}

struct Registers {
    bias: Vec<Local>,
    scales: Vec<Local>,
    sums: Vec<Vec<Local>>,
    right: Vec<Local>,
    left: [Local; 2],
    address: [Local; 2],
    never: Local,
}

impl Depthwise {
    /// Bytes of weights of one vector of channels.
    fn block_bytes(&self) -> usize {
        match self.element {
            Element::F32 => self.taps.len() * 16,
            Element::Int { wide, .. } => self.taps.len().div_ceil(2) * if wide { 32 } else { 16 },
        }
    }

    fn registers(&self, f: &mut Func<'_>, vectors: usize) -> Registers {
        let scaled = self.finish.scales().is_some();
        let mut some = |n: usize| -> Vec<Local> { (0..n).map(|_| f.v128()).collect() };
        Registers {
            bias: some(vectors),
            scales: some(if scaled { vectors } else { 0 }),
            sums: (0..TILE).map(|_| some(vectors)).collect(),
            right: some(vectors),
            left: [some(1)[0], some(1)[0]],
            address: [f.i32(), f.i32()],
            never: f.never(),
        }
    }

    fn tile(&self, f: &mut Func<'_>, r: &Registers, (src, weights): (Local, Local), size: usize) {
        for sums in &r.sums[..size] {
            sums.iter().zip(&r.bias).for_each(|(sum, bias)| {
                f.get(*bias).set(*sum);
            });
        }
        // Leaving the block after each tap has the sums computed there (see `tile`).
        f.op(I::Block(BlockType::Empty));
        let bytes = match self.element {
            Element::F32 | Element::Int { wide: true, .. } => 16,
            Element::Int { wide: false, .. } => 8,
        };
        let (together, vectors) = match self.element {
            Element::F32 => (1, 1),
            Element::Int { .. } => (2, 2),
        };
        for (turn, taps) in self.taps.chunks(together).enumerate() {
            for (v, right) in r.right.iter().enumerate() {
                let offset = ((vectors * turn + v) * bytes) as u32;
                if bytes == 16 {
                    f.load(weights, offset);
                } else {
                    f.load_8_wide(weights, offset, DType::I8);
                }
                f.set(*right);
            }
            self.tap(f, r, src, (taps, size));
            f.get(r.never).rarely_leave(0);
        }
        f.op(I::End);
    }

    /// Adds the products of one tap, or of two for integers, whose weights are at hand.
    fn tap(&self, f: &mut Func<'_>, r: &Registers, src: Local, (taps, size): (&[u32], usize)) {
        let pixel = |i: usize| (i * self.pixels.steps[2]) as u32;
        // Pixels share elements of their windows. An address of its own for each tap has them read
        // again, which is cheaper than to keep them on the stack until they are needed again.
        for (tap, address) in taps.iter().zip(&r.address) {
            f.get(src).int(*tap as i32).op(I::I32Add).set(*address);
        }
        for (i, sums) in r.sums[..size].iter().enumerate() {
            match self.element {
                Element::F32 => {
                    f.load(r.address[0], pixel(i)).get(r.right[0]).get(sums[0]);
                    f.op(I::F32x4RelaxedMadd).set(sums[0]);
                }
                Element::Int { dtype, .. } => {
                    // An odd last element is paired with itself under a weight of 0.
                    let second = r.address[taps.len() - 1];
                    for (left, address) in r.left.iter().zip([r.address[0], second]) {
                        f.load_8_wide(address, pixel(i), dtype).set(*left);
                    }
                    for (v, lanes) in [LOW, HIGH].into_iter().enumerate() {
                        f.get(sums[v]).get(r.left[0]).get(r.left[1]);
                        f.op(I::I8x16Shuffle(lanes)).get(r.right[v]);
                        f.op(I::I32x4DotI16x8S).op(I::I32x4Add).set(sums[v]);
                    }
                }
            }
        }
    }
}

/// The pointers of a block of channels.
#[derive(Clone, Copy)]
struct Pointers {
    src: Local,
    dst: Local,
    weights: Local,
    bias: Local,
    scales: Option<Local>,
}

impl Depthwise {
    /// All channels of one row of pixels.
    fn row(&self, f: &mut Func<'_>, r: &Registers, p: Pointers) {
        let wide = width(self.element);
        f.repeat(self.channels / wide, |f| self.block(f, r, p, wide));
        if !self.channels.is_multiple_of(wide) {
            self.block(f, r, p, self.channels % wide);
        }
    }

    /// `used` channels of one row of pixels; moves the pointers to the next ones.
    fn block(&self, f: &mut Func<'_>, r: &Registers, p: Pointers, used: usize) {
        for (v, local) in r.bias.iter().enumerate() {
            f.load(p.bias, 16 * v as u32).set(*local);
        }
        for (v, (scales, local)) in p.scales.iter().cycle().zip(&r.scales).enumerate() {
            f.load(*scales, 16 * v as u32).set(*local);
        }
        let columns = self.pixels.out[1];
        let pixel = self.channels * self.finish.bytes();
        let (src, dst) = (f.copy_of(p.src), f.copy_of(p.dst));
        let tile = |f: &mut Func<'_>, size: usize| {
            self.tile(f, r, (src, p.weights), size);
            for (i, sums) in r.sums[..size].iter().enumerate() {
                let place = (dst, (i * pixel) as u32);
                self.finish
                    .store(f, (sums, &r.scales), place, used, r.left[0]);
            }
            f.bump(src, (size * self.pixels.steps[2]) as i64);
            f.bump(dst, (size * pixel) as i64);
        };
        f.repeat(columns / TILE, |f| tile(f, TILE));
        if !columns.is_multiple_of(TILE) {
            tile(f, columns % TILE);
        }
        let wide = width(self.element);
        f.bump(p.src, (wide * self.element.bytes()) as i64);
        f.bump(p.dst, (wide * self.finish.bytes()) as i64);
        f.bump(p.weights, self.block_bytes() as i64);
        let vectors = std::iter::once(p.bias).chain(p.scales);
        vectors.for_each(|pointer| f.bump(pointer, 4 * wide as i64));
    }
}

impl Kernel for Depthwise {
    fn name(&self) -> &'static str {
        match self.element {
            Element::F32 => "depthwise-f32",
            Element::Int { .. } => "depthwise-i8",
        }
    }

    fn reads(&self) -> Vec<Ref> {
        let scales = self.finish.scales();
        [self.src, self.weights, self.bias]
            .into_iter()
            .chain(scales)
            .collect()
    }

    fn writes(&self) -> Vec<Ref> {
        vec![self.dst]
    }

    fn shares(&self) -> bool {
        true
    }

    fn emit(&self, f: &mut Func<'_>) {
        let [src, dst, weights, bias] =
            [self.src, self.dst, self.weights, self.bias].map(|r| f.pointer(r, 0));
        let scales = self.finish.scales().map(|s| f.pointer(s, 0));
        let [rows, columns] = self.pixels.out;
        let [image_step, row_step, _] = self.pixels.steps.map(|n| n as i64);
        let row_bytes = (columns * self.channels * self.finish.bytes()) as i64;
        let r = self.registers(f, width(self.element) / 4);
        f.repeat(self.pixels.images, |f| {
            let (row, to) = (f.copy_of(src), f.copy_of(dst));
            // Row by row, so that the rows of a window are read while they are near.
            f.share(rows, &[(row, row_step), (to, row_bytes)], |f| {
                let p = Pointers {
                    src: f.copy_of(row),
                    dst: f.copy_of(to),
                    weights: f.copy_of(weights),
                    bias: f.copy_of(bias),
                    scales: scales.map(|s| f.copy_of(s)),
                };
                self.row(f, &r, p);
                f.bump(row, row_step);
                f.bump(to, row_bytes);
            });
            f.bump(src, image_step);
            f.bump(dst, rows as i64 * row_bytes);
        });
    }
}
