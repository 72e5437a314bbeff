//! Convolutions and products of matrices: one kernel.
//!
//! For a pixel and a group of channels, the window is a few runs of consecutive bytes in a source
//! with channels last (a product of matrices is a convolution of 1x1 windows). Integers are taken
//! from a source that [`super::Frame`] has brought into the form of [`Mode`]. Channels come in panels
//! whose weights lie together; tiles of pixels by a panel's channels stay in registers.

use super::tile::{Mode, Registers, Tile};
use super::{Finish, Kernel, Pixels};
use crate::emit::{Func, Local, Ref};
use wasm_encoder::Instruction as I;

/// Channels of a panel of weights.
pub(crate) const PANEL: usize = 16;

/// A convolution or product of matrices.
#[derive(Debug, Clone)]
pub(crate) struct Dense {
    /// Name for reports.
    pub(crate) name: &'static str,
    /// Source with channels last, padded, and the offset of the first window in it.
    pub(crate) src: (Ref, u32),
    /// Result, channels last.
    pub(crate) dst: Ref,
    /// Weights as `pack_dense` lays them out.
    pub(crate) weights: Ref,
    /// Bias in the type of the accumulators, by panel. Without, floats go on from the sums that
    /// lie in the result.
    pub(crate) bias: Option<(Ref, Start)>,
    /// How it is multiplied.
    pub(crate) mode: Mode,
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

/// Where the bias begins, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Start {
    /// There.
    At(u32),
    /// At 0 on hosts that multiply unsigned bytes, there on others.
    IfSigned(u32),
}

/// Channels used and width of each panel of a group: whole ones, and up to two for the rest.
pub(crate) fn panels(channels: usize) -> impl Iterator<Item = (usize, usize)> {
    let rest = channels % PANEL;
    let full = std::iter::repeat_n((PANEL, PANEL), channels / PANEL);
    let rests = match rest {
        0 => [None, None],
        1..=4 => [Some((rest, 4)), None],
        5..=8 => [Some((rest, 8)), None],
        9..=12 => [Some((8, 8)), Some((rest - 8, 4))],
        _ => [Some((rest, PANEL)), None],
    };
    full.chain(rests.into_iter().flatten())
}

/// Along what the parts of a step share the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Split {
    Panels,
    Rows,
    /// Of the only row.
    Tiles,
}

/// The pointers of a panel.
#[derive(Clone, Copy)]
struct Pointers {
    src: Local,
    dst: Local,
    weights: Local,
    bias: Option<Local>,
    scales: Option<Local>,
}

impl Dense {
    fn tile(&self, width: usize) -> Tile {
        Tile::of(self.mode, &self.pixels, self.run, width)
    }

    /// Bytes of the weights of a panel.
    fn panel_bytes(&self, width: usize) -> usize {
        let runs = self.taps[0].0 * self.taps[1].0;
        self.tile(width).window_bytes(runs)
    }

    /// Bytes from one output pixel to the next.
    fn pixel_bytes(&self) -> usize {
        self.groups * self.channels * self.finish.bytes()
    }

    /// What divides best among two and four parts; panels if equal, since weights are then read by
    /// one part only.
    fn split(&self) -> Split {
        let [rows, columns] = self.pixels.out;
        // The greatest share times the parts, in per mille of the whole: 1000 is perfect.
        let uneven = |units: usize| -> usize {
            let of = |parts: usize| units.div_ceil(parts) * parts * 1000 / units.max(1);
            if units == 0 {
                usize::MAX
            } else {
                of(2).saturating_add(of(4))
            }
        };
        let across = if rows > 1 {
            (Split::Rows, uneven(rows))
        } else {
            (Split::Tiles, uneven(columns / self.mode.pixels(PANEL)))
        };
        let panels = uneven(self.channels / PANEL);
        if panels <= across.1 {
            Split::Panels
        } else {
            across.0
        }
    }

