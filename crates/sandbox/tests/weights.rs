//! The weights file, mapped in place.
#![allow(clippy::unwrap_used)]

mod common;

use common::{PATIENT, abi, abi_with_weights, infer, limits, module, run};
use sandpiper_core::abi::ModuleAbi;
use sandpiper_sandbox::{
    InferError, Instance, LoadSpec, Native, Origin, SandboxError, Weights, host_target, load_wasm,
    precompile,
};
use std::path::Path;

const PAGE: usize = 1 << 16;

/// Output 0 is the sum of all bytes of the weights region, whole wasm pages of it; the pages lie
/// behind page 0.
fn summing(pages: usize) -> String {
    let end = pages * PAGE;
    infer(
        pages as u64,
        &format!(
            "(local.set $i (i32.const {PAGE}))
             (loop $next
               (local.set $n (i32.add (local.get $n) (i32.load8_u (local.get $i))))
               (local.set $i (i32.add (local.get $i) (i32.const 1)))
               (br_if $next (i32.lt_u (local.get $i) (i32.const {end}))))
             (i32.store (i32.const 1024) (local.get $n))
             (i32.const 0)"
        ),
    )
}

fn load_file(wat: &str, abi: &ModuleAbi, weights: &Path) -> Result<Instance, SandboxError> {
    let made = precompile(&module(wat, abi), host_target(), Origin::OwnCompiler).unwrap();
    let limits = limits(&made.abi);
    let weights = Some(Weights::File(weights));
    Instance::load(LoadSpec {
        native: Native::Bytes(&made.native),
        abi: made.abi,
        weights,
        limits,
    })
}

fn blob(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n % 251) as u8).collect()
}

fn sum(blob: &[u8]) -> i32 {
    blob.iter().map(|b| i32::from(*b)).sum()
}

#[test]
fn weights_of_any_length_are_read_and_followed_by_zeros() {
    let dir = tempfile::tempdir().unwrap();
    for length in [1, 4095, 4096, 4097, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE] {
        let blob = blob(length);
        let path = dir.path().join(length.to_string());
        std::fs::write(&path, &blob).unwrap();
        let pages = 1 + length.div_ceil(PAGE);
        let abi = abi_with_weights(pages as u64, &blob);
        let mut mapped = load_file(&summing(pages), &abi, &path).unwrap();
        assert_eq!(
            run(&mut mapped).unwrap()[0],
            sum(&blob),
            "{length} bytes from a file"
        );
        for (origin, bounded) in [(Origin::OwnCompiler, true), (Origin::Brought, false)] {
            let abi = ModuleAbi {
                bounded,
                ..abi.clone()
            };
            let wasm = module(&summing(pages), &abi);
            let mut here = load_wasm(&wasm, &blob, origin, PATIENT).unwrap();
            assert_eq!(
                run(&mut here).unwrap()[0],
                sum(&blob),
                "{length} bytes, {origin:?}"
            );
        }
    }
}

#[test]
fn an_empty_blob_is_no_mapping() {
    let abi = abi_with_weights(2, &[]);
    let wasm = module(&summing(2), &abi);
    assert_eq!(
        run(&mut load_wasm(&wasm, &[], Origin::Brought, PATIENT).unwrap()).unwrap()[0],
        0
    );
}

#[test]
fn memory_behind_the_weights_is_writable_and_before_too() {
    let blob = blob(100);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weights");
    std::fs::write(&path, &blob).unwrap();
    let body = "(i32.store (i32.const 131072) (i32.const 3)) (i32.store (i32.const 65532) (i32.const 4))
        (i32.store (i32.const 1024) (i32.add (i32.load (i32.const 131072)) (i32.load (i32.const 65532))))
        (i32.const 0)";
    let mut instance = load_file(&infer(3, body), &abi_with_weights(3, &blob), &path).unwrap();
    assert_eq!(run(&mut instance).unwrap()[0], 7);
}

#[test]
fn a_store_to_the_weights_traps_and_the_file_stays_as_it_is() {
    let blob = blob(100);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weights");
    std::fs::write(&path, &blob).unwrap();
    // At a constant address, at a computed one, a vector, and in the zeros behind the blob.
    for body in [
        "(i32.store (i32.const 65536) (i32.const 9)) (i32.const 0)",
        "(i32.store offset=65536 (local.get $batch) (i32.const 9)) (i32.const 0)",
        "(v128.store (i32.const 65600) (v128.const i64x2 1 2)) (i32.const 0)",
        "(i32.store8 (i32.const 131071) (i32.const 9)) (i32.const 0)",
    ] {
        for bounded in [true, false] {
            let abi = ModuleAbi {
                bounded,
                ..abi_with_weights(2, &blob)
            };
            let mut instance = load_file(&infer(2, body), &abi, &path).unwrap();
            let error = run(&mut instance).unwrap_err();
            assert!(matches!(error, InferError::Trap { .. }), "{body}: {error}");
        }
    }
    assert_eq!(std::fs::read(&path).unwrap(), blob);
}

