//! Convolutions and products of matrices: one kernel.
//!
//! For a pixel and a group of channels, the window is a few runs of consecutive bytes in a source
//! with channels last (a product of matrices is a convolution of 1x1 windows). Tiles of four
//! pixels by eight channels stay in registers: weights are read once per tile, eight channels at a
//! time; activations are read as vectors, and each of their lanes is spread over a register.

use super::{Element, Finish, Kernel, Pixels};
use crate::emit::{Func, Local, Ref, at};
use wasm_encoder::Instruction as I;

/// Channels of a panel of weights.
pub(crate) const PANEL: usize = 8;
/// Pixels of a tile. With two vectors of channels each, 8 accumulators: on x86 more would spill.
const TILE: usize = 4;

/// A convolution or product of matrices.
#[derive(Debug, Clone)]
pub(crate) struct Dense {
    /// Name for reports.
    pub(crate) name: &'static str,
    /// Source with channels last, padded.
    pub(crate) src: Ref,
    /// Result, channels last.
    pub(crate) dst: Ref,
    /// Weights as `pack_dense` lays them out.
    pub(crate) weights: Ref,
    /// Bias in the type of the accumulators, by panel.
    pub(crate) bias: Ref,
    /// What is multiplied.
    pub(crate) element: Element,
    /// What becomes of the sums.
    pub(crate) finish: Finish,
    /// Output pixels.
    pub(crate) pixels: Pixels,
    /// Number of groups.
    pub(crate) groups: usize,
    /// Bytes in the source from one group to the next.
    pub(crate) group_step: usize,
    /// Runs of a window: number and bytes between them, outer and inner.
    pub(crate) taps: [(usize, usize); 2],
    /// Elements of a run.
    pub(crate) run: usize,
    /// Output channels of a group.
    pub(crate) channels: usize,
}

/// Channels used and width of each panel of a group: eight, and a rest of four or eight.
pub(crate) fn panels(channels: usize) -> impl Iterator<Item = (usize, usize)> {
    let rest = channels % PANEL;
    let full = std::iter::repeat_n((PANEL, PANEL), channels / PANEL);
    full.chain((rest > 0).then_some((rest, if rest > 4 { 8 } else { 4 })))
}

/// The pointers of a panel.
#[derive(Clone, Copy)]
struct Pointers {
    src: Local,
    dst: Local,
    weights: Local,
    bias: Local,
    scales: Option<Local>,
}

/// Variables of the tiles of one panel.
struct Registers {
    bias: Vec<Local>,
    scales: Vec<Local>,
    sums: Vec<Vec<Local>>,
    left: Vec<Local>,
    right: Vec<Local>,
    spread: Local,
}

impl Registers {
    fn new(f: &mut Func<'_>, vectors: usize, scaled: bool) -> Self {
        let mut some = |n: usize| -> Vec<Local> { (0..n).map(|_| f.v128()).collect() };
        Self {
            bias: some(vectors),
            scales: some(if scaled { vectors } else { 0 }),
            sums: (0..TILE).map(|_| some(vectors)).collect(),
            left: some(TILE),
            right: some(vectors),
            spread: some(1)[0],
        }
    }
}

impl Dense {
    /// Inner sizes that one step of the innermost loop takes.
    fn block(&self) -> usize {
        match self.element {
            Element::F32 => 4,
            Element::Int { .. } => 8,
        }
    }

    /// Bytes of weights for a step of one k (of two, for integers) in a panel of this width.
    fn right_bytes(&self, width: usize) -> usize {
        match self.element {
            Element::Int { wide: false, .. } => 2 * width,
            _ => 4 * width,
        }
    }

    /// Steps of a run: one per k, or one per two.
    fn steps(&self) -> usize {
        match self.element {
            Element::F32 => self.run,
            Element::Int { .. } => self.run.div_ceil(2),
        }
    }

    /// Bytes of the weights of a panel.
    fn panel_bytes(&self, width: usize) -> usize {
        self.taps[0].0 * self.taps[1].0 * self.steps() * self.right_bytes(width)
    }

    fn group(&self, f: &mut Func<'_>, p: Pointers) {
        let full = self.channels / PANEL;
        f.repeat(full, |f| self.panel(f, p, PANEL, PANEL));
        if let Some((used, width)) = panels(self.channels).nth(full) {
            self.panel(f, p, used, width);
        }
    }

