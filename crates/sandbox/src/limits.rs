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

#[cfg(all(test, feature = "compile"))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::error::SandboxError;
    use crate::instance::{Instance, LoadSpec, Native};
    use crate::settings::Settings;
    use sandpiper_core::abi::ModuleAbi;
    use wasmtime::Engine;

    /// Native code that nobody has inspected, made as ours is.
    fn load(tables: &str) -> Result<Instance, SandboxError> {
        let wat = format!(
            "(module (memory (export \"memory\") 1 1) {tables}
               (func (export \"infer\") (param i32) (result i32) (i32.const 0)))"
        );
        let config = Settings::of(crate::host_target(), true)
            .compiling()
            .unwrap();
        let engine = Engine::new(&config).unwrap();
        let native = engine
            .precompile_module(&wat::parse_str(wat).unwrap())
            .unwrap();
        let abi = ModuleAbi {
            abi: 1,
            inputs: vec![],
            outputs: vec![],
            max_batch: 1,
            memory_bytes: 65_536,
            weights: None,
            bounded: true,
        };
        Instance::load(LoadSpec {
            native: Native::Bytes(&native),
            weights: None,
            limits: Limits {
                memory_bytes: abi.memory_bytes,
                deadline: Duration::from_secs(60),
            },
            abi,
        })
    }

    #[test]
    fn huge_tables_in_native_code_are_not_made() {
        load("(table 4096 4096 funcref)").unwrap();
        for tables in [
            "(table 4097 4097 funcref)",
            "(table 10000000 10000000 funcref)",
            "(table 10000000 funcref)",
            "(table 1 1 funcref) (table 1 1 funcref)",
        ] {
            let refused = load(tables);
            assert!(
                matches!(refused, Err(SandboxError::Instantiate { .. })),
                "{tables}: {refused:?}"
            );
        }
    }
}
