//! The weights file, mapped in place into the linear memory: nothing is parsed, nothing copied,
//! and the pages stay clean, so that the kernel can drop and reread them at will.
//!
//! A store of the guest to a mapped page traps. Whoever shortens the file after it was mapped
//! makes reads of it end the process with SIGBUS; files in the artefact store never change.

use crate::error::SandboxError;
use rustix::fs::MemfdFlags;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
use sandpiper_core::abi::{WASM_PAGE_BYTES, WeightsRegion};
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use wasmtime::{AsContext, Memory};

/// Opens a weights file and checks its length.
pub(crate) fn open(path: &Path, region: &WeightsRegion) -> Result<File, SandboxError> {
    let failed = |what, source| SandboxError::File {
        what,
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(|e| failed("opening the weights file", e))?;
    let meta = file
        .metadata()
        .map_err(|e| failed("reading the length of", e))?;
    check_size(meta.len(), region)?;
    Ok(file)
}

/// A file in memory with these bytes, for weights that are on no disk.
pub(crate) fn in_memory(bytes: &[u8]) -> Result<File, SandboxError> {
    let failed = |source| SandboxError::System {
        what: "making a file in memory",
        source,
    };
    let fd =
        rustix::fs::memfd_create("weights", MemfdFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
    let mut file = File::from(fd);
    file.write_all(bytes).map_err(failed)?;
    Ok(file)
}

/// The weights must be exactly as long as the ABI says.
pub(crate) fn check_size(actual_bytes: u64, region: &WeightsRegion) -> Result<(), SandboxError> {
    let abi_bytes = u64::from(region.size_bytes);
    if actual_bytes == abi_bytes {
        Ok(())
    } else {
        Err(SandboxError::WeightsSize {
            actual_bytes,
            abi_bytes,
        })
    }
}

/// Maps `file` read-only over `region` of a linear memory.
///
/// `file` has exactly the length of the region (see [`check_size`]) and no guest code has run yet.
pub(crate) fn map(
    memory: Memory,
    store: impl AsContext,
    region: &WeightsRegion,
    file: &File,
) -> Result<(), SandboxError> {
    let page_bytes = rustix::param::page_size();
    let size_bytes = region.size_bytes as usize;
    let start = region.offset as usize;
    let mapped_bytes = size_bytes.next_multiple_of(page_bytes);
    let region_bytes = size_bytes.next_multiple_of(WASM_PAGE_BYTES as usize);
    if size_bytes == 0 {
        return Ok(());
    }
    let base = memory.data_ptr(&store);
    let inside = start
        .checked_add(region_bytes)
        .is_some_and(|e| e <= memory.data_size(&store));
    if !inside || !(base as usize + start).is_multiple_of(page_bytes) {
        // 16 KiB pages (Pi 5) divide a wasm page too; a host with larger ones is not supported.
        let why = "its weights region is not on whole pages of this host's memory";
        return Err(SandboxError::Refused { why: why.into() });
    }
    let failed = |e: rustix::io::Errno| SandboxError::System {
        what: "mapping the weights into the module's memory",
        source: e.into(),
    };
    // SAFETY: base + start .. + region_bytes lies inside the linear memory of `store` (checked
    // above), begins and ends on host pages, and that memory neither moves nor grows. The pages
    // are only ever used as guest memory: replacing them by a read-only mapping changes their
    // contents and turns guest stores into traps. No reference into the memory is alive here, and
    // later ones never write to the region, since `ModuleAbi::check` forbids tensors in it.
    #[allow(unsafe_code)]
    unsafe {
        let place = base.add(start);
        rustix::mm::mmap(
            place.cast(),
            mapped_bytes,
            ProtFlags::READ,
            MapFlags::PRIVATE | MapFlags::FIXED,
            file,
            0,
        )
        .map_err(failed)?;
        // Pages behind the end of the file would end the process when read; these are the zeros
        // that the memory began with.
        if region_bytes > mapped_bytes {
            rustix::mm::mprotect(
                place.add(mapped_bytes).cast(),
                region_bytes - mapped_bytes,
                MprotectFlags::READ,
            )
            .map_err(failed)?;
        }
    }
    Ok(())
}