    /// All pixels for one panel of channels; moves the pointers to the next one.
    fn panel(&self, f: &mut Func<'_>, p: Pointers, used: usize, width: usize) {
        let vectors = width / 4;
        let r = Registers::new(f, vectors, p.scales.is_some());
        for v in 0..vectors {
            f.load(p.bias, 16 * v as u32).set(r.bias[v]);
            if let Some(scales) = p.scales {
                f.load(scales, 16 * v as u32).set(r.scales[v]);
            }
        }
        let [rows, columns] = self.pixels.out;
        let pixel = self.groups * self.channels * self.finish.bytes();
        let (row, dst) = (f.copy_of(p.src), f.copy_of(p.dst));
        f.repeat(rows, |f| {
            let src = f.copy_of(row);
            let tile = |f: &mut Func<'_>, size: usize| {
                self.tile(f, &r, (src, dst, p.weights), (size, used, width));
                f.bump(src, (size * self.pixels.steps[2]) as i64);
                f.bump(dst, (size * pixel) as i64);
            };
            f.repeat(columns / TILE, |f| tile(f, TILE));
            if columns % TILE > 0 {
                tile(f, columns % TILE);
            }
            f.bump(row, self.pixels.steps[1] as i64);
        });
        f.bump(p.weights, self.panel_bytes(width) as i64);
        f.bump(p.bias, 4 * width as i64);
        p.scales.iter().for_each(|s| f.bump(*s, 4 * width as i64));
        f.bump(p.dst, (used * self.finish.bytes()) as i64);
    }

    fn tile(
        &self,
        f: &mut Func<'_>,
        r: &Registers,
        (src, dst, weights): (Local, Local, Local),
        (size, used, width): (usize, usize, usize),
    ) {
        for sums in &r.sums[..size] {
            sums.iter().zip(&r.bias).for_each(|(sum, bias)| {
                f.get(*bias).set(*sum);
            });
        }
        let (left, right) = (f.copy_of(src), f.copy_of(weights));
        let [(outer, outer_step), (inner, inner_step)] = self.taps;
        let (blocks, block) = (self.run / self.block(), self.block());
        let bytes = (block * self.element.bytes()) as i64;
        f.repeat(outer, |f| {
            f.repeat(inner, |f| {
                f.repeat(blocks, |f| {
                    let right_bytes = self.step(f, r, (left, right), (size, width), block);
                    f.bump(left, bytes);
                    f.bump(right, right_bytes as i64);
                });
                let right_bytes = self.step(f, r, (left, right), (size, width), self.run % block);
                f.bump(right, right_bytes as i64);
                f.bump(left, inner_step as i64 - blocks as i64 * bytes);
            });
            f.bump(left, outer_step as i64 - (inner * inner_step) as i64);
        });
        let pixel = self.groups * self.channels * self.finish.bytes();
        for (i, sums) in r.sums[..size].iter().enumerate() {
            let place = (dst, (i * pixel) as u32);
            self.finish
                .store(f, (sums, &r.scales), place, used, r.spread);
        }
    }

    /// Multiplies and adds `count` inner elements, at most a block; returns the bytes of weights.
    fn step(
        &self,
        f: &mut Func<'_>,
        r: &Registers,
        (left, right): (Local, Local),
        (size, width): (usize, usize),
        count: usize,
    ) -> usize {
        if count == 0 {
            return 0;
        }
        let pixel = |i: usize| (i * self.pixels.steps[2]) as u32;
        // A rest of floats is read one by one, since what lies behind may be NaN; a rest of
        // integers may be anything, for its weights are 0.
        let whole = count == self.block() || self.element != Element::F32;
        if whole {
            for (i, vector) in r.left[..size].iter().enumerate() {
                match self.element {
                    Element::F32 => f.load(left, pixel(i)),
                    Element::Int { dtype, .. } => f.load_8_wide(left, pixel(i), dtype),
                };
                f.set(*vector);
            }
        }
        let steps = if self.element == Element::F32 {
            count
        } else {
            count.div_ceil(2)
        };
        for k in 0..steps {
            for (v, vector) in r.right.iter().enumerate() {
                self.load_right(f, right, (k * self.right_bytes(width)) as u32, v as u32);
                f.set(*vector);
            }
            for i in 0..size {
                if whole {
                    f.lane(r.left[i], k);
                } else {
                    f.load_splat(left, pixel(i) + 4 * k as u32);
                }
                f.set(r.spread);
                for (sum, right) in r.sums[i].iter().zip(&r.right) {
                    f.get(*sum).get(r.spread).get(*right);
                    match self.element {
                        Element::F32 => f.op(I::F32x4Mul).op(I::F32x4Add),
                        Element::Int { .. } => f.op(I::I32x4DotI16x8S).op(I::I32x4Add),
                    };
                    f.set(*sum);
                }
            }
        }
        steps * self.right_bytes(width)
    }

    fn load_right(&self, f: &mut Func<'_>, right: Local, offset: u32, v: u32) {
        match self.element {
            Element::Int { wide: false, .. } => {
                f.get(right).op(I::V128Load8x8S(at(offset + 8 * v)));
            }
            _ => {
                f.load(right, offset + 16 * v);
            }
        }
    }
}

impl Kernel for Dense {
    fn name(&self) -> &'static str {
        self.name
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
        let p = Pointers {
            src: f.pointer(self.src, 0),
            dst: f.pointer(self.dst, 0),
            weights: f.pointer(self.weights, 0),
            bias: f.pointer(self.bias, 0),
            scales: self.finish.scales().map(|s| f.pointer(s, 0)),
        };
        let widths: usize = panels(self.channels).map(|(_, w)| w).sum();
        let panel_bytes: usize = panels(self.channels)
            .map(|(_, w)| self.panel_bytes(w))
            .sum();
        let [rows, columns] = self.pixels.out;
        let groups = self.groups as i64;
        let image = rows * columns * self.groups * self.channels * self.finish.bytes();
        let image_step = self.pixels.steps[0] as i64;
        f.repeat(self.pixels.images, |f| {
            f.repeat(self.groups, |f| {
                self.group(f, p);
                f.bump(p.src, self.group_step as i64);
            });
            f.bump(p.src, image_step - groups * self.group_step as i64);
            f.bump(
                p.dst,
                image as i64 - groups * (self.channels * self.finish.bytes()) as i64,
            );
            f.bump(p.weights, -groups * panel_bytes as i64);
            f.bump(p.bias, -groups * 4 * widths as i64);
            p.scales
                .iter()
                .for_each(|s| f.bump(*s, -groups * 4 * widths as i64));
        });
    }
}
