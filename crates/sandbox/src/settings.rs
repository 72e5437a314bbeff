//! The one engine configuration. Code made with one configuration runs only under the same, so
//! the side that compiles and the side that loads both take it from here.

use crate::error::SandboxError;
use sandpiper_core::digest::Digest;
use sandpiper_core::target::Target;
use wasmtime::{Config, Inlining, ModuleVersionStrategy, WasmBacktraceDetails};

/// Our own part of the version of native code. Raise it when code made before must not be loaded
/// any more: a hole in the compiler, a change of the module ABI, a change of what is mapped where or
/// of what `Settings::shared` sets for every target.
pub const COMPILER_EPOCH: u32 = 1;

/// The wasmtime this build is linked with; a test compares it with Cargo.lock.
pub(crate) const WASMTIME_VERSION: &str = "48.0.8";

const GIB: u64 = 1 << 30;

/// Stack of a guest in bytes. Kernels recurse not at all and hold a few hundred bytes a frame;
/// this leaves room for brought modules and fits the smallest host stack we run on (2 MiB).
const STACK_BYTES: usize = 512 << 10;

/// How the linear memory lies in the address space of the host.
#[derive(Debug, Clone, Copy)]
struct MemoryLayout {
    /// Address space set aside from address 0 of the guest on.
    reservation_bytes: u64,
    /// Inaccessible address space behind it, and in front of it if `guard_before`.
    guard_bytes: u64,
    guard_before: bool,
    /// A bad access is found by the MMU instead of by a comparison.
    signals: bool,
}

/// 64-bit hosts: every 32-bit address plus every constant offset below 2 GiB lands in memory or in
/// a guard, so that loads and stores need no comparison. It costs address space only: 8 GiB of the
/// 512 GiB that the smallest 64-bit kernel of a Pi gives a process, no memory and no page tables.
/// A limit on the address space therefore has to be set after loading, as `lockdown` does; under a
/// smaller one from outside, loading fails and says that it could not reserve the space.
///
/// Measured on x86-64 with AVX2: an f32 matrix product of 96 x 96 x 96 in tiles of 4 x 8 runs at
/// 21.5 GFLOP/s this way and at 19.1 with a comparison for every access (reservation 0).
const NATIVE_64: MemoryLayout = MemoryLayout {
    reservation_bytes: 4 * GIB,
    guard_bytes: 2 * GIB,
    guard_before: true,
    signals: true,
};

/// 32-bit hosts have no address space to set aside: exactly the memory, and comparisons.
const INTERPRETED_32: MemoryLayout = MemoryLayout {
    reservation_bytes: 0,
    guard_bytes: 0,
    guard_before: false,
    signals: false,
};

/// Everything that decides what the native code looks like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    triple: &'static str,
    /// CPU features switched on, in Cranelift's words. Never those of the compiling host.
    isa_flags: &'static [&'static str],
    memory: MemoryLayout,
    /// Epoch checks on every loop and call: only for code whose loops nobody vouches for.
    epochs: bool,
}

