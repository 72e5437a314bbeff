//! One set of pages for the memories of several instances.

use crate::error::SandboxError;
use rustix::fs::MemfdFlags;
use rustix::mm::{MapFlags, ProtFlags};
use sandpiper_core::abi::{ModuleAbi, WASM_PAGE_BYTES};
use std::fs::File;
use wasmtime::{AsContext, Memory};

/// Pages full of zeros for a whole memory of the module.
pub(crate) fn zeros(abi: &ModuleAbi) -> Result<File, SandboxError> {
    let failed = |source| SandboxError::System {
        what: "making memory to share",
        source,
    };
    let fd =
        rustix::fs::memfd_create("pages", MemfdFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
    let file = File::from(fd);
    file.set_len(abi.memory_bytes).map_err(failed)?;
    Ok(file)
}

/// The parts of a memory that are not weights: offset and length.
fn outside_weights(abi: &ModuleAbi) -> [(u64, u64); 2] {
    let Some(weights) = abi.weights else {
        return [(0, abi.memory_bytes), (0, 0)];
    };
    let start = u64::from(weights.offset);
    let end = (start + u64::from(weights.size_bytes)).next_multiple_of(WASM_PAGE_BYTES);
    [(0, start), (end, abi.memory_bytes - end)]
}

/// Maps `pages` over a linear memory, except for the weights, which are mapped already. What the
/// memory held before is lost; modules with steps hold zeros.
pub(crate) fn share(
    memory: Memory,
    store: impl AsContext,
    abi: &ModuleAbi,
    pages: &File,
) -> Result<(), SandboxError> {
    let page_bytes = rustix::param::page_size();
    let base = memory.data_ptr(&store);
    if !(base as usize).is_multiple_of(page_bytes)
        || !(WASM_PAGE_BYTES as usize).is_multiple_of(page_bytes)
        || memory.data_size(&store) as u64 != abi.memory_bytes
    {
        let why = "its memory is not on whole pages of this host's memory";
        return Err(SandboxError::Refused { why: why.into() });
    }
    for (offset, bytes) in outside_weights(abi) {
        if bytes == 0 {
            continue;
        }
        // SAFETY: offset .. offset + bytes lies inside the linear memory of `store`, whose size was
        // checked above and which neither moves nor grows; both are multiples of wasm pages, and so
        // of host pages. The pages are only ever used as guest memory. Other instances write to
        // them at the same time, each its part of a step, as the compiler has laid out; a guest
        // that does not keep to that harms nobody but itself. The host makes slices of the memory
        // only while no instance runs.
        #[allow(unsafe_code)]
        let mapped = unsafe {
            rustix::mm::mmap(
                base.add(offset as usize).cast(),
                bytes as usize,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::FIXED,
                pages,
                offset,
            )
        };
        mapped.map_err(|e| SandboxError::System {
            what: "mapping shared memory",
            source: e.into(),
        })?;
    }
    Ok(())
}
