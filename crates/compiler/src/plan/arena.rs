//! Sharing memory between buffers that are not needed at the same time.

use crate::emit::Ref;
use crate::lower::{Home, Program};

/// The steps from the first to the last that touch each buffer.
fn lifetimes(program: &Program) -> Vec<Option<(usize, usize)>> {
    let mut lives: Vec<Option<(usize, usize)>> = vec![None; program.buffers.len()];
    for (index, step) in program.steps.iter().enumerate() {
        for place in step.kernel.reads().into_iter().chain(step.kernel.writes()) {
            if let Ref::Buffer(buffer) = place {
                let first = lives[buffer].map_or(index, |(first, _)| first);
                lives[buffer] = Some((first, index));
            }
        }
    }
    lives
}

/// An offset for every buffer of the arena (0 for the others), and the arena's size. The largest
/// buffers choose first: each takes the lowest gap that is free while it lives.
pub(crate) fn allocate(program: &Program, align: u64) -> (Vec<u64>, u64) {
    let lives = lifetimes(program);
    let mut order: Vec<usize> = (0..lives.len())
        .filter(|b| program.buffers[*b].home == Home::Arena && lives[*b].is_some())
        .collect();
    order.sort_by_key(|b| (std::cmp::Reverse(program.buffers[*b].bytes), *b));
    let mut offsets = vec![0; lives.len()];
    // Offset, end, buffer of what is placed, by offset.
    let mut placed: Vec<(u64, u64, usize)> = Vec::new();
    let mut size = 0;
    for buffer in order {
        let bytes = (program.buffers[buffer].bytes as u64).next_multiple_of(align);
        let meets = |other: usize| match (lives[buffer], lives[other]) {
            (Some((a, b)), Some((c, d))) => a <= d && c <= b,
            _ => false,
        };
        let mut offset = 0;
        for (start, end, other) in &placed {
            if *start >= offset + bytes {
                break;
            }
            if *end > offset && meets(*other) {
                offset = *end;
            }
        }
        offsets[buffer] = offset;
        size = size.max(offset + bytes);
        let at = placed.partition_point(|p| p.0 <= offset);
        placed.insert(at, (offset, offset + bytes, buffer));
    }
    (offsets, size)
}
