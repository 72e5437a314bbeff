//! Every edge that a module can reach over: of its memory, of its weights, of its table. What lies
//! within is usable to the last byte, what lies one byte further traps.
#![allow(clippy::unwrap_used)]

mod common;

use common::{abi, abi_with_weights, infer, limits, module, run};
use sandpiper_core::abi::ModuleAbi;
use sandpiper_sandbox::{
    InferError, Instance, LoadSpec, Native, Origin, Weights, host_target, precompile,
};

const PAGE: i64 = 1 << 16;

/// Loads, with the bytes that each reads.
const LOADS: [(&str, i64); 12] = [
    ("i32.load8_u", 1),
    ("i64.load16_s", 2),
    ("i32.load", 4),
    ("f32.load", 4),
    ("i64.load", 8),
    ("f64.load", 8),
    ("v128.load", 16),
    ("v128.load8x8_s", 8),
    ("v128.load32x2_u", 8),
    ("v128.load8_splat", 1),
    ("v128.load64_splat", 8),
    ("v128.load32_zero", 4),
];

/// Stores, with what they store and the bytes that each writes.
const STORES: [(&str, &str, i64); 6] = [
    ("i32.store8", "(i32.const 7)", 1),
    ("i64.store16", "(i64.const 7)", 2),
    ("f32.store", "(f32.const 7)", 4),
    ("i64.store", "(i64.const 7)", 8),
    ("v128.store", "(v128.const i64x2 7 7)", 16),
    ("v128.store64_lane", "(v128.const i64x2 7 7)", 8),
];

/// Loads and stores of one lane have its number.
fn lane(op: &str) -> &'static str {
    if op.ends_with("_lane") { "1" } else { "" }
}

/// With deadline checks and without; weights lie in a file, as on a device.
fn both(wat: &str, abi: &ModuleAbi, weights: &[u8]) -> [Instance; 2] {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weights");
    std::fs::write(&path, weights).unwrap();
    [false, true].map(|bounded| {
        let abi = ModuleAbi {
            bounded,
            ..abi.clone()
        };
        let made = precompile(&module(wat, &abi), host_target(), Origin::OwnCompiler).unwrap();
        let weights = made.abi.weights.as_ref().map(|_| Weights::File(&path));
        Instance::load(LoadSpec {
            native: Native::Bytes(&made.native),
            limits: limits(&made.abi),
            abi: made.abi,
            weights,
        })
        .unwrap()
    })
}

fn traps(wat: &str, abi: &ModuleAbi, weights: &[u8]) {
    for mut instance in both(wat, abi, weights) {
        let end = run(&mut instance);
        let trapped = matches!(&end, Err(InferError::Trap { .. }));
        assert!(trapped, "{end:?}: {wat}");
        assert_eq!(run(&mut instance), Err(InferError::Poisoned));
    }
}

fn works(wat: &str, abi: &ModuleAbi, weights: &[u8]) {
    for mut instance in both(wat, abi, weights) {
        assert!(run(&mut instance).is_ok(), "{wat}");
    }
}

/// An address that the compiler does not know: `$i` is 0. The constant offset comes on top.
fn at(address: i64, offset: i64) -> String {
    let address = address as i32;
    format!("offset={offset} (i32.add (local.get $i) (i32.const {address}))")
}

fn load(op: &str, address: i64, offset: i64) -> String {
    let place = at(address, offset);
    format!("(drop ({op} {place})) (i32.const 0)")
}

fn store(op: &str, value: &str, address: i64, offset: i64) -> String {
    let (place, lane) = (at(address, offset), lane(op));
    // The number of a lane follows the offset.
    let place = place.replacen(" (", &format!(" {lane} ("), 1);
    format!("({op} {place} {value}) (i32.const 0)")
}

/// Addresses and offsets at which an access of so many bytes of a memory of one page is inside.
fn inside(width: i64) -> [(i64, i64); 4] {
    let last = PAGE - width;
    [(0, 0), (last, 0), (0, last), (last - 1, 1)]
}

/// And at which it is not: straddling the end by one byte and by all but one, right behind it, in
/// front of the first byte, far away by address, by offset and by both.
fn outside(width: i64) -> Vec<(i64, i64)> {
    let last = PAGE - width;
    let mut all = vec![
        (last + 1, 0),
        (last, 1),
        (PAGE - 1, width.min(1)),
        (PAGE, 0),
        (0, PAGE),
        (-1, 0),
        (-width, 0),
        (-1, 1),
        (-width, width),
        (i64::from(i32::MIN), 0),
        (i64::from(i32::MAX), 0),
        (0, 0x7fff_ffff),
        (0, 0x8000_0000),
        (0, 0xffff_ffff),
        (-1, 0xffff_ffff),
        (4 * PAGE, 2 * PAGE),
    ];
    all.dedup();
    all
}

