//! What lowering makes: steps over buffers, and weights.

use crate::emit::Ref;
use crate::kernels::Kernel;
use sandpiper_core::digest::Digest;
use sandpiper_core::tensor::{DType, Dim};
use std::collections::BTreeMap;

/// Most bytes of packed weights: they share 4 GiB with everything else.
const MAX_WEIGHTS_BYTES: usize = 3 << 30;

/// Where a buffer lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Home {
    /// In the arena, as long as it is needed.
    Arena,
    /// It is this input.
    Input(usize),
    /// It is this output.
    Output(usize),
}

/// Memory for one item of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Buffer {
    /// Size.
    pub(crate) bytes: usize,
    /// Where it lives.
    pub(crate) home: Home,
}

/// A kernel and what is reported of it.
pub(crate) struct Step {
    /// The kernel.
    pub(crate) kernel: Box<dyn Kernel>,
    /// Nodes of the file that it does.
    pub(crate) nodes: Vec<String>,
    /// Dimensions of its result.
    pub(crate) shape: Vec<Dim>,
    /// Multiply-accumulates for one item.
    pub(crate) macs: u64,
    /// Type of its arithmetic.
    pub(crate) dtype: DType,
}

/// The weights: pieces of bytes, each of them once.
#[derive(Default)]
pub(crate) struct Blob {
    /// All of them.
    pub(crate) bytes: Vec<u8>,
    known: BTreeMap<Digest, u32>,
}

impl Blob {
    /// Adds a piece at the beginning of a cache line, unless the same is there already.
    pub(crate) fn add(&mut self, piece: &[u8]) -> Result<Ref, String> {
        let digest = Digest::of(piece);
        if let Some(offset) = self.known.get(&digest) {
            return Ok(Ref::Weights(*offset));
        }
        let offset = self.bytes.len().next_multiple_of(64);
        if offset + piece.len() > MAX_WEIGHTS_BYTES {
            return Err("the packed weights are larger than 3 GiB".into());
        }
        self.bytes.resize(offset, 0);
        self.bytes.extend_from_slice(piece);
        // Below 3 GiB, as was checked.
        let offset = offset as u32;
        self.known.insert(digest, offset);
        Ok(Ref::Weights(offset))
    }
}

/// Steps, buffers, weights.
#[derive(Default)]
pub(crate) struct Program {
    /// Buffers by index.
    pub(crate) buffers: Vec<Buffer>,
    /// Steps in order.
    pub(crate) steps: Vec<Step>,
    /// Weights.
    pub(crate) weights: Blob,
}
