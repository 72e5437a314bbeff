//! Damaged files: whatever the bytes, the answer is a module or a message.
#![allow(clippy::unwrap_used)]

mod common;

use proptest::prelude::*;
use sandpiper_compiler::build::{Attribute, ModelBuilder, change_floats, constants};
use sandpiper_compiler::{CompileError, Options, Tensor, check, compile, evaluate};
use sandpiper_core::tensor::DType;
use std::path::Path;

fn tiny(kind: &str) -> Vec<u8> {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/activity/models");
    std::fs::read(models.join(format!("tiny-{kind}.onnx"))).unwrap()
}

/// A damaged file that still compiles must give a valid module within its own memory.
fn sound(bytes: &[u8]) {
    if let Ok(compiled) = compile(bytes, &Options::default()) {
        let mut validator = wasmparser::Validator::new();
        validator.validate_all(&compiled.wasm).unwrap();
        let section = compiled.abi.to_section();
        sandpiper_core::abi::ModuleAbi::from_section(&section).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_damage_is_survived(
        int8 in any::<bool>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = tiny(if int8 { "int8" } else { "f32" });
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            let length = cut.index(bytes.len());
            bytes.truncate(length);
        }
        sound(&bytes);
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        sound(&bytes);
    }
}

fn refusal(onnx: &[u8]) -> String {
    check(onnx, &Options::default()).unwrap_err().to_string()
}

fn floats(dims: &[Option<u32>]) -> ModelBuilder {
    ModelBuilder::new(17).input("x", DType::F32, dims)
}

#[test]
fn every_refused_node_is_listed() {
    let onnx = floats(&[None, Some(4)])
        .node("Foo", &["x"], &["a"], [])
        .node("Relu", &["a"], &["b"], [])
        .node("ai.onnx.ml:TreeEnsembleRegressor", &["b"], &["c"], [])
        .node("Reshape", &["x", "x"], &["d"], [])
        .output("c")
        .finish();
    let error = check(&onnx, &Options::default()).unwrap_err();
    let CompileError::Unsupported(refusals) = &error else {
        panic!("{error}")
    };
    let named: Vec<_> = refusals
        .iter()
        .map(|r| (r.node.as_str(), r.operator.as_str()))
        .collect();
    let expected = [
        ("Foo_0", "Foo"),
        (
            "TreeEnsembleRegressor_2",
            "ai.onnx.ml.TreeEnsembleRegressor",
        ),
        ("Reshape_3", "Reshape"),
    ];
    assert_eq!(named, expected);
    assert!(
        error
            .to_string()
            .contains("Foo_0 (Foo): this operator is not known"),
        "{error}"
    );
}

#[test]
fn mixing_the_batch_is_refused_with_the_way_out() {
    let mixing = |axis| {
        floats(&[None, Some(4)])
            .node("Softmax", &["x"], &["y"], [("axis", Attribute::Int(axis))])
            .output("y")
            .finish()
    };
    assert!(refusal(&mixing(0)).contains("give the input a fixed shape"));
    let options = Options {
        shapes: [("x".to_owned(), vec![Some(1), None])].into(),
        ..Options::default()
    };
    let compiled = compile(&mixing(1), &options).unwrap();
    assert_eq!(compiled.abi.max_batch, 1);
    let transposed = floats(&[None, Some(4)])
        .node("Transpose", &["x"], &["y"], [])
        .output("y")
        .finish();
    assert!(refusal(&transposed).contains("moves the batch"));
    let wide = floats(&[None, Some(4), None])
        .node("Relu", &["x"], &["y"], [])
        .output("y")
        .finish();
    assert_eq!(
        refusal(&wide),
        "input `x`: dimension 2 is free; give the input a shape"
    );
}

#[test]
fn wrong_graphs_are_refused() {
    assert!(refusal(b"").contains("not a complete ONNX model"));
    assert!(refusal(&tiny("f32")[..3000]).contains("not a complete ONNX model"));
    let cycle = floats(&[None])
        .node("Add", &["x", "b"], &["a"], [])
        .node("Relu", &["a"], &["b"], [])
        .output("b")
        .finish();
    assert!(refusal(&cycle).contains("cycle"));
    let lost = floats(&[None])
        .node("Add", &["x", "b"], &["a"], [])
        .output("a")
        .finish();
    assert!(refusal(&lost).contains("reads `b`, which nothing makes"));
    let twice = floats(&[None])
        .node("Relu", &["x"], &["x"], [])
        .output("x")
        .finish();
    assert!(refusal(&twice).contains("made twice"));
    let huge = floats(&[None, Some(1 << 20), Some(1 << 20)])
        .node("Relu", &["x"], &["y"], [])
        .output("y")
        .finish();
    assert!(refusal(&huge).contains("more than 268435456 elements"));
}

#[test]
fn memory_beyond_32_bits_is_refused() {
    let onnx = floats(&[None, Some(1 << 27)])
        .node("Relu", &["x"], &["y"], [])
        .output("y")
        .finish();
    let error = check(
        &onnx,
        &Options {
            max_batch: 64,
            ..Options::default()
        },
    )
    .unwrap_err();
    assert!(matches!(error, CompileError::TooLarge { .. }), "{error}");
    assert!(
        error.to_string().contains("smaller maximum batch"),
        "{error}"
    );
    for max_batch in [0, 4097] {
        let options = Options {
            max_batch,
            ..Options::default()
        };
        assert!(matches!(
            compile(&onnx, &options),
            Err(CompileError::Options(_))
        ));
    }
}

#[test]
fn nan_in_weights_comes_out() {
    let onnx = tiny("f32");
    let last = constants(&onnx).unwrap().pop().unwrap();
    let name = constants(&onnx)
        .unwrap()
        .into_iter()
        .find(|n| n.contains("bias"))
        .unwrap_or(last);
    let broken = change_floats(&onnx, &name, |_| f32::NAN).unwrap();
    let x = Tensor::f32(&[1, 6, 128], vec![0.1; 768]).unwrap();
    let inputs = [("input".to_owned(), x)].into();
    let compiled = compile(&broken, &Options::default()).unwrap();
    let found = common::run(&compiled, 1, &inputs);
    let oracle = evaluate(&broken, &Options::default(), &inputs).unwrap();
    for outputs in [found, oracle] {
        assert!(
            outputs["logits"]
                .as_f32()
                .unwrap()
                .iter()
                .all(|v| v.is_nan()),
            "{name}"
        );
    }
}
