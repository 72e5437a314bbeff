//! Several workers over the same pages: the same result to the bit as one, whatever their number.
#![allow(clippy::unwrap_used)]

mod common;

use common::Dice;
use sandpiper_compiler::build::{Attribute, ModelBuilder};
use sandpiper_compiler::{Options, compile};
use sandpiper_core::target::Target;
use sandpiper_core::tensor::DType;
use sandpiper_sandbox::{
    Crew, InferError, Limits, LoadSpec, Native, Origin, Weights, host_target, precompile,
};
use std::path::Path;
use std::time::Duration;

fn crew(onnx: &[u8], workers: u32) -> Crew {
    let compiled = compile(onnx, &Options::default()).unwrap();
    let target: Target = host_target();
    let made = precompile(&compiled.wasm, target, Origin::OwnCompiler).unwrap();
    let limits = Limits {
        memory_bytes: made.abi.memory_bytes,
        deadline: Duration::from_secs(60),
    };
    let spec = LoadSpec {
        native: Native::Bytes(&made.native),
        abi: made.abi,
        weights: Some(Weights::Bytes(&compiled.weights)),
        limits,
    };
    Crew::load(spec, workers).unwrap()
}

#[test]
fn the_number_of_workers_does_not_change_a_bit() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/activity/models");
    let mut dice = Dice(5);
    for name in ["large-f32", "large-int8", "small-f32", "tiny-int8"] {
        let onnx = std::fs::read(models.join(format!("{name}.onnx"))).unwrap();
        let mut crews: Vec<Crew> = [1, 2, 3].map(|n| crew(&onnx, n)).into();
        assert_eq!(
            crews.iter().map(Crew::workers).collect::<Vec<_>>(),
            [1, 2, 3]
        );
        for batch in [1, 3, 1] {
            let bytes = crews[0].abi().input_bytes(batch);
            let input: Vec<u8> = (0..bytes / 4)
                .flat_map(|_| (dice.float() * 2.0 - 1.0).to_le_bytes())
                .collect();
            let answers: Vec<Vec<u8>> = crews
                .iter_mut()
                .map(|crew| {
                    let mut outputs = vec![Vec::new()];
                    crew.infer(batch, &[&input], &mut outputs).unwrap();
                    outputs.remove(0)
                })
                .collect();
            assert!(answers[0].iter().any(|b| *b != 0));
            assert_eq!(answers[0], answers[1], "{name}, batch {batch}, two workers");
            assert_eq!(
                answers[0], answers[2],
                "{name}, batch {batch}, three workers"
            );
        }
    }
}

#[test]
fn what_is_wrong_with_a_request_is_said_as_by_one() {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/activity/models");
    let mut crew = crew(&std::fs::read(models.join("tiny-f32.onnx")).unwrap(), 2);
    let mut outputs = vec![Vec::new()];
    let error = crew.infer(1, &[&[0; 3]], &mut outputs).unwrap_err();
    assert!(matches!(error, InferError::WrongSize { .. }), "{error}");
    let error = crew.infer(0, &[], &mut outputs).unwrap_err();
    assert!(matches!(error, InferError::BadBatch { .. }), "{error}");
    let input = vec![0; crew.abi().input_bytes(1)];
    let error = crew.infer(1, &[&input], &mut []).unwrap_err();
    assert!(matches!(error, InferError::WrongCount { .. }), "{error}");
    crew.infer(1, &[&input], &mut outputs).unwrap();
}

#[test]
fn rows_are_shared_among_workers() {
    let mut dice = Dice(6);
    let ints = |v: &[i64]| Attribute::Ints(v.to_vec());
    // Fewer rows than workers, more, and a number that they do not divide.
    for rows in [1, 2, 7] {
        let model = ModelBuilder::new(17)
            .input("x", DType::F32, &[Some(rows), Some(6), Some(5)])
            .constant("s", &dice.floats(&[5]))
            .constant("c", &dice.floats(&[6]))
            .node("LayerNormalization", &["x", "s"], &["a"], [])
            .node("InstanceNormalization", &["a", "c", "c"], &["b"], [])
            .node("Softmax", &["b"], &["d"], [])
            .node("ReduceMax", &["d"], &["e"], [("axes", ints(&[2]))])
            .node("ReduceMean", &["d"], &["g"], [("axes", ints(&[1]))])
            .node("Add", &["e", "g"], &["y"], [])
            .output("y")
            .finish();
        let x = dice.floats(&[rows as usize, 6, 5]);
        let given = [("x".to_owned(), x.clone())].into();
        let one = common::agree(&model, 1, &given, common::FLOATS);
        let wanted = common::run(&one, 1, &given)["y"].to_bytes();
        for workers in [1, 2, 3] {
            let mut outputs = vec![Vec::new()];
            let mut crew = crew(&model, workers);
            crew.infer(1, &[&x.to_bytes()], &mut outputs).unwrap();
            assert_eq!(outputs[0], wanted, "{rows} rows, {workers} workers");
        }
    }
}
