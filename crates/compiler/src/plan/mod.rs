//! The memory plan: an address for everything, and the exact size of the linear memory.
//!
//! ```text
//! 0            64 KiB-aligned
//! | weights ...| inputs (whole batch) | outputs (whole batch) | arena (one item) | slack |
//! ```
//! Nothing is ever written into the pages of the weights: the host maps them read-only.

mod arena;

use crate::emit::{Place, Places};
use crate::error::CompileError;
use crate::kernels::SLACK_BYTES;
use crate::lower::{Home, Program};
use crate::typed::{Graph, ValueId};
use sandpiper_core::abi::{ABI_VERSION, ModuleAbi, PlacedTensor, WASM_PAGE_BYTES, WeightsRegion};
use sandpiper_core::digest::Digest;
use sandpiper_core::tensor::TensorSpec;

/// Alignment of everything: a cache line.
const ALIGN: u64 = 64;
/// Most bytes of memory: what 32-bit addresses and the ABI allow.
const MAX_MEMORY_BYTES: u64 = u32::MAX as u64 - WASM_PAGE_BYTES + 1;

/// A finished plan.
pub(crate) struct Plan {
    /// Addresses.
    pub(crate) places: Places,
    /// What the host is told.
    pub(crate) abi: ModuleAbi,
    /// Bytes of the arena.
    pub(crate) arena_bytes: u64,
}

/// Inputs or outputs, one after the other from `next` on.
fn ports(
    graph: &Graph,
    values: &[ValueId],
    max_batch: u32,
    next: &mut u64,
) -> Result<Vec<PlacedTensor>, CompileError> {
    let place = |value: &ValueId| {
        let value = &graph.values[*value];
        let items = if value.ty.has_batch() {
            u64::from(max_batch)
        } else {
            1
        };
        let offset = next.next_multiple_of(ALIGN);
        *next = offset + value.ty.bytes() as u64 * items;
        let spec = TensorSpec {
            name: value.name.clone(),
            dtype: value.ty.dtype,
            dims: value.ty.dims.clone(),
        };
        let offset = u32::try_from(offset).map_err(|_| too_large(offset))?;
        Ok(PlacedTensor { spec, offset })
    };
    values.iter().map(place).collect()
}

fn too_large(size: u64) -> CompileError {
    let what = "the memory of the module (in bytes; a smaller maximum batch may help)".into();
    CompileError::TooLarge {
        what,
        size,
        limit: MAX_MEMORY_BYTES,
    }
}

/// Plans the memory of a program.
pub(crate) fn plan(graph: &Graph, program: &Program, max_batch: u32) -> Result<Plan, CompileError> {
    let batched = graph.inputs.iter().any(|v| graph.values[*v].ty.has_batch());
    let max_batch = if batched { max_batch } else { 1 };
    let weights = program.weights.bytes.len() as u64;
    let mut next = weights.next_multiple_of(WASM_PAGE_BYTES);
    let inputs = ports(graph, &graph.inputs, max_batch, &mut next)?;
    let outputs = ports(graph, &graph.outputs, max_batch, &mut next)?;
    let arena = next.next_multiple_of(ALIGN);
    let (offsets, arena_bytes) = arena::allocate(program, ALIGN);
    let used = arena + arena_bytes + u64::from(SLACK_BYTES);
    let memory_bytes = used.next_multiple_of(WASM_PAGE_BYTES);
    if memory_bytes > MAX_MEMORY_BYTES {
        return Err(too_large(memory_bytes));
    }
    let port = |ports: &[PlacedTensor], index: usize, bytes: usize| {
        let batched = ports[index].spec.dims.first() == Some(&sandpiper_core::tensor::Dim::Batch);
        Place {
            base: ports[index].offset,
            step: if batched { bytes as u32 } else { 0 },
        }
    };
    let place = |(buffer, offset): (&crate::lower::Buffer, u64)| match buffer.home {
        Home::Input(i) => port(&inputs, i, buffer.bytes),
        Home::Output(i) => port(&outputs, i, buffer.bytes),
        // Below the memory's size, which fits 32 bits.
        Home::Arena => Place {
            base: (arena + offset) as u32,
            step: 0,
        },
    };
    let buffers = program.buffers.iter().zip(offsets).map(place).collect();
    let region = WeightsRegion {
        offset: 0,
        size_bytes: weights as u32,
        digest: Digest::of(&program.weights.bytes),
    };
    let abi = ModuleAbi {
        abi: ABI_VERSION,
        inputs,
        outputs,
        max_batch,
        memory_bytes,
        weights: (weights > 0).then_some(region),
        bounded: true,
    };
    Ok(Plan {
        places: Places {
            weights: 0,
            buffers,
        },
        abi,
        arena_bytes,
    })
}
