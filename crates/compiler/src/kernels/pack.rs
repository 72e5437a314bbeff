//! Weights in the order in which kernels read them.

use super::dense::panels;
use super::depthwise::width;
use super::finish::Element;
use super::tile::{Mode, STEP_HEAD};

/// Channels used and width of each panel of a group.
pub(crate) fn panel_widths(channels: usize) -> Vec<(usize, usize)> {
    panels(channels).collect()
}

/// Logical weights of a group of channels, as functions of where they are.
pub(crate) struct WeightsOf<'a> {
    /// Number of groups.
    pub(crate) groups: usize,
    /// Output channels of a group.
    pub(crate) channels: usize,
    /// Number of runs of a window.
    pub(crate) taps: usize,
    /// Elements of a run.
    pub(crate) run: usize,
    /// The weight of (group, channel within the group, tap, element of the run). Integers have
    /// their zero point subtracted and lie in -255..=255.
    pub(crate) at: &'a dyn Fn(usize, usize, usize, usize) -> f32,
}

/// Bytes of packed weights, without steps that follow windows.
pub(crate) fn packed_dense_bytes(mode: Mode, w: &WeightsOf<'_>) -> Option<usize> {
    let widths: usize = panels(w.channels).map(|(_, width)| width).sum();
    let steps = w.run.div_ceil(mode.elements());
    let sizes = [w.groups, w.taps, steps, mode.weights()];
    sizes.iter().try_fold(widths, |n, s| n.checked_mul(*s))
}

/// `[group][panel][tap][step][channel][element of the step]`. Channels and elements that do not exist
/// are 0.
pub(crate) fn pack_dense(mode: Mode, w: &WeightsOf<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(packed_dense_bytes(mode, w).unwrap_or(0));
    let elements = mode.elements();
    for group in 0..w.groups {
        let mut first = 0;
        for (used, width) in panels(w.channels) {
            for tap in 0..w.taps {
                for k in (0..w.run).step_by(elements) {
                    for channel in 0..width {
                        for k in k..k + elements {
                            let real = channel < used && k < w.run;
                            let value = if real {
                                (w.at)(group, first + channel, tap, k)
                            } else {
                                0.0
                            };
                            match mode {
                                Mode::Floats => out.extend(value.to_le_bytes()),
                                Mode::Words { wide: true } => {
                                    out.extend((value as i16).to_le_bytes());
                                }
                                _ => out.push(value as i8 as u8),
                            }
                        }
                    }
                }
            }
            first += used;
        }
    }
    out
}

/// Most that the weights of two neighbours may add up to: 255 times as much is below 2^15, so that no
/// host cuts the sum of two products of such weights and unsigned bytes.
const PAIR: i16 = 128;

/// What packed bytes add up to, by channel, for the zero point of a host that multiplies signed bytes.
pub(crate) fn sums_of_bytes(packed: &[u8], w: &WeightsOf<'_>) -> Vec<i32> {
    let steps = w.taps * w.run.div_ceil(4);
    let mut panels_of = packed;
    let mut sums = Vec::with_capacity(w.groups * w.channels);
    for (used, width) in (0..w.groups).flat_map(|_| panels(w.channels)) {
        let (panel, rest) = panels_of.split_at(steps * width * 4);
        panels_of = rest;
        let mut each = vec![0i32; width];
        for step in panel.chunks(width * 4) {
            for (sum, weights) in each.iter_mut().zip(step.chunks(4)) {
                *sum += weights
                    .iter()
                    .map(|b| i32::from(b.cast_signed()))
                    .sum::<i32>();
            }
        }
        sums.extend(&each[..used]);
    }
    sums
}

/// Takes from packed bytes what makes neighbours add up to more than [`PAIR`], and adds steps that make up
/// for it behind each panel, as many to each: gives the bytes and that number. `None` if these would be more than `most`
/// per mille of all steps. `offset(step)` is where the activations of a step of the
/// window lie.
pub(crate) fn without_excess(
    packed: &[u8],
    w: &WeightsOf<'_>,
    most: usize,
    offset: &dyn Fn(usize) -> u32,
) -> Option<(Vec<u8>, usize)> {
    let steps = w.taps * w.run.div_ceil(4);
    let mut panels_of = packed;
    let mut made: Vec<(Vec<u8>, Vec<u8>, usize)> = Vec::new();
    for (_, width) in (0..w.groups).flat_map(|_| panels(w.channels)) {
        let (panel, rest) = panels_of.split_at(steps * width * 4);
        panels_of = rest;
        let (mut kept, mut more, mut count) = (panel.to_vec(), Vec::new(), 0);
        for (step, weights) in kept.chunks_mut(width * 4).enumerate() {
            let mut excess = vec![0u8; weights.len()];
            for (pair, excess) in weights.chunks_mut(2).zip(excess.chunks_mut(2)) {
                let [a, b] = [pair[0], pair[1]].map(|v| i16::from(v.cast_signed()));
                // If they do, they have the same sign, and each alone is within it.
                let over = (a + b) - (a + b).clamp(-PAIR, PAIR);
                if over != 0 {
                    pair[1] = (b - over) as i8 as u8;
                    excess[1] = over as i8 as u8;
                }
            }
            if excess.iter().any(|b| *b != 0) {
                count += 1;
                let mut head = [0; STEP_HEAD];
                head[..4].copy_from_slice(&offset(step).to_le_bytes());
                more.extend(head);
                more.extend(excess);
            }
        }
        made.push((kept, more, STEP_HEAD + width * 4));
        if count * 1000 > most * steps {
            return None;
        }
    }
    let number = made.iter().map(|(_, more, each)| more.len() / each).max();
    let number = number.unwrap_or(0);
    let mut out = Vec::new();
    for (kept, mut more, each) in made {
        more.resize(number * each, 0);
        out.extend(kept);
        out.extend(more);
    }
    Some((out, number))
}

/// The bytes of a depthwise weight.
fn put(out: &mut Vec<u8>, element: Element, value: f32) {
    match element {
        Element::F32 => out.extend(value.to_le_bytes()),
        Element::Int { wide: true, .. } => out.extend((value as i16).to_le_bytes()),
        Element::Int { wide: false, .. } => out.push(value as i8 as u8),
    }
}

/// `[vector of channels][tap][channel]` for floats; integers in pairs of taps:
/// [..][tap / 2][channel][tap % 2]. `at(channel, tap)`.
pub(crate) fn pack_depthwise(
    element: Element,
    (channels, taps): (usize, usize),
    weight: &dyn Fn(usize, usize) -> f32,
) -> Vec<u8> {
    let (width, pair) = (width(element), if element == Element::F32 { 1 } else { 2 });
    let mut out = Vec::new();
    for first in (0..channels).step_by(width) {
        for tap in (0..taps).step_by(pair) {
            for channel in first..first + width {
                for tap in tap..tap + pair {
                    let real = channel < channels && tap < taps;
                    put(
                        &mut out,
                        element,
                        if real { weight(channel, tap) } else { 0.0 },
                    );
                }
            }
        }
    }
    out
}
