//! What a guest may take.

use std::time::Duration;
use wasmtime::ResourceLimiter;

/// Entries a table may have. Modules from other compilers carry a table for indirect calls; this
/// allows every sensible one and costs 64 KiB at most.
pub(crate) const MAX_TABLE_ENTRIES: usize = 4096;

/// Limits of one module.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest linear memory in bytes. The guest gets exactly the memory of its ABI; a module whose
    /// ABI says more than this is not loaded.
    pub memory_bytes: u64,
    /// Longest time one call may take. Enforced inside the process for modules that are not
    /// bounded; a bounded one is compiled without checks, and whoever runs it in a process of its
    /// own kills that process.
    pub deadline: Duration,
}

/// Grants exactly the planned memory, one instance, and nothing later.
#[derive(Debug)]
pub(crate) struct Limiter {
    pub(crate) planned_bytes: usize,
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= self.planned_bytes)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= MAX_TABLE_ENTRIES)
    }

    fn instances(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        1
    }

    fn memories(&self) -> usize {
        1
    }
}