    /// The channels of one group; leaves the pointers alone.
    fn group(&self, f: &mut Func<'_>, p: Pointers) {
        let p = Pointers {
            src: p.src,
            dst: f.copy_of(p.dst),
            weights: f.copy_of(p.weights),
            bias: p.bias.map(|b| f.copy_of(b)),
            scales: p.scales.map(|s| f.copy_of(s)),
        };
        let (split, full) = (self.split(), self.channels / PANEL);
        let rest = |f: &mut Func<'_>| {
            for (used, width) in panels(self.channels).skip(full) {
                self.panel(f, p, (used, width), split);
            }
        };
        if split == Split::Panels {
            let vectors = (4 * PANEL) as i64;
            let mut moving = vec![
                (p.dst, (PANEL * self.finish.bytes()) as i64),
                (p.weights, self.panel_bytes(PANEL) as i64),
            ];
            moving.extend(p.bias.into_iter().chain(p.scales).map(|l| (l, vectors)));
            f.share(full, &moving, |f| {
                self.panel(f, p, (PANEL, PANEL), split);
            });
            f.last_part(rest);
        } else {
            f.repeat(full, |f| self.panel(f, p, (PANEL, PANEL), split));
            rest(f);
        }
    }

    /// All pixels for one panel of channels; moves the pointers to the next one.
    fn panel(&self, f: &mut Func<'_>, p: Pointers, (used, width): (usize, usize), split: Split) {
        let together = self.mode.channels(width);
        let (full, rest) = (used / together, used % together);
        f.repeat(full, |f| self.channels(f, p, (together, width), split));
        if rest > 0 {
            self.channels(f, p, (rest, width), split);
        }
        let (turns, vectors) = (used.div_ceil(together), 4 * together as i64);
        let skipped = (width / together - turns) as i64;
        let read = turns * together * self.mode.weights();
        f.bump(p.weights, self.panel_bytes(width) as i64 - read as i64);
        for pointer in p.bias.into_iter().chain(p.scales) {
            f.bump(pointer, skipped * vectors);
        }
    }

    /// All pixels for those channels of a panel that are summed together; moves the pointers to the
    /// next ones.
    fn channels(&self, f: &mut Func<'_>, p: Pointers, (used, width): (usize, usize), split: Split) {
        let together = self.mode.channels(width);
        let r = Registers::new(f, self.mode, width);
        let constants = |f: &mut Func<'_>, pointer: Option<Local>| -> Vec<Local> {
            let vectors = 0..pointer.map_or(0, |_| together as u32 / 4);
            let load = |v: u32| {
                let local = f.v128();
                pointer.into_iter().for_each(|p| {
                    f.load(p, 16 * v).set(local);
                });
                local
            };
            vectors.map(load).collect()
        };
        let (bias, scales) = (constants(f, p.bias), constants(f, p.scales));
        let [rows, columns] = self.pixels.out;
        let [_, row_step, column_step] = self.pixels.steps;
        let (pixel, size) = (self.pixel_bytes(), self.mode.pixels(width));
        let (row, dst) = (f.copy_of(p.src), f.copy_of(p.dst));
        let one_row = |f: &mut Func<'_>| {
            let src = f.copy_of(row);
            let tile = |f: &mut Func<'_>, size: usize| {
                let pointers = (src, dst, p.weights);
                self.pixels_of_tile(f, (&r, &bias, &scales), pointers, (size, used, width));
                f.bump(src, (size * column_step) as i64);
                f.bump(dst, (size * pixel) as i64);
            };
            let (tiles, rest) = (columns / size, columns % size);
            let rest = |f: &mut Func<'_>| {
                if rest > 0 {
                    tile(f, rest);
                }
            };
            if split == Split::Tiles {
                let moving = [(src, size * column_step), (dst, size * pixel)];
                f.share(tiles, &moving.map(|(p, n)| (p, n as i64)), |f| {
                    tile(f, size)
                });
                f.last_part(rest);
            } else {
                f.repeat(tiles, |f| tile(f, size));
                rest(f);
            }
            f.bump(row, row_step as i64);
        };
        if split == Split::Rows {
            let moving = [(row, row_step as i64), (dst, (columns * pixel) as i64)];
            f.share(rows, &moving, one_row);
        } else {
            f.repeat(rows, one_row);
        }
        f.bump(p.weights, (together * self.mode.weights()) as i64);
        let vectors = p.bias.into_iter().chain(p.scales);
        vectors.for_each(|pointer| f.bump(pointer, 4 * together as i64));
        f.bump(p.dst, (used * self.finish.bytes()) as i64);
    }

    /// One tile of `size` pixels.
    fn pixels_of_tile(
        &self,
        f: &mut Func<'_>,
        (r, bias, scales): (&Registers, &[Local], &[Local]),
        (src, dst, weights): (Local, Local, Local),
        (size, used, width): (usize, usize, usize),
    ) {
        let tile = self.tile(width);
        let pixel = |i: usize| (i * self.pixel_bytes()) as u32;
        let bias = |f: &mut Func<'_>, i: usize, v: usize| {
            match bias.get(v) {
                Some(bias) => f.get(*bias),
                None => f.load(dst, pixel(i) + 16 * v as u32),
            };
        };
        for (i, sums) in r.sums[..size].iter().enumerate() {
            tile.begin(f, sums, &|f, v| bias(f, i, v));
        }
        let pointers = (f.copy_of(src), f.copy_of(weights));
        tile.window(f, r, pointers, (size, self.taps));
        for (i, sums) in r.sums[..size].iter().enumerate() {
            let sums = tile.end(f, sums, &|f, v| bias(f, i, v));
            self.finish
                .store(f, (sums, scales), (dst, pixel(i)), used, r.scratch);
        }
    }
}

