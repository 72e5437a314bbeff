//! Modules that must not get as far as a compiler.
#![allow(clippy::unwrap_used)]

mod common;

use common::{ADD_ONE, abi, abi_with_weights, infer, module, tensor, with_section};
use sandpiper_core::abi::{AbiError, ModuleAbi};
use sandpiper_core::target::Target;
use sandpiper_sandbox::{Origin, SandboxError, precompile};

fn refusal(wasm: &[u8]) -> SandboxError {
    precompile(wasm, Target::X8664V2, Origin::Brought).unwrap_err()
}

/// Wraps fields in a module that would be fine without them.
fn with_fields(fields: &str) -> Vec<u8> {
    let wat = infer(1, ADD_ONE);
    let open = wat.rfind(')').unwrap();
    module(&format!("{} {fields})", &wat[..open]), &abi(1))
}

fn says(wasm: &[u8], part: &str) {
    let error = refusal(wasm).to_string();
    assert!(error.contains(part), "`{part}` is not in `{error}`");
}

#[test]
fn a_plain_module_is_accepted() {
    assert!(precompile(&with_fields(""), Target::X8664V2, Origin::Brought).is_ok());
}

#[test]
fn imports_are_named_and_refused() {
    let wat = "(module (import \"wasi_snapshot_preview1\" \"fd_write\" (func (param i32)))
        (memory (export \"memory\") 1 1) (func (export \"infer\") (param i32) (result i32) (i32.const 0)))";
    match refusal(&module(wat, &abi(1))) {
        SandboxError::Import { module, name } => {
            assert_eq!(
                (module.as_str(), name.as_str()),
                ("wasi_snapshot_preview1", "fd_write")
            );
        }
        other => panic!("{other}"),
    }
    let memory = "(module (import \"env\" \"memory\" (memory 1 1)) (export \"memory\" (memory 0))
        (func (export \"infer\") (param i32) (result i32) (i32.const 0)))";
    assert!(matches!(
        refusal(&module(memory, &abi(1))),
        SandboxError::Import { .. }
    ));
}

#[test]
fn exports_must_be_there_and_of_the_right_kind() {
    let cases = [
        (
            "(module (memory 1 1) (func (export \"infer\") (param i32) (result i32) (i32.const 0)))",
            "memory",
        ),
        ("(module (memory (export \"memory\") 1 1))", "infer"),
        (
            "(module (memory (export \"memory\") 1 1) (func (export \"infer\") (result i32) (i32.const 0)))",
            "infer",
        ),
        (
            "(module (memory (export \"memory\") 1 1) (func (export \"infer\") (param i64) (result i32) (i32.const 0)))",
            "infer",
        ),
        (
            "(module (memory (export \"memory\") 1 1) (func (export \"infer\") (param i32)))",
            "infer",
        ),
        (
            "(module (memory (export \"memory\") 1 1) (global (export \"infer\") i32 (i32.const 0)))",
            "infer",
        ),
        (
            "(module (memory 1 1) (func (export \"memory\") (param i32) (result i32) (i32.const 0)) (export \"infer\" (func 0)))",
            "memory",
        ),
    ];
    for (wat, name) in cases {
        match refusal(&module(wat, &abi(1))) {
            SandboxError::Export { name: found, .. } => assert_eq!(found, name, "{wat}"),
            other => panic!("{wat}: {other}"),
        }
    }
}

#[test]
fn a_start_function_is_refused() {
    says(&with_fields("(func $s) (start $s)"), "start function");
}

#[test]
fn memory_must_be_what_the_abi_says() {
    for memory in ["1 2", "1", "2 2", "0 1"] {
        let wat = infer(1, ADD_ONE).replace("1 1", memory);
        says(&module(&wat, &abi(1)), "its ABI says that both are 1");
    }
}

#[test]
fn other_kinds_of_memory_are_refused() {
    let wide = infer(1, "(i32.const 0)").replace("1 1", "i64 1 1");
    says(&module(&wide, &abi(1)), "32-bit");
    let shared = infer(1, ADD_ONE).replace("1 1", "1 1 shared");
    says(&module(&shared, &abi(1)), "not shared");
    says(&with_fields("(memory 1 1)"), "2 memories");
    let none = "(module (func (export \"infer\") (param i32) (result i32) (i32.const 0)))";
    assert!(matches!(
        refusal(&module(none, &abi(1))),
        SandboxError::Export { name: "memory", .. }
    ));
}

#[test]
fn tables_must_be_small_and_fixed() {
    says(&with_fields("(table 1 funcref)"), "fixed size");
    says(&with_fields("(table 1 2 funcref)"), "fixed size");
    says(&with_fields("(table 1000000 1000000 funcref)"), "4096");
    says(
        &with_fields("(table 1 1 funcref) (table 1 1 funcref)"),
        "2 tables",
    );
    assert!(
        precompile(
            &with_fields("(table 4096 4096 funcref)"),
            Target::X8664V2,
            Origin::Brought
        )
        .is_ok()
    );
}

#[test]
fn there_must_be_exactly_one_abi_section() {
    let bare = wat::parse_str(infer(1, ADD_ONE)).unwrap();
    assert!(matches!(
        refusal(&bare),
        SandboxError::AbiSection { found: 0 }
    ));
    let section = abi(1).to_section();
    let twice = with_section(&with_section(&bare, &section), &section);
    assert!(matches!(
        refusal(&twice),
        SandboxError::AbiSection { found: 2 }
    ));
}

#[test]
fn abi_sections_that_lie_are_refused() {
    let bare = wat::parse_str(infer(1, ADD_ONE)).unwrap();
    let lie = |change: fn(&mut ModuleAbi)| {
        let mut abi = abi_with_weights(3, &[7; 100]);
        change(&mut abi);
        refusal(&with_section(&bare, &abi.to_section()))
    };
    let lies: [fn(&mut ModuleAbi); 9] = [
        |a| a.abi = 2,
        |a| a.max_batch = 0,
        |a| a.max_batch = u32::MAX,
        |a| a.memory_bytes += 1,
        |a| a.memory_bytes = 1 << 33,
        |a| a.inputs[0] = tensor("x", 3 << 16, 4),
        |a| a.outputs[0] = tensor("y", 1 << 16, 4),
        |a| a.inputs[0] = tensor("x", 8, 4),
        |a| a.outputs[0] = tensor("y", 0, u32::MAX),
    ];
    for (at, change) in lies.into_iter().enumerate() {
        assert!(matches!(lie(change), SandboxError::Abi(_)), "lie {at}");
    }
    // Consistent in itself, but not with the module.
    assert!(matches!(
        lie(|a| a.memory_bytes = 2 << 16),
        SandboxError::Refused { .. }
    ));
    let noise = refusal(&with_section(&bare, b"{\"abi\":1"));
    assert!(matches!(noise, SandboxError::Abi(AbiError::Malformed(_))));
}

#[test]
fn data_under_the_weights_is_refused() {
    let wat = infer(2, ADD_ONE).replace("(func", "(data (i32.const 65530) \"12345678\") (func");
    says(
        &module(&wat, &abi_with_weights(2, &[1, 2])),
        "overlaps its weights",
    );
    assert!(precompile(&module(&wat, &abi(2)), Target::X8664V2, Origin::Brought).is_ok());
}

#[test]
fn damaged_modules_are_refused_at_every_length() {
    let wasm = with_fields("(table 1 1 funcref)");
    for length in 0..wasm.len() {
        refusal(&wasm[..length]);
    }
    for at in 0..wasm.len() {
        let mut flipped = wasm.clone();
        flipped[at] ^= 0x41;
        // Some flips give another valid module; none may panic.
        let _ = precompile(&flipped, Target::X8664V2, Origin::Brought);
    }
}

#[test]
fn languages_outside_the_list_are_refused() {
    let cases = [
        (
            "(func (result i64 i64) (i64.add128 (i64.const 1) (i64.const 2) (i64.const 3) (i64.const 4)))",
            "wide",
        ),
        ("(func $f (return_call $f))", "tail call"),
        ("(tag $t) (func (throw $t))", "exceptions"),
        (
            "(type $s (struct (field i32))) (func (drop (struct.new_default $s)))",
            "GC",
        ),
        ("(func (drop (i32.atomic.load (i32.const 0))))", "threads"),
    ];
    for (fields, what) in cases {
        match refusal(&with_fields(fields)) {
            SandboxError::Compile { .. } | SandboxError::NotWasm { .. } => {}
            other => panic!("{what}: {other}"),
        }
    }
}

#[test]
fn a_component_and_noise_are_refused() {
    assert!(matches!(
        refusal(b"\0asm\x0d\0\x01\0"),
        SandboxError::Refused { .. }
    ));
    assert!(matches!(
        refusal(b"not wasm at all"),
        SandboxError::NotWasm { .. }
    ));
    assert!(matches!(refusal(b""), SandboxError::NotWasm { .. }));
    assert!(matches!(
        refusal(&vec![0; 33 << 20]),
        SandboxError::TooLarge { .. }
    ));
}