#[test]
fn loads_reach_the_first_and_the_last_byte_and_no_further() {
    for (op, width) in LOADS {
        for (address, offset) in inside(width) {
            works(&infer(1, &load(op, address, offset)), &abi(1), &[]);
        }
        for (address, offset) in outside(width) {
            traps(&infer(1, &load(op, address, offset)), &abi(1), &[]);
        }
    }
}

#[test]
fn stores_reach_the_first_and_the_last_byte_and_no_further() {
    for (op, value, width) in STORES {
        for (address, offset) in inside(width) {
            works(&infer(1, &store(op, value, address, offset)), &abi(1), &[]);
        }
        for (address, offset) in outside(width) {
            traps(&infer(1, &store(op, value, address, offset)), &abi(1), &[]);
        }
    }
}

/// Weights on the second of two pages, the last of which ends with the memory.
#[test]
fn weights_are_read_to_their_last_byte_and_memory_ends_with_them() {
    let blob: Vec<u8> = (0..PAGE).map(|n| (n % 251) as u8 + 1).collect();
    let abi = abi_with_weights(2, &blob);
    for (address, byte) in [
        (PAGE, blob[0]),
        (2 * PAGE - 1, blob[PAGE as usize - 1]),
        (PAGE + 4095, blob[4095]),
        (PAGE + 4096, blob[4096]),
    ] {
        let place = at(address, 0);
        let read = format!("(i32.sub (i32.load8_u {place}) (i32.const {byte}))");
        works(&infer(2, &read), &abi, &blob);
    }
    for (op, width) in LOADS {
        let last = 2 * PAGE - width;
        works(&infer(2, &load(op, last, 0)), &abi, &blob);
        // Across their first byte: one side is memory, the other weights.
        works(&infer(2, &load(op, PAGE - width / 2, 0)), &abi, &blob);
        traps(&infer(2, &load(op, last + 1, 0)), &abi, &blob);
        traps(&infer(2, &load(op, 2 * PAGE, 0)), &abi, &blob);
        traps(&infer(2, &load(op, last, 1)), &abi, &blob);
    }
}

#[test]
fn weights_are_written_at_no_byte_not_even_across_their_edges() {
    let blob = [5; 100];
    let abi = abi_with_weights(3, &blob);
    for (op, value, width) in STORES {
        // At their first and last byte, in the zeros behind them up to the end of the page, and
        // across the first byte.
        for address in [PAGE, PAGE + 99, PAGE + 100, 2 * PAGE - width] {
            traps(&infer(3, &store(op, value, address, 0)), &abi, &blob);
        }
        for address in (PAGE - width + 1)..PAGE {
            traps(&infer(3, &store(op, value, address, 0)), &abi, &blob);
        }
        // Right before and right behind is memory like any other.
        for address in [PAGE - width, 2 * PAGE, 3 * PAGE - width] {
            works(&infer(3, &store(op, value, address, 0)), &abi, &blob);
        }
    }
}

/// A table of the largest size that is allowed, full of nothing but one function.
fn with_table(body: &str) -> String {
    format!(
        "(module (memory (export \"memory\") 1 1) (table $t 4096 4096 funcref)
           (type $f (func (result i32))) (func $zero (type $f) (i32.const 0))
           (elem (i32.const 4095) func $zero) (elem $part func $zero $zero)
           (func (export \"infer\") (param $batch i32) (result i32) (local $i i32) {body}))"
    )
}

#[test]
fn tables_end_at_their_last_entry() {
    let call = |index: i64| {
        let index = index as i32;
        format!("(call_indirect (type $f) (i32.add (local.get $i) (i32.const {index})))")
    };
    works(&with_table(&call(4095)), &abi(1), &[]);
    for index in [0, 4094, 4096, 1 << 20, -1, i64::from(i32::MIN)] {
        traps(&with_table(&call(index)), &abi(1), &[]);
    }
    for (body, end) in [
        ("(drop (table.get $t (i32.const INDEX)))", 4096),
        ("(table.set $t (i32.const INDEX) (ref.null func))", 4096),
        (
            "(table.fill $t (i32.const INDEX) (ref.null func) (i32.const 3))",
            4094,
        ),
        (
            "(table.copy $t $t (i32.const INDEX) (i32.const 0) (i32.const 2))",
            4095,
        ),
        (
            "(table.copy $t $t (i32.const 0) (i32.const INDEX) (i32.const 2))",
            4095,
        ),
        (
            "(table.init $t $part (i32.const INDEX) (i32.const 0) (i32.const 2))",
            4095,
        ),
    ] {
        let wat = |index: i64| {
            let body = body.replace("INDEX", &index.to_string());
            with_table(&format!("{body} (i32.const 0)"))
        };
        works(&wat(end - 1), &abi(1), &[]);
        for index in [end, 1 << 24, -1] {
            traps(&wat(index), &abi(1), &[]);
        }
    }
    // Asked to be huge while it runs, it stays as it is.
    let grow = "(i32.ne (table.grow $t (ref.null func) (i32.const 0x7fffffff)) (i32.const -1))";
    works(&with_table(grow), &abi(1), &[]);
}