impl Kernel for Dense {
    fn name(&self) -> &'static str {
        self.name
    }

    fn reads(&self) -> Vec<Ref> {
        let goes_on = self.bias.is_none().then_some(self.dst);
        [self.src.0, self.weights]
            .into_iter()
            .chain(self.bias.map(|(bias, _)| bias))
            .chain(self.finish.scales())
            .chain(goes_on)
            .collect()
    }

    fn writes(&self) -> Vec<Ref> {
        vec![self.dst]
    }

    fn shares(&self) -> bool {
        true
    }

    fn emit(&self, f: &mut Func<'_>) {
        let p = Pointers {
            src: f.pointer(self.src.0, self.src.1),
            dst: f.pointer(self.dst, 0),
            weights: f.pointer(self.weights, 0),
            bias: self.bias.map(|(bias, start)| match start {
                Start::At(offset) => f.pointer(bias, offset),
                Start::IfSigned(offset) => {
                    let pointer = f.pointer(bias, 0);
                    f.get(pointer).signed_bytes().int(offset as i32);
                    f.op(I::I32Mul).op(I::I32Add).set(pointer);
                    pointer
                }
            }),
            scales: self.finish.scales().map(|s| f.pointer(s, 0)),
        };
        let widths: usize = panels(self.channels).map(|(_, w)| w).sum();
        let group_weights: usize = panels(self.channels)
            .map(|(_, w)| self.panel_bytes(w))
            .sum();
        let [rows, columns] = self.pixels.out;
        let channels_bytes = self.channels * self.finish.bytes();
        // Weights, bias and scales begin anew for each image.
        let mut moving = vec![
            (p.src, self.group_step),
            (p.dst, channels_bytes),
            (p.weights, group_weights),
        ];
        let vectors = p.bias.into_iter().chain(p.scales);
        moving.extend(vectors.map(|pointer| (pointer, 4 * widths)));
        let image = [
            (p.src, self.pixels.steps[0]),
            (p.dst, rows * columns * self.pixel_bytes()),
        ];
        f.repeat(self.pixels.images, |f| {
            f.repeat(self.groups, |f| {
                self.group(f, p);
                moving.iter().for_each(|(l, n)| f.bump(*l, *n as i64));
            });
            for (pointer, bytes) in &moving {
                f.bump(*pointer, -((bytes * self.groups) as i64));
            }
            image.iter().for_each(|(l, n)| f.bump(*l, *n as i64));
        });
    }
}
