//! From convolutions and products of matrices, in floats or integers, to their kernels.

use super::window::Geometry;
use super::{Layout, LowerCx};
use crate::emit::{Ref, range};
use crate::kernels::{
    BySense, Dense, Depthwise, Element, Ex, Fill, Finish, Form, Frame, MAX_DEPTHWISE_TAPS, Mode,
    Pixels, Scalar, Start, WeightsOf, pack_dense, pack_depthwise, packed_dense_bytes, panel_widths,
};
use crate::typed::Clamp;
use sandpiper_core::tensor::DType;

/// Most bytes of one node's packed weights.
const MAX_PACKED_BYTES: usize = 1 << 30;

/// Weights, bias and finish of a convolution or product, with zero points dealt with.
pub(crate) struct Terms<'a> {
    /// What is multiplied.
    pub(crate) element: Element,
    /// The weight of (output channel, input channel of its group, element of the window).
    pub(crate) weight: &'a dyn Fn(usize, usize, usize) -> f32,
    /// What sums begin at.
    pub(crate) bias: Bias,
    /// From accumulators to results.
    pub(crate) finish: Ending,
    /// What padding is filled with.
    pub(crate) fill: Fill,
}

/// What the sums of an output channel begin at.
pub(crate) enum Bias {
    /// By output channel, as bits of the accumulators' type.
    Known(Vec<u32>),
    /// Minus the byte that lies there at run time, times an integer by output channel.
    Times(Ref, DType, Vec<i32>),
}

/// A [`Finish`] before its multipliers are part of the weights.
pub(crate) enum Ending {
    /// Floats.
    Float(Clamp),
    /// Integers with a multiplier by output channel, to a type with a zero point and limits.
    Requantize(Vec<f32>, DType, i32, (i32, i32)),
    /// Integers, as they are.
    Sums,
    /// Integers with a multiplier by output channel, to floats.
    Dequantize(Vec<f32>, Clamp),
}

impl Ending {
    /// To integers: the range of the type, narrowed by a fused Relu or Clip.
    pub(crate) fn requantize(
        scales: Vec<f32>,
        dtype: DType,
        (y_scale, zero): (f32, i32),
        clamp: Clamp,
    ) -> Self {
        let (low, high) = range(dtype);
        let cut = |v: f32, open: i32| {
            if v.is_finite() {
                let steps = (v / y_scale).round_ties_even() + zero as f32;
                steps.clamp(low as f32, high as f32) as i32
            } else {
                open
            }
        };
        let limits = (cut(clamp.low, low), cut(clamp.high, high));
        Self::Requantize(scales, dtype, zero, limits)
    }
}

