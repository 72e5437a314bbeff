//! Real models against outputs of ONNX Runtime (see `data/reference.json` for its version).
//!
//! The activity models are part of this repository; the others are read from `../shared` beside
//! it, and a clone without that says so and counts what it skips.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use sandpiper_compiler::tensor::Data;
use sandpiper_compiler::{Model, Tensor};
use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

#[derive(serde::Deserialize)]
struct Reference {
    stride: BTreeMap<String, usize>,
    models: BTreeMap<String, Vec<Vec<f32>>>,
    left_out: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The floats of `x` in an npz file, with their shape.
fn samples(path: &Path) -> Option<(Vec<usize>, Vec<f32>)> {
    let file = std::fs::File::open(path).ok()?;
    let mut archive = zip::ZipArchive::new(file).unwrap();
    let mut bytes = Vec::new();
    archive
        .by_name("x.npy")
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap();
    let array = npyz::NpyFile::new(Cursor::new(bytes)).unwrap();
    let shape = array.shape().iter().map(|d| *d as usize).collect();
    Some((shape, array.into_vec::<f32>().unwrap()))
}

/// Every `stride`th sample, four of them.
fn picked((shape, data): &(Vec<usize>, Vec<f32>), stride: usize) -> Tensor {
    let each: usize = shape[1..].iter().product();
    let chosen = data
        .chunks(each)
        .step_by(stride)
        .take(4)
        .flatten()
        .copied()
        .collect();
    let dims = [&[4], &shape[1..]].concat();
    Tensor::f32(&dims, chosen).unwrap()
}

/// Where a model lies: in this repository under its own name, or beside it.
fn model_file(name: &str) -> Option<PathBuf> {
    let shared = root().join(format!("../shared/models/{name}.onnx"));
    let own = name
        .strip_prefix("har_")
        .map(|n| n.replace("large_pruned", "pruned"));
    let own = own.map(|n| n.replace("_int8_qdq", "-int8").replace("_f32", "-f32"));
    let own = own.map(|n| root().join(format!("examples/activity/models/{n}.onnx")));
    own.into_iter().chain([shared]).find(|p| p.is_file())
}

#[test]
fn outputs_agree_with_onnx_runtime() {
    let text = std::fs::read_to_string(root().join("crates/compiler/tests/data/reference.json"));
    let reference: Reference = serde_json::from_str(&text.unwrap()).unwrap();
    let own = root().join("examples/activity/test.npz");
    let har = samples(&own).or_else(|| samples(&root().join("../shared/data/har_test.npz")));
    let kws = samples(&root().join("../shared/data/kws_test_1200.npz"));
    let (mut run, mut skipped, mut failed) = (0, 0, Vec::new());
    println!("{:<34} {:>10} {:>8}", "model", "max error", "argmax");
    for (name, expected) in &reference.models {
        let family = &name[..3];
        let data = if family == "har" { &har } else { &kws };
        let (Some(data), Some(file)) = (data, model_file(name)) else {
            skipped += 1;
            continue;
        };
        let model =
            Model::read(&std::fs::read(file).unwrap()).unwrap_or_else(|e| panic!("{name}: {e}"));
        let x = picked(data, reference.stride[family]);
        let outputs = model.evaluate(&[("input".to_owned(), x)].into()).unwrap();
        let found = outputs.values().next().unwrap().as_f32().unwrap().to_vec();
        let expected: Vec<f32> = expected.iter().flatten().copied().collect();
        assert_eq!(found.len(), expected.len(), "{name}");
        let errors = found
            .iter()
            .zip(&expected)
            .map(|(f, e)| (f - e).abs() / e.abs().max(1.0));
        let error = errors.fold(0.0, f32::max);
        let classes = expected.len() / 4;
        let same = (found.chunks(classes).zip(expected.chunks(classes)))
            .filter(|(f, e)| argmax(f) == argmax(e))
            .count();
        println!("{name:<34} {error:>10.6} {same:>6}/4");
        // Eight bits: a value on the edge of a step may round the other way, and the step of the
        // last layer is what it moves the output by.
        let tolerance = if name.contains("int8") { 0.2 } else { 1e-4 };
        if error > tolerance {
            failed.push(format!("{name}: {error}, {found:?}"));
        }
        run += 1;
    }
    println!("left out: {}", reference.left_out);
    println!("{run} models agree, {skipped} skipped because they are not beside this repository");
    assert!(run > 0, "no model was found at all");
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

fn argmax(values: &[f32]) -> usize {
    (0..values.len())
        .max_by(|a, b| values[*a].total_cmp(&values[*b]))
        .unwrap()
}

#[test]
fn damaged_files_are_refused_without_a_panic() {
    let file = model_file("har_tiny_int8_qdq").expect("the activity models are in this repository");
    let bytes = std::fs::read(file).unwrap();
    let x = Tensor::new(vec![1, 6, 128], Data::F32(vec![0.1; 768])).unwrap();
    let inputs: BTreeMap<_, _> = [("input".to_owned(), x)].into();
    let mut refused = 0;
    for length in (0..bytes.len()).step_by(97) {
        refused += usize::from(Model::read(&bytes[..length]).is_err());
    }
    assert!(refused > 0);
    for at in (0..bytes.len()).step_by(61) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x55;
        // Whatever comes of it, it is a result or a message.
        if let Ok(model) = Model::read(&damaged) {
            let _ = model.evaluate(&inputs);
        }
    }
}

#[test]
fn wrong_inputs_are_named() {
    let file = model_file("har_tiny_f32").expect("the activity models are in this repository");
    let model = Model::read(&std::fs::read(file).unwrap()).unwrap();
    let error = |inputs: BTreeMap<String, Tensor>| model.evaluate(&inputs).unwrap_err().to_string();
    assert_eq!(error(BTreeMap::new()), "input `input`: it is missing");
    let flat = Tensor::new(vec![2, 768], Data::F32(vec![0.0; 1536])).unwrap();
    assert_eq!(
        error([("input".to_owned(), flat)].into()),
        "input `input`: Nx6x128 is expected, not [2, 768]"
    );
    let bytes = Tensor::new(vec![1, 6, 128], Data::U8(vec![0; 768])).unwrap();
    assert_eq!(
        error([("input".to_owned(), bytes)].into()),
        "input `input`: f32 is expected, not u8"
    );
}
