//! Weights in the order in which kernels read them.

use super::dense::panels;
use super::depthwise::width;
use super::finish::Element;

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

/// Bytes of packed weights.
pub(crate) fn packed_dense_bytes(element: Element, w: &WeightsOf<'_>) -> Option<usize> {
    let widths: usize = panels(w.channels).map(|(_, width)| width).sum();
    let (run, bytes) = match element {
        Element::F32 => (w.run, 4),
        Element::Int { wide, .. } => (w.run.next_multiple_of(2), if wide { 2 } else { 1 }),
    };
    let sizes = [w.groups, w.taps, run, bytes];
    sizes.iter().try_fold(widths, |n, s| n.checked_mul(*s))
}

fn put(out: &mut Vec<u8>, element: Element, value: f32) {
    match element {
        Element::F32 => out.extend(value.to_le_bytes()),
        Element::Int { wide: true, .. } => out.extend((value as i16).to_le_bytes()),
        Element::Int { wide: false, .. } => out.push(value as i8 as u8),
    }
}

/// `[group][panel][tap][k][channel]` for floats; integers in pairs of k:
/// `[..][k / 2][channel][k % 2]`.
/// Channels and k that do not exist are 0.
pub(crate) fn pack_dense(element: Element, w: &WeightsOf<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(packed_dense_bytes(element, w).unwrap_or(0));
    let pair = if element == Element::F32 { 1 } else { 2 };
    for group in 0..w.groups {
        let mut first = 0;
        for (used, width) in panels(w.channels) {
            for tap in 0..w.taps {
                for k in (0..w.run).step_by(pair) {
                    for channel in 0..width {
                        for k in k..k + pair {
                            let real = channel < used && k < w.run;
                            let value = if real {
                                (w.at)(group, first + channel, tap, k)
                            } else {
                                0.0
                            };
                            put(&mut out, element, value);
                        }
                    }
                }
            }
            first += used;
        }
    }
    out
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
