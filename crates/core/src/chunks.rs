//! Artefacts in verified chunks: each chunk is checked against the artefact's digest before it
//! is written.
//!
//! BLAKE3 is a tree. The sender states the chaining value of every 64 KiB chunk; together they
//! must give the root digest, after which each chunk is checked on its own. So a digest alone
//! names the artefact and a transfer resumes at any chunk.

use crate::digest::{ArtefactRef, Digest};
use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root,
};

/// Bytes of a chunk; the last one may be shorter.
pub const CHUNK_BYTES: usize = 65536;
/// Largest artefact accepted: 4 GiB, the limit of a 32-bit linear memory.
pub const MAX_ARTEFACT_BYTES: u64 = 1 << 32;

/// The chaining value of every chunk of an artefact, checked against its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkTree {
    artefact: ArtefactRef,
    values: Vec<[u8; 32]>,
}

/// Why chunks or their tree are not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The artefact is larger than [`MAX_ARTEFACT_BYTES`].
    #[error("an artefact of {0} bytes is larger than the limit of {MAX_ARTEFACT_BYTES}")]
    TooLarge(u64),
    /// The number of chaining values does not fit the length.
    #[error("{have} chaining values were sent where {want} are needed")]
    Count {
        /// Sent.
        have: usize,
        /// Needed.
        want: usize,
    },
    /// The chaining values do not give the digest.
    #[error("the chunk tree does not belong to artefact {0}")]
    Root(Digest),
    /// A chunk is not what the tree says.
    #[error("chunk {0} is corrupt")]
    Chunk(usize),
}

/// Number of chunks of an artefact of this length; an empty artefact has one empty chunk.
pub fn chunk_count(size_bytes: u64) -> usize {
    (size_bytes.div_ceil(CHUNK_BYTES as u64) as usize).max(1)
}

fn value_of(index: usize, chunk: &[u8]) -> ChainingValue {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset((index * CHUNK_BYTES) as u64);
    hasher.update(chunk);
    hasher.finalize_non_root()
}

/// Where BLAKE3 splits `n` chunks: the left side is the largest power of two below `n`.
fn split(n: usize) -> usize {
    n.next_power_of_two() / 2
}

fn subtree(values: &[[u8; 32]]) -> ChainingValue {
    if let [one] = values {
        return *one;
    }
    let (left, right) = values.split_at(split(values.len()));
    merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash)
}

impl ChunkTree {
    /// The tree of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let chunks = bytes.chunks(CHUNK_BYTES).enumerate();
        let values = match bytes.len() {
            0..=CHUNK_BYTES => vec![*blake3::hash(bytes).as_bytes()],
            _ => chunks.map(|(i, c)| value_of(i, c)).collect(),
        };
        Self {
            artefact: ArtefactRef::of(bytes),
            values,
        }
    }

    /// Checks values that came over the wire against the digest.
    ///
    /// # Errors
    /// [`ChunkError`] when the artefact is too large or the values are not its own.
    pub fn verified(artefact: ArtefactRef, values: Vec<[u8; 32]>) -> Result<Self, ChunkError> {
        if artefact.size_bytes > MAX_ARTEFACT_BYTES {
            return Err(ChunkError::TooLarge(artefact.size_bytes));
        }
        let want = chunk_count(artefact.size_bytes);
        if values.len() != want {
            return Err(ChunkError::Count {
                have: values.len(),
                want,
            });
        }
        let root = match values.as_slice() {
            // A single chunk is the root itself: its value on the wire is the digest.
            [one] => *one,
            _ => {
                let (left, right) = values.split_at(split(values.len()));
                *merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash).as_bytes()
            }
        };
        if Digest::from_bytes(root) != artefact.digest {
            return Err(ChunkError::Root(artefact.digest));
        }
        Ok(Self { artefact, values })
    }

    /// The artefact.
    pub fn artefact(&self) -> ArtefactRef {
        self.artefact
    }

    /// The values, to send.
    pub fn values(&self) -> &[[u8; 32]] {
        &self.values
    }

    /// Length of a chunk in bytes; 0 behind the end.
    pub fn chunk_len(&self, index: usize) -> usize {
        let start = (index as u64).saturating_mul(CHUNK_BYTES as u64);
        self.artefact
            .size_bytes
            .saturating_sub(start)
            .min(CHUNK_BYTES as u64) as usize
    }

    /// Checks one chunk.
    ///
    /// # Errors
    /// [`ChunkError::Chunk`] when it has the wrong length or content, or lies behind the end.
    pub fn verify(&self, index: usize, chunk: &[u8]) -> Result<(), ChunkError> {
        let right = match self.values.get(index) {
            Some(value) if chunk.len() == self.chunk_len(index) => {
                if self.values.len() == 1 {
                    blake3::hash(chunk).as_bytes() == value
                } else {
                    value_of(index, chunk) == *value
                }
            }
            _ => false,
        };
        if right {
            Ok(())
        } else {
            Err(ChunkError::Chunk(index))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 31 % 251) as u8).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn the_values_give_the_digest_and_only_right_chunks_pass(len in 0usize..600_000, flip: usize) {
            let data = bytes(len);
            let tree = ChunkTree::of(&data);
            let tree = ChunkTree::verified(ArtefactRef::of(&data), tree.values().to_vec()).unwrap();
            for index in 0..chunk_count(len as u64) {
                let start = index * CHUNK_BYTES;
                let mut chunk = data[start..start + tree.chunk_len(index)].to_vec();
                prop_assert_eq!(tree.verify(index, &chunk), Ok(()));
                if !chunk.is_empty() {
                    let at = flip % chunk.len();
                    chunk[at] ^= 1;
                    prop_assert_eq!(tree.verify(index, &chunk), Err(ChunkError::Chunk(index)));
                }
            }
        }
    }

    #[test]
    fn foreign_values_are_refused() {
        let (a, b) = (bytes(200_000), vec![7; 200_000]);
        let foreign = ChunkTree::of(&b).values().to_vec();
        let artefact = ArtefactRef::of(&a);
        assert_eq!(
            ChunkTree::verified(artefact, foreign),
            Err(ChunkError::Root(artefact.digest))
        );
        assert_eq!(
            ChunkTree::verified(artefact, vec![[0; 32]]),
            Err(ChunkError::Count { have: 1, want: 4 })
        );
    }
}
