//! Depthwise convolutions: every channel by itself, four or eight of them in a vector.

use super::{Element, Finish, Kernel, Pixels};
use crate::emit::{Func, Local, Ref};
use sandpiper_core::tensor::DType;
use wasm_encoder::Instruction as I;

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
        }
    }

    fn tile(&self, f: &mut Func<'_>, r: &Registers, (src, weights): (Local, Local), size: usize) {
        for sums in &r.sums[..size] {
            sums.iter().zip(&r.bias).for_each(|(sum, bias)| {
                f.get(*bias).set(*sum);
            });
        }
        let pixel = |i: usize| (i * self.pixels.steps[2]) as u32;
        match self.element {
            Element::F32 => {
                for (t, tap) in self.taps.iter().enumerate() {
                    f.load(weights, 16 * t as u32).set(r.right[0]);
                    for (i, sums) in r.sums[..size].iter().enumerate() {
                        f.get(sums[0]).load(src, tap + pixel(i)).get(r.right[0]);
                        f.op(I::F32x4Mul).op(I::F32x4Add).set(sums[0]);
                    }
                }
            }
            Element::Int { dtype, wide } => {
                for (pair, taps) in self.taps.chunks(2).enumerate() {
                    let bytes = if wide { 16 } else { 8 };
                    for (v, right) in r.right.iter().enumerate() {
                        let offset = ((2 * pair + v) * bytes) as u32;
                        if wide {
                            f.load(weights, offset);
                        } else {
                            f.load_8_wide(weights, offset, DType::I8);
                        }
                        f.set(*right);
                    }
                    for (i, sums) in r.sums[..size].iter().enumerate() {
                        // An odd last element is paired with itself under a weight of 0.
                        let second = taps.get(1).unwrap_or(&taps[0]);
                        for (left, tap) in r.left.iter().zip([&taps[0], second]) {
                            f.load_8_wide(src, tap + pixel(i), dtype).set(*left);
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

    fn emit(&self, f: &mut Func<'_>) {
        let [first_src, first_dst, weights, bias] =
            [self.src, self.dst, self.weights, self.bias].map(|r| f.pointer(r, 0));
        let scales = self.finish.scales().map(|s| f.pointer(s, 0));
        let (wide, bytes) = (width(self.element), self.finish.bytes());
        let vectors = wide / 4;
        let pixel = self.channels * bytes;
        let [rows, columns] = self.pixels.out;
        let block = |f: &mut Func<'_>, used: usize| {
            let r = self.registers(f, vectors);
            for v in 0..vectors {
                f.load(bias, 16 * v as u32).set(r.bias[v]);
                if let Some(scales) = scales {
                    f.load(scales, 16 * v as u32).set(r.scales[v]);
                }
            }
            let (image, dst) = (f.copy_of(first_src), f.copy_of(first_dst));
            f.repeat(self.pixels.images, |f| {
                let row = f.copy_of(image);
                f.repeat(rows, |f| {
                    let src = f.copy_of(row);
                    let tile = |f: &mut Func<'_>, size: usize| {
                        self.tile(f, &r, (src, weights), size);
                        for (i, sums) in r.sums[..size].iter().enumerate() {
                            let place = (dst, (i * pixel) as u32);
                            self.finish
                                .store(f, (sums, &r.scales), place, used, r.left[0]);
                        }
                        f.bump(src, (size * self.pixels.steps[2]) as i64);
                        f.bump(dst, (size * pixel) as i64);
                    };
                    f.repeat(columns / TILE, |f| tile(f, TILE));
                    if columns % TILE > 0 {
                        tile(f, columns % TILE);
                    }
                    f.bump(row, self.pixels.steps[1] as i64);
                });
                f.bump(image, self.pixels.steps[0] as i64);
            });
            f.bump(first_src, (wide * self.element.bytes()) as i64);
            f.bump(first_dst, (wide * bytes) as i64);
            f.bump(weights, self.block_bytes() as i64);
            f.bump(bias, 4 * wide as i64);
            scales.iter().for_each(|s| f.bump(*s, 4 * wide as i64));
        };
        f.repeat(self.channels / wide, |f| block(f, wide));
        if !self.channels.is_multiple_of(wide) {
            block(f, self.channels % wide);
        }
    }
}
