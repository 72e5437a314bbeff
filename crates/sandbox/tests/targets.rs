//! Native code: made for every target on any host, refused wherever it does not fit.
#![allow(clippy::unwrap_used)]

mod common;

use common::{ADD_ONE, abi, infer, load_native, module, run};
use sandpiper_core::abi::ModuleAbi;
use sandpiper_core::target::{Arch, Target};
use sandpiper_sandbox::{
    COMPILER_EPOCH, Instance, Limits, LoadSpec, Native, Origin, Precompiled, SandboxError,
    host_target, precompile, run_once, runtime_key,
};
use std::path::Path;

/// Vector code too, so that the CPU features of the targets matter.
const VECTORS: &str = "
    (v128.store (i32.const 1024)
      (i32x4.add (v128.load (i32.const 0))
        (i32x4.splat (i32.popcnt (i32.shl (i32.const 1) (local.get $batch))))))
    (drop (f32x4.relaxed_madd (v128.load (i32.const 0)) (v128.load (i32.const 16)) (v128.load (i32.const 32))))
    (drop (i32x4.relaxed_dot_i8x16_i7x16_add_s (v128.load (i32.const 0)) (v128.load (i32.const 16)) (v128.load (i32.const 32))))
    (i32.const 0)";

fn made(target: Target, bounded: bool) -> Precompiled {
    let abi = ModuleAbi { bounded, ..abi(1) };
    precompile(
        &module(&infer(1, VECTORS), &abi),
        target,
        Origin::OwnCompiler,
    )
    .unwrap()
}

fn refusal(native: &[u8], bounded: bool) -> String {
    let abi = ModuleAbi { bounded, ..abi(1) };
    match load_native(native, abi) {
        Err(error @ SandboxError::Native { .. }) => error.to_string(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was loaded"),
    }
}

#[test]
fn every_target_can_be_made_here_and_twice_the_same() {
    for target in Target::ALL {
        for bounded in [true, false] {
            let one = made(target, bounded);
            assert_eq!(one, made(target, bounded), "{target}");
            assert_eq!(one.runtime_key, runtime_key(target, bounded));
            assert_eq!(one.abi.bounded, bounded);
        }
    }
}

#[test]
fn code_of_every_target_of_this_host_runs() {
    let features = sandpiper_sandbox::host_cpu_features();
    for target in Target::supported_by(host_target().arch(), &features) {
        for bounded in [true, false] {
            let made = made(target, bounded);
            let mut instance = load_native(&made.native, made.abi).unwrap();
            assert_eq!(
                run(&mut instance).unwrap(),
                [2, 3, 4, 5],
                "{target} {bounded}"
            );
        }
    }
}

#[test]
fn code_for_another_architecture_is_refused() {
    for target in Target::ALL
        .into_iter()
        .filter(|t| t.arch() != host_target().arch())
    {
        let text = refusal(&made(target, true).native, true);
        assert!(text.contains("architecture"), "{target}: {text}");
    }
    // x86-64 and aarch64 hosts each have the other one's targets to refuse.
    assert!(
        Target::ALL
            .into_iter()
            .any(|t| t.arch() != host_target().arch() && t.arch() != Arch::Arm)
    );
}

#[test]
fn code_from_another_epoch_or_version_is_refused() {
    let mut native = made(host_target(), true).native;
    let version = format!("+{COMPILER_EPOCH}").into_bytes();
    let at = (6..native.len() - version.len())
        .find(|&at| native[at..].starts_with(&version) && native[at - 6..].starts_with(b"48.0.8"))
        .unwrap();
    native[at + 1] ^= 1;
    assert!(refusal(&native, true).contains("incompatible version"));
    native[at + 1] ^= 1;
    native[at - 1] ^= 1;
    assert!(refusal(&native, true).contains("incompatible version"));
}

#[test]
fn code_with_and_without_deadline_checks_is_told_apart() {
    assert!(refusal(&made(host_target(), true).native, false).contains("epoch interruption"));
    assert!(refusal(&made(host_target(), false).native, true).contains("epoch interruption"));
}

#[test]
fn truncated_and_foreign_files_are_refused() {
    let native = made(host_target(), true).native;
    for length in [0, 1, 63, 64, 1000, native.len() / 2, native.len() - 1] {
        refusal(&native[..length], true);
    }
    refusal(b"#!/bin/sh\n", true);
    refusal(&module(&infer(1, ADD_ONE), &abi(1)), true);
    let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    refusal(&own, true);
}

#[test]
fn damage_in_the_headers_is_refused() {
    // wasmtime checks its headers, not its code: the digest of the whole file is what protects.
    let mut native = made(host_target(), true).native;
    for at in [0, 1, 4, 7] {
        native[at] ^= 0xff;
        refusal(&native, true);
        native[at] ^= 0xff;
    }
}

#[test]
fn a_file_loads_like_bytes_and_a_missing_one_is_named() {
    let made = made(host_target(), true);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("code");
    std::fs::write(&path, &made.native).unwrap();
    let load = |path: &Path| {
        let limits = Limits {
            memory_bytes: 1 << 16,
            deadline: common::PATIENT,
        };
        let abi = made.abi.clone();
        Instance::load(LoadSpec {
            native: Native::File(path),
            abi,
            weights: None,
            limits,
        })
    };
    assert_eq!(run(&mut load(&path).unwrap()).unwrap(), [2, 3, 4, 5]);
    let missing = load(&dir.path().join("nowhere")).unwrap_err();
    assert!(missing.to_string().contains("nowhere"), "{missing}");
    std::fs::write(&path, b"").unwrap();
    assert!(matches!(load(&path), Err(SandboxError::Native { .. })));
}

#[test]
fn one_call_runs_a_module() {
    let wasm = module(&infer(1, ADD_ONE), &abi(1));
    let input = common::bytes(&[5, 6, 7, 8]);
    for origin in [Origin::OwnCompiler, Origin::Brought] {
        let outputs = run_once(&wasm, &[], origin, 1, &[&input]).unwrap();
        assert_eq!(common::numbers(&outputs[0]), [6, 7, 8, 9]);
    }
    assert!(run_once(&wasm, &[1], Origin::Brought, 1, &[&input]).is_err());
}