impl Settings {
    /// Settings for a target. `bounded`: every loop ends by construction, so no epochs.
    pub(crate) fn of(target: Target, bounded: bool) -> Self {
        // Only what `Target::required_features` demands of a device may be switched on here.
        let (triple, isa_flags, memory): (_, &'static [&'static str], _) = match target {
            Target::X8664V2 => (
                "x86_64-unknown-linux-gnu",
                &[
                    "has_sse3",
                    "has_ssse3",
                    "has_sse41",
                    "has_sse42",
                    "has_popcnt",
                ],
                NATIVE_64,
            ),
            Target::X8664V3 => (
                "x86_64-unknown-linux-gnu",
                &[
                    "has_sse3",
                    "has_ssse3",
                    "has_sse41",
                    "has_sse42",
                    "has_popcnt",
                    "has_avx",
                    "has_avx2",
                    "has_bmi1",
                    "has_bmi2",
                    "has_fma",
                ],
                NATIVE_64,
            ),
            Target::CortexA53 => ("aarch64-unknown-linux-gnu", &[], NATIVE_64),
            Target::CortexA76 => (
                "aarch64-unknown-linux-gnu",
                &["has_lse", "has_dotprod"],
                NATIVE_64,
            ),
            Target::Pulley32 => ("pulley32", &[], INTERPRETED_32),
        };
        Self {
            triple,
            isa_flags,
            memory,
            epochs: !bounded,
        }
    }

    /// All of it in words, to be hashed: devices and controllers of one version agree on them.
    fn text(self) -> String {
        let Self {
            triple,
            isa_flags,
            memory,
            epochs,
        } = self;
        let MemoryLayout {
            reservation_bytes,
            guard_bytes,
            guard_before,
            signals,
        } = memory;
        let flags = isa_flags.join(",");
        format!(
            "{triple} flags={flags} reservation={reservation_bytes} guard={guard_bytes} \
             guard_before={guard_before} signals={signals} epochs={epochs}"
        )
    }

    /// Configuration of an engine that only loads. It is the one of the host's own target, with
    /// no triple set, so that code made for glibc also loads in a static musl build.
    pub(crate) fn loading(self) -> Result<Config, SandboxError> {
        let mut config = Config::new();
        self.shared(&mut config)?;
        // Another crate of the build may have switched the compiler in: loading never needs it.
        #[cfg(feature = "compile")]
        config.enable_compiler(false);
        Ok(config)
    }

    /// Configuration of an engine that makes native code for the target.
    #[cfg(feature = "compile")]
    pub(crate) fn compiling(self) -> Result<Config, SandboxError> {
        let mut config = Config::new();
        config.target(self.triple).map_err(engine_error)?;
        self.shared(&mut config)?;
        config.cranelift_opt_level(wasmtime::OptLevel::Speed);
        // Our own compiler says which branches are hardly ever taken; nobody else is asked.
        config.wasm_branch_hinting(!self.epochs);
        for flag in self.isa_flags {
            // SAFETY: the flags only name CPU features. A device without one of them refuses the
            // code at load, so no instruction reaches a CPU that lacks it.
            #[allow(unsafe_code)]
            unsafe {
                config.cranelift_flag_enable(flag);
            }
        }
        Ok(config)
    }

    /// What both sides must agree on.
    fn shared(self, config: &mut Config) -> Result<(), SandboxError> {
        config
            .module_version(ModuleVersionStrategy::Custom(version()))
            .map_err(engine_error)?
            .epoch_interruption(self.epochs)
            .consume_fuel(false)
            .max_wasm_stack(STACK_BYTES)
            .memory_reservation(self.memory.reservation_bytes)
            .memory_reservation_for_growth(0)
            .memory_guard_size(self.memory.guard_bytes)
            .guard_before_linear_memory(self.memory.guard_before)
            .signals_based_traps(self.memory.signals)
            // A memory has its final size from the start, so it never has to move.
            .memory_may_move(false)
            // An initial image mapped by wasmtime would lie over the weights that we map.
            .memory_init_cow(false)
            .relaxed_simd_deterministic(false)
            .compiler_inlining(Inlining::No);
        // Exactly the language we want to support: the smaller, the fewer holes.
        config
            .wasm_simd(true)
            .wasm_relaxed_simd(true)
            .wasm_bulk_memory(true)
            .wasm_multi_value(true)
            .wasm_extended_const(true)
            .wasm_tail_call(false)
            .wasm_multi_memory(false)
            .wasm_memory64(false)
            .wasm_custom_page_sizes(false)
            .wasm_wide_arithmetic(false)
            .wasm_stack_switching(false)
            .shared_memory(false);
        // Nobody debugs on a device; and the default reads an environment variable.
        config
            .wasm_backtrace_details(WasmBacktraceDetails::Disable)
            .wasm_backtrace_max_frames(None)
            .native_unwind_info(false)
            .generate_address_map(false)
            .debug_symbols(false);
        Ok(())
    }
}

/// Version that is written into native code and demanded of it.
pub(crate) fn version() -> String {
    format!("{WASMTIME_VERSION}+{COMPILER_EPOCH}")
}

/// Names the runtime that can load native code for `target`: version of wasmtime, our epoch, and a
/// hash of the configuration. A manifest carries the key its code was made with, a device profile
/// the keys it can load; code whose key a device does not list is not even downloaded.
///
/// `bounded` as in [`sandpiper_core::abi::ModuleAbi::bounded`].
pub fn runtime_key(target: Target, bounded: bool) -> String {
    let settings = Settings::of(target, bounded).text();
    format!("{}-{}", version(), Digest::of(settings.as_bytes()).short())
}

pub(crate) fn engine_error(error: wasmtime::Error) -> SandboxError {
    SandboxError::Engine {
        reason: format!("{error:#}"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn version_is_the_linked_one() {
        let lock = include_str!("../../../Cargo.lock");
        let entry = format!("name = \"wasmtime\"\nversion = \"{WASMTIME_VERSION}\"\n");
        assert!(
            lock.contains(&entry),
            "WASMTIME_VERSION differs from Cargo.lock"
        );
    }

    #[test]
    fn keys_tell_targets_and_deadlines_apart() {
        let keys: BTreeSet<_> = Target::ALL
            .into_iter()
            .flat_map(|t| [runtime_key(t, true), runtime_key(t, false)])
            .collect();
        assert_eq!(keys.len(), 2 * Target::ALL.len());
        assert!(keys.iter().all(|k| k.starts_with("48.0.8+1-")), "{keys:?}");
    }

    #[test]
    fn flags_ask_for_no_more_than_the_target_requires() {
        for target in Target::ALL {
            for flag in Settings::of(target, true).isa_flags {
                let linux = match flag.strip_prefix("has_").unwrap() {
                    "sse3" => continue, // implied by ssse3
                    "sse41" => "sse4_1",
                    "sse42" => "sse4_2",
                    "lse" => "atomics",
                    "dotprod" => "asimddp",
                    same => same,
                };
                assert!(
                    target.required_features().contains(&linux),
                    "{target}: {flag}"
                );
            }
        }
    }
}
