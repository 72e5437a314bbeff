//! The modules of `examples/brought`, loaded and run as artefacts that somebody brings.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use common::PATIENT;
use sandpiper_core::abi::ModuleAbi;
use sandpiper_core::target::Target;
use sandpiper_sandbox::{InferError, Origin, load_wasm, precompile};
use std::path::{Path, PathBuf};
use std::process::Command;

const SAMPLES: usize = 256;

fn example(file: &str) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.join("../../examples/brought").join(file)
}

fn assembled() -> Vec<u8> {
    wat::parse_file(example("vibration.wat")).unwrap()
}

/// A batch of signals that differ.
fn signals(batch: usize) -> Vec<f32> {
    let sample = |i: usize| ((i * 37 % 101) as f32 - 40.0) * (1 + i / SAMPLES) as f32 / 16.0;
    (0..batch * SAMPLES).map(sample).collect()
}

/// What the example promises, computed in 64-bit floats.
fn features(samples: &[f32]) -> [f64; 3] {
    let n = samples.len() as f64;
    let mean = samples.iter().map(|s| f64::from(*s)).sum::<f64>() / n;
    let far = || samples.iter().map(|s| f64::from(*s) - mean);
    let variance = far().map(|d| d * d).sum::<f64>() / n;
    [mean, variance, far().map(f64::abs).fold(0.0, f64::max)]
}

/// Loads a module and holds its results for every batch against [`features`].
fn keeps_its_promise(wasm: &[u8]) {
    let mut module = load_wasm(wasm, &[], Origin::Brought, PATIENT).unwrap();
    let mut outputs = [Vec::new()];
    for batch in 1..=8 {
        let x = signals(batch);
        let bytes: Vec<u8> = x.iter().flat_map(|v| v.to_le_bytes()).collect();
        module.infer(batch as u32, &[&bytes], &mut outputs).unwrap();
        let found = outputs[0]
            .as_chunks()
            .0
            .iter()
            .map(|b| f64::from(f32::from_le_bytes(*b)));
        let expected: Vec<f64> = x.chunks(SAMPLES).flat_map(features).collect();
        assert_eq!(outputs[0].len(), 4 * expected.len());
        for (a, b) in found.zip(&expected) {
            assert!(
                (a - b).abs() <= 1e-4 * b.abs().max(1.0),
                "{a} instead of {b}, batch {batch}"
            );
        }
    }
    let refused = module.infer(9, &[&vec![0; 9 * 4 * SAMPLES]], &mut outputs);
    assert_eq!(refused, Err(InferError::BadBatch { batch: 9, max: 8 }));
}

#[test]
fn the_text_form_keeps_its_promise() {
    keeps_its_promise(&assembled());
}

#[test]
fn it_becomes_native_code_for_every_target_with_the_abi_of_its_section() {
    let abi = std::fs::read(example("abi.json")).unwrap();
    let abi = ModuleAbi::from_section(&abi).unwrap();
    for target in Target::ALL {
        let made = precompile(&assembled(), target, Origin::Brought).unwrap();
        assert_eq!(made.abi, abi, "{target}");
        let again = precompile(&assembled(), target, Origin::Brought).unwrap();
        assert_eq!(
            made, again,
            "{target}: the same module gives the same bytes"
        );
    }
}

/// Built as its head says, where the toolchain has the target.
#[test]
fn the_form_in_rust_keeps_its_promise() {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let target = ["--target", "wasm32-unknown-unknown"];
    let library = Command::new(&rustc)
        .args(target)
        .args(["--print", "target-libdir"])
        .output();
    let library = String::from_utf8(library.unwrap().stdout).unwrap();
    if !Path::new(library.trim()).is_dir() {
        println!(
            "skipped: this toolchain has no target wasm32-unknown-unknown (rustup target add)"
        );
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let wasm = dir.path().join("vibration.wasm");
    let options = [
        "--edition",
        "2021",
        "--crate-type",
        "cdylib",
        "-O",
        "-C",
        "panic=abort",
    ];
    let linker = [
        "-zstack-size=16384",
        "--stack-first",
        "--initial-memory=65536",
        "--max-memory=65536",
    ];
    let built = Command::new(&rustc)
        .args(target)
        .args(options)
        .args(linker.map(|l| format!("-Clink-arg={l}")))
        .arg("-o")
        .arg(&wasm)
        .arg(example("vibration.rs"))
        .status();
    assert!(built.unwrap().success());
    keeps_its_promise(&std::fs::read(&wasm).unwrap());
}
