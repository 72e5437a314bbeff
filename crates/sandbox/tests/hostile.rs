//! Modules that misbehave once they run, and what becomes of their process: nothing.
#![allow(clippy::unwrap_used)]

mod common;

use common::{ADD_ONE, abi, brought, bytes, infer, load_native, module, numbers, run};
use sandpiper_core::abi::ModuleAbi;
use sandpiper_sandbox::{
    InferError, Instance, Origin, SandboxError, host_target, load_wasm, precompile,
};
use std::time::Duration;

fn load(body: &str) -> Instance {
    brought(&infer(1, body), &abi(1)).unwrap()
}

/// It traps, every later call says so, and a module loaded afterwards works.
fn traps(body: &str, part: &str) {
    let mut instance = load(body);
    match run(&mut instance) {
        Err(InferError::Trap { reason }) => {
            assert!(reason.contains(part), "`{part}` is not in `{reason}`");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(run(&mut instance), Err(InferError::Poisoned));
    assert_eq!(run(&mut load(ADD_ONE)).unwrap(), [2, 3, 4, 5]);
}

#[test]
fn a_good_module_answers_every_batch() {
    let mut instance = load(ADD_ONE);
    for batch in [1, 8, 3] {
        let input: Vec<i32> = (0..batch * 4).collect();
        let mut outputs = [Vec::new()];
        let batch = u32::try_from(batch).unwrap();
        instance
            .infer(batch, &[&bytes(&input)], &mut outputs)
            .unwrap();
        let expected: Vec<i32> = input.iter().map(|n| n + 1).collect();
        assert_eq!(numbers(&outputs[0]), expected);
    }
}

#[test]
fn wrong_calls_are_answered_and_leave_the_instance_alone() {
    let mut instance = load(ADD_ONE);
    let good = bytes(&[1, 2, 3, 4]);
    let mut out = [Vec::new()];
    let bad_batch = |batch| InferError::BadBatch { batch, max: 8 };
    assert_eq!(instance.infer(0, &[&good], &mut out), Err(bad_batch(0)));
    assert_eq!(instance.infer(9, &[&good], &mut out), Err(bad_batch(9)));
    assert_eq!(
        instance.infer(1, &[&good[..15]], &mut out),
        Err(InferError::WrongSize {
            tensor: "x".into(),
            expected_bytes: 16,
            actual_bytes: 15
        })
    );
    assert!(matches!(
        instance.infer(2, &[&good], &mut out),
        Err(InferError::WrongSize { .. })
    ));
    assert_eq!(
        instance.infer(1, &[], &mut out),
        Err(InferError::WrongCount {
            kind: "inputs",
            expected: 1,
            actual: 0
        })
    );
    assert_eq!(
        instance.infer(1, &[&good], &mut []),
        Err(InferError::WrongCount {
            kind: "outputs",
            expected: 1,
            actual: 0
        })
    );
    assert_eq!(run(&mut instance).unwrap(), [2, 3, 4, 5]);
}

#[test]
fn an_error_code_is_passed_on_and_not_fatal() {
    let mut instance = load("(i32.const 7)");
    assert_eq!(run(&mut instance), Err(InferError::Code(7)));
    assert_eq!(run(&mut instance), Err(InferError::Code(7)));
}

#[test]
fn arithmetic_traps() {
    traps("(unreachable)", "unreachable");
    traps(
        "(i32.div_s (local.get $batch) (local.get $i))",
        "divide by zero",
    );
    traps(
        "(i32.div_s (i32.const 0x80000000) (i32.const -1))",
        "overflow",
    );
    traps("(i32.trunc_f32_s (f32.const nan))", "conversion to integer");
}

#[test]
fn every_access_outside_the_memory_traps() {
    // Just behind the end, straddling it, far behind, with large constant offsets, at the top.
    for (address, offset) in [
        ("65536", 0),
        ("65533", 0),
        ("65532", 4),
        ("131072", 0),
        ("0x7fffffff", 0),
        ("-1", 0),
        ("-4", 0),
        ("0", 0x7fff_ffff_u32),
        ("-1", 0x7fff_ffff),
        ("0", u32::MAX),
        ("-1", u32::MAX),
    ] {
        let at = format!("offset={offset} (i32.sub (i32.const {address}) (local.get $i))");
        traps(&format!("(i32.load {at})"), "out of bounds");
        traps(
            &format!("(i32.store {at} (i32.const 1)) (i32.const 0)"),
            "out of bounds",
        );
        traps(
            &format!("(drop (v128.load {at})) (i32.const 0)"),
            "out of bounds",
        );
    }
    traps(
        "(memory.fill (i32.const 65000) (i32.const 1) (i32.const 600)) (i32.const 0)",
        "out of bounds",
    );
    traps(
        "(memory.copy (i32.const 0) (i32.const 65530) (i32.const 10)) (i32.const 0)",
        "out of bounds",
    );
}

#[test]
fn the_last_bytes_of_the_memory_are_usable() {
    let mut instance = load(
        "(i32.store (i32.const 65532) (i32.const 5)) (i32.sub (i32.load (i32.const 65532)) (i32.const 5))",
    );
    assert!(run(&mut instance).is_ok());
}

#[test]
fn deep_recursion_overflows_its_own_stack_only() {
    let wat = "(module (memory (export \"memory\") 1 1)
        (func $deep (export \"infer\") (param i32) (result i32)
          (i32.add (call $deep (local.get 0)) (i32.const 1))))";
    let mut instance = brought(wat, &abi(1)).unwrap();
    match run(&mut instance) {
        Err(InferError::Trap { reason }) => assert!(reason.contains("call stack"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn endless_loops_end_at_the_deadline() {
    let bodies = [
        "(loop $l (br $l)) (i32.const 0)",
        "(loop $l (memory.fill (i32.const 0) (i32.const 1) (i32.const 65536)) (br $l)) (i32.const 0)",
    ];
    for body in bodies {
        let deadline = Duration::from_millis(30);
        let wasm = module(&infer(1, body), &abi(1));
        let mut instance = load_wasm(&wasm, &[], Origin::Brought, deadline).unwrap();
        assert_eq!(run(&mut instance), Err(InferError::Deadline));
        assert_eq!(run(&mut instance), Err(InferError::Poisoned));
    }
    let recursive = "(module (memory (export \"memory\") 1 1)
        (func (export \"infer\") (param i32) (result i32) (loop $l (call $leaf) (br $l)) (i32.const 0))
        (func $leaf))";
    let wasm = module(recursive, &abi(1));
    let mut instance = load_wasm(&wasm, &[], Origin::Brought, Duration::from_millis(30)).unwrap();
    assert_eq!(run(&mut instance), Err(InferError::Deadline));
}

#[test]
fn a_brought_module_that_claims_to_be_bounded_is_not_believed() {
    let claim = ModuleAbi {
        bounded: true,
        ..abi(1)
    };
    let wasm = module(&infer(1, "(loop $l (br $l)) (i32.const 0)"), &claim);
    let made = precompile(&wasm, host_target(), Origin::Brought).unwrap();
    assert!(!made.abi.bounded);
    let mut instance = load_wasm(&wasm, &[], Origin::Brought, Duration::from_millis(30)).unwrap();
    assert_eq!(run(&mut instance), Err(InferError::Deadline));
}

#[test]
fn a_deadline_counts_for_each_call_alone() {
    // Many quick calls take longer together than the deadline of one, over and over.
    let wasm = module(&infer(1, ADD_ONE), &abi(1));
    let deadline = Duration::from_secs(2);
    let mut instance = load_wasm(&wasm, &[], Origin::Brought, deadline).unwrap();
    let begun = std::time::Instant::now();
    while begun.elapsed() < 2 * deadline {
        assert_eq!(run(&mut instance).unwrap(), [2, 3, 4, 5]);
    }
}

#[test]
fn memory_does_not_grow() {
    let mut instance = load(
        "(i32.or (i32.ne (memory.grow (i32.const 1)) (i32.const -1))
                 (i32.ne (memory.grow (i32.const 60000)) (i32.const -1)))",
    );
    assert!(
        run(&mut instance).is_ok(),
        "growing must fail and the module go on"
    );
    assert!(run(&mut load("(i32.sub (memory.size) (i32.const 1))")).is_ok());
}

#[test]
fn tables_do_not_grow() {
    let wat = "(module (memory (export \"memory\") 1 1) (table $t 4 4 funcref)
        (func (export \"infer\") (param i32) (result i32)
          (i32.ne (table.grow $t (ref.null func) (i32.const 1)) (i32.const -1))))";
    assert!(run(&mut brought(wat, &abi(1)).unwrap()).is_ok());
    let null = "(module (memory (export \"memory\") 1 1) (table $t 4 4 funcref) (type $f (func (result i32)))
        (func (export \"infer\") (param i32) (result i32) (call_indirect (type $f) (local.get 0))))";
    let mut instance = brought(null, &abi(1)).unwrap();
    assert!(matches!(run(&mut instance), Err(InferError::Trap { .. })));
}

#[test]
fn a_module_larger_than_its_limit_is_not_loaded() {
    let abi = abi(4);
    let made = precompile(
        &module(&infer(4, ADD_ONE), &abi),
        host_target(),
        Origin::Brought,
    )
    .unwrap();
    let smaller = ModuleAbi {
        memory_bytes: 3 << 16,
        ..abi.clone()
    };
    // A manifest that states less than the module takes.
    let error = load_native(&made.native, smaller).unwrap_err();
    assert!(matches!(error, SandboxError::Instantiate { .. }), "{error}");
    // A manifest that states more.
    let larger = ModuleAbi {
        memory_bytes: 5 << 16,
        ..abi.clone()
    };
    let error = load_native(&made.native, larger).unwrap_err();
    assert!(matches!(error, SandboxError::MemorySize { .. }), "{error}");
    let spec = sandpiper_sandbox::LoadSpec {
        native: sandpiper_sandbox::Native::Bytes(&made.native),
        weights: None,
        limits: sandpiper_sandbox::Limits {
            memory_bytes: (4 << 16) - 1,
            deadline: common::PATIENT,
        },
        abi,
    };
    assert!(matches!(
        Instance::load(spec),
        Err(SandboxError::MemoryLimit { .. })
    ));
}

#[test]
fn data_segments_outside_the_memory_fail_cleanly() {
    let wat = infer(1, ADD_ONE).replace("(func", "(data (i32.const 65535) \"ab\") (func");
    let error = brought(&wat, &abi(1)).unwrap_err();
    assert!(matches!(error, SandboxError::Instantiate { .. }), "{error}");
}

#[test]
fn data_segments_are_there_when_it_runs() {
    let wat = infer(1, "(i32.sub (i32.load8_u (i32.const 2000)) (i32.const 97))")
        .replace("(func", "(data (i32.const 2000) \"a\") (func");
    assert!(run(&mut brought(&wat, &abi(1)).unwrap()).is_ok());
}

#[test]
fn instances_can_move_between_threads() {
    let mut instance = load(ADD_ONE);
    let answer = std::thread::spawn(move || run(&mut instance))
        .join()
        .unwrap();
    assert_eq!(answer.unwrap(), [2, 3, 4, 5]);
}