#[test]
fn in_a_process_that_must_live_even_bulk_stores_are_caught() {
    let blob = blob(100);
    let abi = abi_with_weights(2, &blob);
    for body in [
        "(memory.fill (i32.const 65536) (i32.const 1) (i32.const 100)) (i32.const 0)",
        "(i32.store8 (i32.const 65540) (i32.const 200)) (i32.const 0)",
    ] {
        let wasm = module(&infer(2, body), &abi);
        let mut instance = load_wasm(&wasm, &blob, Origin::Brought, PATIENT).unwrap();
        let error = run(&mut instance).unwrap_err();
        assert_eq!(
            error,
            InferError::Trap {
                reason: "it wrote to its weights".into()
            }
        );
        assert_eq!(run(&mut instance), Err(InferError::Poisoned));
    }
}

#[test]
fn pages_of_the_weights_stay_clean_and_shared() {
    let blob = blob(8 * PAGE);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weights");
    std::fs::write(&path, &blob).unwrap();
    let abi = abi_with_weights(9, &blob);
    let mut one = load_file(&summing(9), &abi, &path).unwrap();
    let mut two = load_file(&summing(9), &abi, &path).unwrap();
    assert_eq!(run(&mut one).unwrap()[0], sum(&blob));
    assert_eq!(run(&mut two).unwrap()[0], sum(&blob));
    let maps = mappings_of(&path);
    assert_eq!(maps.len(), 2, "one mapping for each instance");
    for map in &maps {
        assert!(map.header.contains(" r--p "), "{}", map.header);
        assert_eq!(map.kib("Size"), 512);
        assert_eq!(map.kib("Rss"), 512, "every page was read");
        assert_eq!(map.kib("Private_Dirty"), 0);
        assert_eq!(map.kib("Anonymous"), 0);
    }
    drop(one);
    drop(two);
    assert!(mappings_of(&path).is_empty(), "unmapped with the instances");
}

/// A part of `/proc/self/smaps`.
struct Mapping {
    header: String,
    lines: Vec<String>,
}

impl Mapping {
    fn kib(&self, field: &str) -> u64 {
        let line = self
            .lines
            .iter()
            .find(|l| l.starts_with(&format!("{field}:")))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

fn mappings_of(path: &Path) -> Vec<Mapping> {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut maps: Vec<Mapping> = Vec::new();
    for line in smaps.lines() {
        let is_header = line
            .split_whitespace()
            .next()
            .is_some_and(|w| w.contains('-'));
        match maps.last_mut() {
            Some(map) if !is_header => map.lines.push(line.to_owned()),
            _ => maps.push(Mapping {
                header: line.to_owned(),
                lines: Vec::new(),
            }),
        }
    }
    maps.retain(|m| m.header.ends_with(path.to_str().unwrap()));
    maps
}

#[test]
fn weights_that_do_not_fit_are_refused() {
    let blob = blob(100);
    let abi_with = abi_with_weights(2, &blob);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weights");
    for wrong in [99, 101, 0] {
        std::fs::write(&path, vec![0; wrong]).unwrap();
        let error = load_file(&summing(2), &abi_with, &path).unwrap_err();
        assert!(
            matches!(error, SandboxError::WeightsSize { abi_bytes: 100, .. }),
            "{error}"
        );
        let here = load_wasm(
            &module(&summing(2), &abi_with),
            &vec![0; wrong],
            Origin::Brought,
            PATIENT,
        );
        assert!(matches!(here, Err(SandboxError::WeightsSize { .. })));
    }
    let missing = load_file(&summing(2), &abi_with, &dir.path().join("nowhere")).unwrap_err();
    assert!(missing.to_string().contains("nowhere"), "{missing}");
    let unwanted = load_wasm(
        &module(&summing(2), &abi(2)),
        &blob,
        Origin::Brought,
        PATIENT,
    );
    assert!(matches!(unwanted, Err(SandboxError::WeightsPresence(_))));
    let made = precompile(
        &module(&summing(2), &abi_with),
        host_target(),
        Origin::Brought,
    )
    .unwrap();
    let limits = limits(&made.abi);
    let native = Native::Bytes(&made.native);
    let none = Instance::load(LoadSpec {
        native,
        abi: made.abi,
        weights: None,
        limits,
    });
    assert!(matches!(none, Err(SandboxError::WeightsPresence(_))));
}
