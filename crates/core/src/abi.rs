//! Module ABI v1: what a wasm module must look like to be run as a variant.
//!
//! A module imports nothing and exports `memory` and `infer(batch: i32) -> i32` (0 means done;
//! any other value is an error code of the module). Its custom section [`SECTION`] holds the
//! JSON form of [`ModuleAbi`]. The host writes the inputs at their offsets, calls `infer`, and
//! reads the outputs at theirs. For batch `b` a tensor occupies the first
//! `TensorSpec::size_bytes(b)` bytes of its place, row-major, little-endian.

use crate::digest::Digest;
use crate::tensor::TensorSpec;
use serde::{Deserialize, Serialize};

/// Name of the custom section that carries the JSON of [`ModuleAbi`].
pub const SECTION: &str = "sandpiper.abi";
/// The ABI version this code speaks.
pub const ABI_VERSION: u32 = 1;
/// Size of a wasm page; the weights region begins and ends on a multiple of this.
pub const WASM_PAGE_BYTES: u64 = 65536;
/// Alignment of every tensor's offset.
pub const TENSOR_ALIGN_BYTES: u32 = 16;

/// A tensor and where it lies in the linear memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedTensor {
    /// Name, type, shape.
    #[serde(flatten)]
    pub spec: TensorSpec,
    /// Byte offset in linear memory.
    pub offset: u32,
}

/// The weights blob and where the host maps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightsRegion {
    /// Byte offset in linear memory; a multiple of [`WASM_PAGE_BYTES`].
    pub offset: u32,
    /// Length of the blob in bytes; the region is this rounded up to [`WASM_PAGE_BYTES`].
    pub size_bytes: u32,
    /// Digest of the blob.
    pub digest: Digest,
}

/// Contents of the custom section [`SECTION`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleAbi {
    /// [`ABI_VERSION`].
    pub abi: u32,
    /// Inputs in order.
    pub inputs: Vec<PlacedTensor>,
    /// Outputs in order.
    pub outputs: Vec<PlacedTensor>,
    /// Largest batch `infer` accepts.
    pub max_batch: u32,
    /// Exact size of the linear memory, a multiple of [`WASM_PAGE_BYTES`]. The module's memory is
    /// declared with minimum = maximum = this.
    pub memory_bytes: u64,
    /// The weights, if any.
    pub weights: Option<WeightsRegion>,
    /// Every loop of `infer` is bounded by construction, so that no epoch checks are needed. Only
    /// our own compiler may say so, and only a signed manifest is believed.
    pub bounded: bool,
}

/// Why an ABI section cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AbiError {
    /// The section is not the JSON it must be.
    #[error("the `{SECTION}` section cannot be read: {0}")]
    Malformed(String),
    /// Another ABI version.
    #[error("module ABI {0} is not supported, this build speaks {ABI_VERSION}")]
    Version(u32),
    /// A tensor or the weights lie outside the memory, overlap the weights, or are misaligned.
    #[error("`{name}` has no valid place in the memory: {why}")]
    Place {
        /// Tensor name, or `weights`.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A size or count is out of range.
    #[error("{0}")]
    Range(&'static str),
}

impl ModuleAbi {
    /// The section's bytes.
    pub fn to_section(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Parses and checks a section.
    ///
    /// # Errors
    /// [`AbiError`] naming the first rule that is broken.
    pub fn from_section(bytes: &[u8]) -> Result<Self, AbiError> {
        let abi: Self =
            serde_json::from_slice(bytes).map_err(|e| AbiError::Malformed(e.to_string()))?;
        abi.check()?;
        Ok(abi)
    }

    /// Total bytes of all inputs for this batch.
    pub fn input_bytes(&self, batch: u32) -> usize {
        self.inputs.iter().map(|t| t.spec.size_bytes(batch)).sum()
    }

    /// Total bytes of all outputs for this batch.
    pub fn output_bytes(&self, batch: u32) -> usize {
        self.outputs.iter().map(|t| t.spec.size_bytes(batch)).sum()
    }

    /// Checks every rule of the ABI; [`ModuleAbi::from_section`] has done so already.
    ///
    /// # Errors
    /// [`AbiError`] naming the first rule that is broken.
    pub fn check(&self) -> Result<(), AbiError> {
        if self.abi != ABI_VERSION {
            return Err(AbiError::Version(self.abi));
        }
        if self.max_batch == 0 || self.max_batch > 4096 {
            return Err(AbiError::Range("the maximum batch must lie in 1..=4096"));
        }
        if self.memory_bytes == 0
            || !self.memory_bytes.is_multiple_of(WASM_PAGE_BYTES)
            || self.memory_bytes > u64::from(u32::MAX)
        {
            return Err(AbiError::Range(
                "the memory must be a positive multiple of 64 KiB below 4 GiB",
            ));
        }
        if self.inputs.is_empty() || self.outputs.is_empty() {
            return Err(AbiError::Range("a module needs an input and an output"));
        }
        if self.inputs.len() + self.outputs.len() > 256 {
            return Err(AbiError::Range(
                "a module has at most 256 inputs and outputs",
            ));
        }
        let weights = self.weights.map(|w| {
            let end =
                (u64::from(w.offset) + u64::from(w.size_bytes)).next_multiple_of(WASM_PAGE_BYTES);
            (u64::from(w.offset), end)
        });
        if let Some((start, end)) = weights {
            let bad = |why| {
                Err(AbiError::Place {
                    name: "weights".into(),
                    why,
                })
            };
            if !start.is_multiple_of(WASM_PAGE_BYTES) {
                return bad("its offset is not a multiple of 64 KiB");
            }
            if end > self.memory_bytes {
                return bad("it ends behind the memory");
            }
        }
        for t in self.inputs.iter().chain(&self.outputs) {
            let bad = |why| {
                Err(AbiError::Place {
                    name: t.spec.name.clone(),
                    why,
                })
            };
            if !t.offset.is_multiple_of(TENSOR_ALIGN_BYTES) {
                return bad("its offset is not a multiple of 16");
            }
            let Some(size) = checked_size(&t.spec, self.max_batch) else {
                return bad("its size overflows");
            };
            let (start, end) = (u64::from(t.offset), u64::from(t.offset) + size);
            if end > self.memory_bytes {
                return bad("it ends behind the memory");
            }
            if weights.is_some_and(|(ws, we)| start < we && ws < end) {
                return bad("it overlaps the weights");
            }
        }
        Ok(())
    }
}

fn checked_size(spec: &TensorSpec, batch: u32) -> Option<u64> {
    let mut size = spec.dtype.size_bytes() as u64;
    for n in spec.shape(batch) {
        size = size.checked_mul(u64::from(n))?;
    }
    (size <= u64::from(u32::MAX)).then_some(size)
}
