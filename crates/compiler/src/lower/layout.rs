//! The two orders in which a tensor can lie in memory.

/// The order of elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Layout {
    /// Row-major, as ONNX has it.
    Plain,
    /// [N, spatial.., C] for a tensor of [N, C, spatial..]: what convolutions want.
    Last,
}

impl Layout {
    /// The dimensions from the slowest to the fastest.
    pub(crate) fn order(self, rank: usize) -> Vec<usize> {
        match self {
            Self::Last if rank >= 3 => std::iter::once(0).chain(2..rank).chain([1]).collect(),
            _ => (0..rank).collect(),
        }
    }

    /// Elements from one to the next, by dimension.
    pub(crate) fn strides(self, dims: &[usize]) -> Vec<usize> {
        let mut strides = vec![0; dims.len()];
        let mut step = 1;
        for axis in self.order(dims.len()).into_iter().rev() {
            strides[axis] = step;
            step *= dims[axis];
        }
        strides
    }
}

/// Whether both orders are the same for these dimensions.
pub(crate) fn coincide(dims: &[usize]) -> bool {
    dims.len() < 3 || dims[1] == 1 || dims[2..].iter().all(|d| *d == 1)
}
