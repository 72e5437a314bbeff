//! Every real model: its module in the sandbox against the scalar evaluation.
//!
//! The activity models are part of this repository; the others are read from `../shared` beside
//! it, and a clone without that says so and counts what it skips.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use npyz::NpyFile;
use sandpiper_compiler::{Options, Tensor, compile, evaluate};
use sandpiper_core::target::Target;
use sandpiper_core::tensor::DType;
use sandpiper_sandbox::{Origin, precompile};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Samples of each model: few, since scalar evaluation is slow.
const SAMPLES: usize = 3;
/// Largest difference of floats, relative to max(1, value).
const FLOATS: f64 = 1e-4;
/// The same of models in integers: the evaluation of QDQ files sums in floats, so that a value on
/// the edge of a step may round the other way, and later layers carry that on.
const INTEGERS: f64 = 0.15;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Samples spread over an npz file.
fn samples(path: &Path) -> Option<Tensor> {
    let mut archive = zip::ZipArchive::new(std::fs::File::open(path).ok()?).unwrap();
    let mut bytes = Vec::new();
    archive
        .by_name("x.npy")
        .unwrap()
        .read_to_end(&mut bytes)
        .unwrap();
    let array = NpyFile::new(&bytes[..]).unwrap();
    let shape: Vec<usize> = array.shape().iter().map(|d| *d as usize).collect();
    let data: Vec<f32> = array.into_vec().unwrap();
    let size: usize = shape[1..].iter().product();
    let stride = shape[0] / SAMPLES;
    let chosen = data
        .chunks(size)
        .step_by(stride)
        .take(SAMPLES)
        .flatten()
        .copied()
        .collect();
    Some(Tensor::f32(&[&[SAMPLES], &shape[1..]].concat(), chosen).unwrap())
}

fn onnx_files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries.map(|e| e.path()).collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "onnx"));
    files.sort();
    files
}

fn holds(file: &Path, x: &Tensor) {
    let name = file.file_stem().unwrap().to_str().unwrap();
    let onnx = std::fs::read(file).unwrap();
    let options = Options::default();
    let compiled = compile(&onnx, &options).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(
        compiled,
        compile(&onnx, &options).unwrap(),
        "{name}: two compilations differ"
    );
    let inputs = [(compiled.abi.inputs[0].spec.name.clone(), x.clone())].into();
    let expected = evaluate(&onnx, &options, &inputs).unwrap();
    let found = common::run(&compiled, SAMPLES as u32, &inputs);
    let far = found
        .iter()
        .map(|(k, t)| common::difference(t, &expected[k]))
        .fold(0.0, f64::max);
    let integers = compiled.report.macs.contains_key(&DType::I8);
    println!(
        "{name:<34} {far:>10.2e} {:>9} bytes",
        compiled.report.memory_bytes
    );
    assert_eq!(
        integers,
        name.contains("int8"),
        "{name}: {:?}",
        compiled.report.macs
    );
    assert!(
        far <= if integers { INTEGERS } else { FLOATS },
        "{name}: {far:e}"
    );
}

#[test]
fn modules_agree_with_the_evaluation() {
    let own = root().join("examples/activity");
    let har = samples(&own.join("test.npz")).expect("the test windows are in this repository");
    let files = onnx_files(&own.join("models"));
    assert!(
        !files.is_empty(),
        "the activity models are in this repository"
    );
    files.iter().for_each(|file| holds(file, &har));
    let shared = root().join("../shared");
    let others = onnx_files(&shared.join("models"));
    if others.is_empty() {
        println!("skipped: the models beside this repository (../shared/models) are not there");
    }
    let kws = samples(&shared.join("data/kws_test.npz"));
    let mut skipped = 0;
    for file in &others {
        let is_kws = file
            .file_stem()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("kws");
        match if is_kws { kws.as_ref() } else { Some(&har) } {
            Some(x) => holds(file, x),
            None => skipped += 1,
        }
    }
    let run = files.len() + others.len() - skipped;
    println!("{run} models agree, {skipped} skipped for want of data");
}

#[test]
fn code_is_made_for_every_target() {
    let models = root().join("examples/activity/models");
    for name in ["tiny-f32", "tiny-int8", "small-int8"] {
        let onnx = std::fs::read(models.join(format!("{name}.onnx"))).unwrap();
        let compiled = compile(&onnx, &Options::default()).unwrap();
        for target in Target::ALL {
            let made = precompile(&compiled.wasm, target, Origin::OwnCompiler);
            let made = made.unwrap_or_else(|e| panic!("{name} for {target}: {e}"));
            println!("{name:<12} {target:<28} {:>7} bytes", made.native.len());
            assert_eq!(made.abi, compiled.abi);
        }
    }
}