/// Values by output channel in whole panels; what is left over is 0.
fn by_panel(values: &[u32], groups: usize, widths: &[(usize, usize)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut next = values.iter();
    for _ in 0..groups {
        for (used, width) in widths {
            for i in 0..*width {
                let value = if i < *used {
                    next.next().copied().unwrap_or(0)
                } else {
                    0
                };
                out.extend(value.to_le_bytes());
            }
        }
    }
    out
}

/// Bias and finish in whole panels as part of the weights. Where bytes are multiplied as such, `sums`
/// are those of the weights by output channel: there are then two biases, for activations as unsigned
/// bytes and as signed ones.
pub(super) fn endings(
    cx: &mut LowerCx<'_>,
    terms: &Terms<'_>,
    (groups, widths): (usize, &[(usize, usize)]),
    sums: Option<&[i32]>,
) -> Result<(Ref, Finish), String> {
    let bits = |v: &Vec<f32>| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    // What is to be added to activations as the host multiplies them.
    let shifts: &[i32] = match (sums, terms.element) {
        (None, _) | (_, Element::F32) => &[0],
        (
            _,
            Element::Int {
                dtype: DType::U8, ..
            },
        ) => &[0, 128],
        _ => &[-128, 0],
    };
    let bias = match &terms.bias {
        Bias::Known(bias) => {
            let mut packed = Vec::new();
            for shift in shifts {
                let sum = |i: usize| sums.map_or(0, |s| s[i]).wrapping_mul(*shift);
                let each = bias.iter().enumerate();
                let shifted: Vec<u32> = each.map(|(i, b)| b.wrapping_add(sum(i) as u32)).collect();
                packed.extend(by_panel(&shifted, groups, widths));
            }
            cx.weights(&packed)?
        }
        Bias::Times(zero, dtype, factors) => {
            let factors: Vec<u32> = factors.iter().map(|f| *f as u32).collect();
            let packed = by_panel(&factors, groups, widths);
            negated(cx, (*zero, *dtype), &packed, shifts)?
        }
    };
    let finish = match &terms.finish {
        Ending::Float(clamp) => Finish::Float(*clamp),
        Ending::Sums => Finish::Sums,
        Ending::Requantize(scales, dtype, zero, limits) => Finish::Requantize {
            scales: cx.weights(&by_panel(&bits(scales), groups, widths))?,
            dtype: *dtype,
            zero: *zero,
            limits: *limits,
        },
        Ending::Dequantize(scales, clamp) => Finish::Dequantize {
            scales: cx.weights(&by_panel(&bits(scales), groups, widths))?,
            clamp: *clamp,
        },
    };
    Ok((bias, finish))
}

/// Integers times each of some shifts less a byte that is known only at run time.
fn negated(
    cx: &mut LowerCx<'_>,
    (zero, dtype): (Ref, DType),
    factors: &[u8],
    shifts: &[i32],
) -> Result<Ref, String> {
    let to = cx.temporary(factors.len() * shifts.len());
    let (from, count) = (cx.weights(factors)?, factors.len() / 4);
    let mut program = Scalar::new("zero-point");
    let zero = program.load(zero, dtype, Ex::Int(0));
    let zero = program.once(zero);
    for (i, shift) in shifts.iter().enumerate() {
        let times = program.once(Ex::Int(*shift) - zero.clone());
        program.each(count, |s, at| {
            let factor = s.load(from, DType::I32, at.clone());
            let to_at = at + Ex::Int((i * count) as i32);
            s.store(to, DType::I32, to_at, factor * times.clone());
        });
    }
    cx.push(program, 0)?;
    Ok(to)
}

fn push(
    cx: &mut LowerCx<'_>,
    element: Element,
    kernel: impl crate::kernels::Kernel + 'static,
    macs: u64,
) -> Result<(), String> {
    match element {
        Element::F32 => cx.push(kernel, macs),
        Element::Int { .. } => cx.push_int(kernel, macs),
    }
}

/// A convolution of input 0 with `outputs` channels in `groups`.
pub(crate) fn convolution(
    cx: &mut LowerCx<'_>,
    g: &Geometry,
    (outputs, groups): (usize, usize),
    terms: &Terms<'_>,
) -> Result<(), String> {
    let taps = g.kernel[0] * g.kernel[1];
    let per_group = g.channels / groups;
    let macs = (g.images * g.out[0] * g.out[1] * outputs) as u64 * (per_group * taps) as u64;
    if groups == g.channels && outputs == groups && groups > 1 && taps <= MAX_DEPTHWISE_TAPS {
        return depthwise(cx, g, terms, macs);
    }
    let floats = match terms.element {
        Element::F32 => Some(g.source(cx, 0, terms.fill)?),
        Element::Int { .. } => None,
    };
    let full = floats.map_or_else(|| g.full(), |(_, full)| full);
    let (row, pixel) = (full[1] * g.channels, g.channels);
    let (row_step, column_step) = (g.dilations[0] * row, g.dilations[1] * pixel);
    let [kh, kw] = g.kernel;
    // What follows without a gap is one run: fewer loops, fewer rests.
    let merged = groups == 1 && (g.dilations[1] == 1 || kw == 1);
    let (kernel_taps, run, inner) = if merged && (kh == 1 || row_step == kw * pixel) {
        ([(1, 0), (1, 0)], kh * kw * g.channels, taps)
    } else if merged {
        ([(kh, row_step), (1, 0)], kw * g.channels, kw)
    } else {
        ([(kh, row_step), (kw, column_step)], per_group, 1)
    };
    let channels = outputs / groups;
    let weight = |group: usize, channel: usize, tap: usize, k: usize| {
        let (window, c) = (tap * inner + k / per_group, k % per_group);
        (terms.weight)(group * channels + channel, c, window)
    };
    let w = WeightsOf {
        groups,
        channels,
        taps: taps / inner,
        run,
        at: &weight,
    };
    let dst = cx.write(Layout::Last)?;
    let shape = Shape {
        dst,
        pixels: g.pixels(full, 1).merged(),
        group_step: per_group,
        taps: kernel_taps,
    };
    shape.lower(cx, &w, terms, ("conv", macs), &|cx, forms| match floats {
        Some((src, _)) => Ok(src),
        None => g.framed(cx, 0, ("widen", forms, terms.fill)),
    })
}

/// The source in one of these forms: the first of them where the host multiplies bytes as signed.
pub(super) fn framed(
    cx: &mut LowerCx<'_>,
    forms: &[Form],
    elements: usize,
    frame: &dyn Fn(Ref, Form) -> Frame,
) -> Result<Ref, String> {
    let bytes = forms.iter().map(|form| form.bytes().1).max();
    let bytes = bytes.and_then(|n| n.checked_mul(elements));
    let dst = cx.temporary(bytes.ok_or("its padded input is too large")?);
    match forms {
        [form] => cx.push(frame(dst, *form), 0)?,
        forms => {
            let [signed, unsigned] = [forms.first(), forms.last()].map(|form| {
                let form = form.copied().ok_or("no form")?;
                Ok::<_, String>(Box::new(frame(dst, form)))
            });
            let (signed, unsigned) = (signed?, unsigned?);
            cx.push(BySense { signed, unsigned }, 0)?;
        }
    }
    Ok(dst)
}

/// Gives the source in one of some forms, those of integers.
pub(super) type Source<'a> = &'a dyn Fn(&mut LowerCx<'_>, &[Form]) -> Result<Ref, String>;

/// Where a dense kernel reads and writes. Distances in the source are elements.
pub(super) struct Shape {
    pub(super) dst: Ref,
    pub(super) pixels: Pixels,
    pub(super) group_step: usize,
    pub(super) taps: [(usize, usize); 2],
}

/// Steps of a window that one kernel takes: the weights of a panel then stay in the nearest cache
/// (16 channels of 4 bytes each: 24 KiB) while all pixels go by.
const CACHED_STEPS: usize = 384;
/// With fewer pixels than this the weights are hardly read twice.
const MIN_PIXELS: usize = 8;

/// A part of a window: some of its runs, and of each of them some elements.
#[derive(Debug, Clone, Copy)]
struct Piece {
    taps: (usize, usize),
    run: (usize, usize),
}

impl Shape {
    /// The windows in pieces that are summed one after the other.
    fn pieces(&self, element: Element, run: usize) -> Vec<Piece> {
        let [(outer, _), (inner, _)] = self.taps;
        let pixels = self.pixels.images * self.pixels.out[0] * self.pixels.out[1];
        let all = Piece {
            taps: (0, outer),
            run: (0, run),
        };
        let small = outer * run <= CACHED_STEPS * 4 / 3;
        if element != Element::F32 || inner > 1 || pixels < MIN_PIXELS || small {
            return vec![all];
        }
        let even = |total: usize, most: usize| {
            let count = total.div_ceil(most);
            let size = total.div_ceil(count);
            (0..total)
                .step_by(size)
                .map(move |first| (first, size.min(total - first)))
        };
        if run <= CACHED_STEPS {
            let taps = even(outer, CACHED_STEPS / run);
            taps.map(|taps| Piece { taps, ..all }).collect()
        } else {
            let runs = move |tap| even(run, CACHED_STEPS).map(move |run| (tap, run));
            let each = (0..outer).flat_map(runs);
            each.map(|(tap, run)| Piece {
                taps: (tap, 1),
                run,
            })
            .collect()
        }
    }

    /// A kernel that reads from this source, `offset` elements behind its beginning.
    pub(super) fn kernel(
        &self,
        (src, offset): (Ref, usize),
        w: &WeightsOf<'_>,
        mode: Mode,
        rest: Rest,
    ) -> Dense {
        let size = mode.bytes();
        let [(outer, outer_step), (inner, inner_step)] = self.taps;
        Dense {
            name: rest.name,
            src: (src, (offset * size) as u32),
            dst: self.dst,
            weights: rest.weights,
            bias: rest.bias,
            mode,
            finish: rest.finish,
            pixels: Pixels {
                steps: self.pixels.steps.map(|n| n * size),
                ..self.pixels
            },
            groups: w.groups,
            group_step: self.group_step * size,
            taps: [(outer, outer_step * size), (inner, inner_step * size)],
            run: w.run,
            channels: w.channels,
        }
    }

    fn lower(
        self,
        cx: &mut LowerCx<'_>,
        w: &WeightsOf<'_>,
        terms: &Terms<'_>,
        (what, macs): (&str, u64),
        source: Source<'_>,
    ) -> Result<(), String> {
        let mode = Mode::of(terms.element);
        if packed_dense_bytes(mode, w).is_none_or(|n| n > MAX_PACKED_BYTES) {
            return Err("its packed weights are larger than 1 GiB".into());
        }
        let name = match (what, terms.element) {
            ("conv", Element::F32) => "conv-f32",
            ("conv", _) => "conv-i8",
            (_, Element::F32) => "gemm-f32",
            _ => "gemm-i8",
        };
        if let Element::Int { wide: false, dtype } = terms.element
            && let Some(made) = self.lower_bytes(cx, (w, dtype), terms, (name, macs), source)
        {
            return made;
        }
        let src = match terms.element {
            Element::F32 => source(cx, &[])?,
            Element::Int { dtype, .. } => source(cx, &[Form::Widened(dtype)])?,
        };
        let widths = panel_widths(w.channels);
        let (bias, finish) = endings(cx, terms, (w.groups, &widths), None)?;
        let pieces = self.pieces(terms.element, w.run);
        let [(outer, outer_step), inner] = self.taps;
        for (index, piece) in pieces.iter().enumerate() {
            let (Piece { taps, run }, last) = (*piece, index + 1 == pieces.len());
            let at = |group: usize, channel: usize, tap: usize, k: usize| {
                (w.at)(group, channel, taps.0 * inner.0 + tap, run.0 + k)
            };
            let part = WeightsOf {
                taps: taps.1 * inner.0,
                run: run.1,
                at: &at,
                ..*w
            };
            let rest = Rest {
                name,
                weights: cx.weights(&pack_dense(mode, &part))?,
                bias: (index == 0).then_some((bias, Start::At(0))),
                finish: if last {
                    finish
                } else {
                    Finish::Float(Clamp::NONE)
                },
            };
            let shape = Shape {
                taps: [(taps.1, outer_step), inner],
                ..self
            };
            let offset = taps.0 * outer_step + run.0;
            let kernel = shape.kernel((src, offset), &part, mode, rest);
            let share = macs * (taps.1 * run.1) as u64 / (outer * w.run) as u64;
            push(cx, terms.element, kernel, share)?;
        }
        Ok(())
    }
}

/// What a dense kernel has besides its shape.
pub(super) struct Rest {
    pub(super) name: &'static str,
    pub(super) weights: Ref,
    pub(super) bias: Option<(Ref, Start)>,
    pub(super) finish: Finish,
}

fn depthwise(
    cx: &mut LowerCx<'_>,
    g: &Geometry,
    terms: &Terms<'_>,
    macs: u64,
) -> Result<(), String> {
    let size = terms.element.bytes();
    let (src, full) = g.source(cx, 0, terms.fill)?;
    let taps: Vec<u32> = (0..g.kernel[0] * g.kernel[1])
        .map(|t| {
            let (y, x) = (
                t / g.kernel[1] * g.dilations[0],
                t % g.kernel[1] * g.dilations[1],
            );
            ((y * full[1] + x) * g.channels * size) as u32
        })
        .collect();
    let width = if terms.element == Element::F32 { 4 } else { 8 };
    let vectors = [(g.channels, g.channels.next_multiple_of(width))];
    let (bias, finish) = endings(cx, terms, (1, &vectors), None)?;
    let weight = |channel: usize, tap: usize| (terms.weight)(channel, 0, tap);
    let packed = pack_depthwise(terms.element, (g.channels, taps.len()), &weight);
    let weights = cx.weights(&packed)?;
    let dst = cx.write(Layout::Last)?;
    let kernel = Depthwise {
        src,
        dst,
        weights,
        bias,
        element: terms.element,
        finish,
        pixels: g.pixels(full, size),
        taps,
        channels: g.channels,
    };
    push(cx, terms.element, kernel, macs)
}

/// A product of `rows` rows of input 0, of `inner` elements each, with a constant matrix of
/// `columns`: `terms.weight(column, k, 0)`.
pub(crate) fn product(
    cx: &mut LowerCx<'_>,
    sizes: [usize; 3],
    terms: &Terms<'_>,
) -> Result<(), String> {
    let src = cx.read(0, Layout::Plain)?;
    let dst = cx.write(Layout::Plain)?;
    product_into(cx, (src, dst), sizes, terms)
}

/// The same from and to given places.
pub(crate) fn product_into(
    cx: &mut LowerCx<'_>,
    (src, dst): (Ref, Ref),
    [rows, columns, inner]: [usize; 3],
    terms: &Terms<'_>,
) -> Result<(), String> {
    let integers = terms.element != Element::F32;
    let row = rows * inner;
    let frame = |dst, form| Frame {
        name: "widen",
        src,
        dst,
        form,
        images: 1,
        rows: 1,
        row,
        around: [0, 0],
        beside: [0, 0],
        fill: Fill::Byte(0),
    };
    let source: Source<'_> = &|cx, forms| {
        if integers {
            framed(cx, forms, row, &frame)
        } else {
            Ok(src)
        }
    };
    rows_of(
        cx,
        (source, dst),
        [1, rows, 0, inner],
        [columns, inner],
        terms,
    )
}

/// The same for rows of floats that need not follow each other: `parts` times
/// `rows` of them, and elements from one part, and one row, to the next.
pub(crate) fn product_of_rows(
    cx: &mut LowerCx<'_>,
    (src, dst): (Ref, Ref),
    rows: [usize; 4],
    sizes: [usize; 2],
    terms: &Terms<'_>,
) -> Result<(), String> {
    rows_of(cx, (&|_, _| Ok(src), dst), rows, sizes, terms)
}

fn rows_of(
    cx: &mut LowerCx<'_>,
    (source, dst): (Source<'_>, Ref),
    [parts, rows, part_step, row_step]: [usize; 4],
    [columns, inner]: [usize; 2],
    terms: &Terms<'_>,
) -> Result<(), String> {
    let weight = |_: usize, column: usize, _: usize, k: usize| (terms.weight)(column, k, 0);
    let w = WeightsOf {
        groups: 1,
        channels: columns,
        taps: 1,
        run: inner,
        at: &weight,
    };
    let shape = Shape {
        dst,
        pixels: Pixels {
            images: parts,
            out: [1, rows],
            steps: [part_step, 0, row_step],
        },
        group_step: 0,
        taps: [(1, 0), (1, 0)],
    };
    let macs = (parts * rows * columns) as u64 * inner as u64;
    shape.lower(cx, &w, terms, ("gemm", macs), source)
}
