//! One set of pages for the memories of several instances, and for whoever writes their inputs and
//! reads their outputs from another process.

use crate::error::SandboxError;
use rustix::fs::MemfdFlags;
use rustix::mm::{MapFlags, ProtFlags};
use sandpiper_core::abi::{ModuleAbi, WASM_PAGE_BYTES};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
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

/// Whether a file is as long as the memory of the module: pages behind the end of a shorter one would
/// end the process when used.
pub(crate) fn check(pages: &File, abi: &ModuleAbi) -> Result<(), SandboxError> {
    let meta = pages.metadata().map_err(|source| SandboxError::System {
        what: "reading the length of the shared memory",
        source,
    })?;
    if meta.len() == abi.memory_bytes {
        return Ok(());
    }
    let why = format!(
        "it has {} bytes of memory, {} are shared",
        abi.memory_bytes,
        meta.len()
    );
    Err(SandboxError::Refused { why })
}

/// The parts of a memory that are not weights.
pub(crate) fn outside_weights(abi: &ModuleAbi) -> Vec<Range<usize>> {
    let all = abi.memory_bytes as usize;
    let Some(weights) = abi.weights else {
        return std::iter::once(0..all).collect();
    };
    let start = weights.offset as usize;
    let end = (start + weights.size_bytes as usize).next_multiple_of(WASM_PAGE_BYTES as usize);
    vec![0..start, end..all]
}

/// The pages of this host's memory on which inputs and outputs lie. `ModuleAbi::check` keeps tensors
/// out of the weights, which begin and end on pages of their own.
pub(crate) fn around_tensors(abi: &ModuleAbi) -> Vec<Range<usize>> {
    let page_bytes = rustix::param::page_size();
    let tensors = abi.inputs.iter().chain(&abi.outputs);
    let mut ranges: Vec<Range<usize>> = tensors
        .map(|tensor| {
            let start = tensor.offset as usize;
            let end = start + tensor.spec.size_bytes(abi.max_batch);
            start / page_bytes * page_bytes..end.next_multiple_of(page_bytes)
        })
        .collect();
    ranges.sort_by_key(|range| range.start);
    ranges.dedup_by(|next, before| {
        let touch = next.start <= before.end;
        if touch {
            before.end = before.end.max(next.end);
        }
        touch
    });
    ranges
}

/// Maps these parts of `pages` over the same parts of a linear memory. They keep what the memory
/// holds.
pub(crate) fn share(
    memory: Memory,
    store: impl AsContext,
    abi: &ModuleAbi,
    pages: &File,
    parts: &[Range<usize>],
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
    let failed = |source| SandboxError::System {
        what: "mapping shared memory",
        source,
    };
    for part in parts.iter().filter(|part| !part.is_empty()) {
        let held = &memory.data(&store)[part.clone()];
        if held.iter().any(|&byte| byte != 0) {
            pages
                .write_all_at(held, part.start as u64)
                .map_err(failed)?;
        }
        // SAFETY: the slice above shows that the part lies inside the linear memory of `store`,
        // which neither moves nor grows; its ends are multiples of host pages. The pages are only
        // ever used as guest memory. Others write to them at the same time: instances, each its
        // part of a step as the compiler has laid out (a guest that does not keep to that harms
        // nobody but itself), and the owner of the file, between two calls. The host makes slices
        // of the memory only while no instance runs.
        #[allow(unsafe_code)]
        let mapped = unsafe {
            rustix::mm::mmap(
                base.add(part.start).cast(),
                part.len(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::FIXED,
                pages,
                part.start as u64,
            )
        };
        mapped.map_err(|e| failed(e.into()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandpiper_core::abi::{ABI_VERSION, PlacedTensor};
    use sandpiper_core::tensor::{DType, Dim, TensorSpec};

    fn tensor(offset: u32, bytes: u32) -> PlacedTensor {
        let dims = vec![Dim::Fixed(bytes)];
        let (name, dtype) = (offset.to_string(), DType::U8);
        let spec = TensorSpec { name, dtype, dims };
        PlacedTensor { spec, offset }
    }

    #[test]
    fn pages_of_tensors_are_whole_and_each_is_there_once() {
        let page = u32::try_from(rustix::param::page_size()).unwrap_or(u32::MAX);
        let abi = ModuleAbi {
            abi: ABI_VERSION,
            inputs: vec![tensor(5 * page + 1, page), tensor(100, 8)],
            outputs: vec![tensor(200, 8), tensor(page, 1), tensor(6 * page + 8, 1)],
            max_batch: 1,
            memory_bytes: 1 << 20,
            weights: None,
            bounded: true,
        };
        let page = page as usize;
        assert_eq!(around_tensors(&abi), [0..2 * page, 5 * page..7 * page]);
    }
}
