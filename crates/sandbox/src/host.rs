//! What this very CPU can run.

use sandpiper_core::target::{Arch, CpuFeature, Target};
use std::collections::BTreeSet;

/// The architecture this program was built for.
const HOST_ARCH: Arch = if cfg!(target_arch = "x86_64") {
    Arch::X86_64
} else if cfg!(target_arch = "aarch64") {
    Arch::Aarch64
} else {
    Arch::Arm
};

#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    all(target_pointer_width = "32", target_endian = "little")
)))]
compile_error!("no target of Sandpiper fits this architecture");

/// The least target of the architecture, for a CPU that lacks even what that one requires:
/// loading then fails with the name of the missing feature.
const LEAST: Target = match HOST_ARCH {
    Arch::X86_64 => Target::X8664V2,
    Arch::Aarch64 => Target::CortexA53,
    Arch::Arm => Target::Pulley32,
};

/// The best target that this CPU can run.
pub fn host_target() -> Target {
    Target::supported_by(HOST_ARCH, &host_cpu_features())
        .first()
        .copied()
        .unwrap_or(LEAST)
}

/// Features of this CPU that matter to a target or a kernel, by the names that Linux gives them
/// in `/proc/cpuinfo`. Asked of the CPU, so it works without `/proc`.
pub fn host_cpu_features() -> BTreeSet<CpuFeature> {
    detected()
        .into_iter()
        .filter(|(_, present)| *present)
        .map(|(name, _)| name.into())
        .collect()
}

#[cfg(target_arch = "x86_64")]
fn detected() -> Vec<(&'static str, bool)> {
    use std::arch::is_x86_feature_detected as has;
    vec![
        ("ssse3", has!("ssse3")),
        ("sse4_1", has!("sse4.1")),
        ("sse4_2", has!("sse4.2")),
        ("popcnt", has!("popcnt")),
        ("avx", has!("avx")),
        ("avx2", has!("avx2")),
        ("bmi1", has!("bmi1")),
        ("bmi2", has!("bmi2")),
        ("fma", has!("fma")),
        ("abm", has!("lzcnt")),
        ("avx_vnni", has!("avxvnni")),
        ("avx512f", has!("avx512f")),
        ("avx512vl", has!("avx512vl")),
        ("avx512_vnni", has!("avx512vnni")),
    ]
}

#[cfg(target_arch = "aarch64")]
fn detected() -> Vec<(&'static str, bool)> {
    use std::arch::is_aarch64_feature_detected as has;
    vec![
        ("asimd", has!("neon")),
        ("atomics", has!("lse")),
        ("asimddp", has!("dotprod")),
        ("asimdhp", has!("fp16")),
        ("i8mm", has!("i8mm")),
        ("sve", has!("sve")),
    ]
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn detected() -> Vec<(&'static str, bool)> {
    // Interpreted: no feature matters.
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_runs_its_own_target() {
        let target = host_target();
        assert_eq!(target.arch(), HOST_ARCH);
        let features = host_cpu_features();
        assert!(
            target
                .required_features()
                .iter()
                .all(|f| features.contains(*f)),
            "{features:?}"
        );
    }
}
