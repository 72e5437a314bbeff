//! ONNX's own tests of single operators (`onnx/backend/test/data/node` of its Python package),
//! compiled and run in the sandbox.
//!
//! Inputs that the compiler wants as constants (shapes, axes ..) are fixed to the values of the
//! test, as they are in exported models; every other input is given when the module runs.

use anyhow::{Context, Result};
use sandpiper_compiler::build::{Outline, freeze, outline, read_tensor};
use sandpiper_compiler::tensor::Data;
use sandpiper_compiler::{CompileError, Compiled, Options, Tensor, compile};
use sandpiper_sandbox::{Origin, run_once};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How far a float may differ, as ONNX's own runner has it: relative, and in addition absolute.
const FLOAT: (f64, f64) = (1e-3, 1e-7);

/// Tests whose recorded result we do not give, and why.
const DISPUTED: [(&str, &str); 6] = [
    ("test_qlinearmatmul_2D_int8_float32", WRAPPED),
    ("test_qlinearmatmul_2D_int8_float16", WRAPPED),
    ("test_qlinearmatmul_3D_int8_float32", WRAPPED),
    ("test_qlinearmatmul_3D_int8_float16", WRAPPED),
    ("test_dft_inverse", NOISE),
    ("test_dft_inverse_opset19", NOISE),
];
const WRAPPED: &str =
    "QLinearMatMul saturates by its specification; the recorded result wrapped around";

const NOISE: &str =
    "the exact result is 0, which we give; 1.9e-7 was recorded, more than may differ";

/// What came of a test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome", content = "why")]
pub enum Outcome {
    /// Every output is right.
    Passed,
    /// The compiler does not take the model, and says why.
    Refused(String),
    /// It has element types or operators that are not for devices: strings, sequences, training.
    OutOfScope(String),
    /// It differs from the recorded result, which is not what the specification says.
    Disputed(String),
    /// A result is wrong, or there is none.
    Wrong(String),
}

/// A test and what came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Name of the test.
    pub test: String,
    /// The operators of its model.
    pub operators: Vec<String>,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// The tests in a directory, sorted by name.
///
/// # Errors
/// When the directory cannot be read.
pub fn tests(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory)
        .with_context(|| format!("cannot read {}", directory.display()))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    paths.retain(|p| p.join("model.onnx").is_file());
    paths.sort();
    Ok(paths)
}

/// Runs a test.
pub fn run(directory: &Path) -> Row {
    let name = directory.file_name().unwrap_or_default();
    let test = name.to_string_lossy().into_owned();
    let onnx = std::fs::read(directory.join("model.onnx")).unwrap_or_default();
    let outlined = match outline(&onnx) {
        Ok(outlined) => outlined,
        Err(error) => {
            return Row {
                test,
                operators: Vec::new(),
                outcome: Outcome::OutOfScope(error.to_string()),
            };
        }
    };
    // A panic is as wrong as a number can be, and must not end the run.
    let run = || outcome(&test, directory, &onnx, &outlined);
    let outcome = std::panic::catch_unwind(run);
    let outcome = outcome.unwrap_or_else(|_| Outcome::Wrong("it panicked".into()));
    let known = DISPUTED.iter().find(|(name, _)| *name == test);
    let disputed = known
        .filter(|_| matches!(outcome, Outcome::Wrong(_)))
        .map(|(_, why)| Outcome::Disputed((*why).to_owned()));
    Row {
        test,
        operators: outlined.operators,
        outcome: disputed.unwrap_or(outcome),
    }
}

/// Domains and operators that are not for devices.
fn foreign(operator: &str) -> bool {
    let other = operator.contains('.') && !operator.starts_with("com.microsoft.");
    let parts = [
        "Sequence",
        "Optional",
        "String",
        "Random",
        "Bernoulli",
        "Multinomial",
        "Adam",
        "Gradient",
        "ImageDecoder",
        "RegexFullMatch",
        "TfIdfVectorizer",
        "Momentum",
        "Adagrad",
        "SoftmaxCrossEntropyLoss",
        "NegativeLogLikelihoodLoss",
    ];
    other || parts.iter().any(|p| operator.contains(p))
}

fn outcome(test: &str, directory: &Path, onnx: &[u8], outlined: &Outline) -> Outcome {
    if let Some(operator) = outlined.operators.iter().find(|o| foreign(o)) {
        return Outcome::OutOfScope(format!("the operator {operator}"));
    }
    if test.contains("training") {
        return Outcome::OutOfScope("training".into());
    }
    let set = directory.join("test_data_set_0");
    let port = |kind: &str, index: usize| -> Result<Tensor, CompileError> {
        let bytes = std::fs::read(set.join(format!("{kind}_{index}.pb"))).unwrap_or_default();
        read_tensor(&bytes)
    };
    let all = |kind: &str, names: &[String]| -> Result<Vec<(String, Tensor)>, CompileError> {
        let each = names.iter().enumerate();
        each.filter(|(i, _)| set.join(format!("{kind}_{i}.pb")).is_file())
            .map(|(i, name)| Ok((name.clone(), port(kind, i)?)))
            .collect()
    };
    let (inputs, expected) = match (
        all("input", &outlined.inputs),
        all("output", &outlined.outputs),
    ) {
        (Ok(inputs), Ok(expected)) => (inputs, expected),
        (Err(error), _) | (_, Err(error)) => return Outcome::OutOfScope(error.to_string()),
    };
    if inputs.iter().chain(&expected).any(|(_, t)| t.is_empty()) {
        return Outcome::OutOfScope("a tensor without elements".into());
    }
    let compiled = match compiled(onnx, &inputs) {
        Ok(compiled) => compiled,
        Err(error) => return Outcome::Refused(words(&error)),
    };
    match difference(&compiled, &inputs, &expected) {
        Ok(None) => Outcome::Passed,
        Ok(Some(what)) => Outcome::Wrong(what),
        Err(error) => Outcome::Wrong(format!("{error:#}")),
    }
}

fn words(error: &CompileError) -> String {
    match error {
        CompileError::Unsupported(refusals) => {
            let each = refusals
                .iter()
                .map(|r| format!("{}: {}", r.operator, r.why));
            each.collect::<Vec<_>>().join("; ")
        }
        other => other.to_string(),
    }
}

/// Whether an input is to be fixed.
type Choice<'a> = &'a dyn Fn(usize, &Tensor) -> bool;

/// Compiles a model with as few of its inputs fixed as it takes.
fn compiled(onnx: &[u8], inputs: &[(String, Tensor)]) -> Result<Compiled, CompileError> {
    let options = Options {
        max_batch: 1,
        shapes: inputs
            .iter()
            .map(|(n, t)| {
                (
                    n.clone(),
                    t.dims().iter().map(|d| Some(*d as u32)).collect(),
                )
            })
            .collect(),
    };
    let attempt = |fixed: Choice<'_>| {
        let chosen = inputs.iter().enumerate();
        let chosen = chosen.filter(|(i, (_, t))| fixed(*i, t));
        let frozen: BTreeMap<_, _> = chosen.map(|(_, (n, t))| (n.clone(), t.clone())).collect();
        let mut options = options.clone();
        options.shapes.retain(|n, _| !frozen.contains_key(n));
        compile(&freeze(onnx, &frozen)?, &options)
    };
    let first = match attempt(&|_, _| false) {
        Ok(compiled) => return Ok(compiled),
        Err(error) => error,
    };
    let long = |t: &Tensor| matches!(t.data(), Data::I64(_));
    let choices: [Choice<'_>; 4] = [
        &|i, t| i > 0 && long(t),
        &|i, t| i > 0 && (long(t) || t.len() == 1),
        &|i, _| i > 0,
        // How often a loop turns may come first.
        &|_, t| matches!(t.data(), Data::I64(_) | Data::Bool(_)),
    ];
    for choice in choices {
        if let Ok(compiled) = attempt(choice) {
            return Ok(compiled);
        }
    }
    Err(first)
}

/// What differs first, if anything.
fn difference(
    compiled: &Compiled,
    inputs: &[(String, Tensor)],
    expected: &[(String, Tensor)],
) -> Result<Option<String>> {
    let mut given = Vec::new();
    for port in &compiled.abi.inputs {
        let found = inputs.iter().find(|(name, _)| *name == port.spec.name);
        let (_, tensor) = found.with_context(|| format!("no data for {}", port.spec.name))?;
        given.push(tensor.to_bytes());
    }
    let given: Vec<&[u8]> = given.iter().map(Vec::as_slice).collect();
    let origin = Origin::OwnCompiler;
    let outputs = run_once(&compiled.wasm, &compiled.weights, origin, 1, &given)?;
    for (port, found) in compiled.abi.outputs.iter().zip(outputs) {
        let name = &port.spec.name;
        let wanted = expected.iter().find(|(n, _)| n == name);
        let (_, wanted) = wanted.with_context(|| format!("no result for {name}"))?;
        let mut dims: Vec<usize> = port.spec.shape(1).iter().map(|d| *d as usize).collect();
        let mut found = found;
        if name == "selected_indices" {
            unfilled(&mut dims, &mut found);
        }
        if dims != wanted.dims() || port.spec.dtype != wanted.dtype() {
            let (have, want) = (port.spec.dtype, wanted.dtype());
            let what = format!(
                "`{name}` is {have} {dims:?}, not {want} {:?}",
                wanted.dims()
            );
            return Ok(Some(what));
        }
        if let Some(what) = unequal(&found, wanted) {
            return Ok(Some(format!("`{name}`: {what}")));
        }
    }
    Ok(None)
}

/// Cuts the rows of -1 that stand for boxes that were not selected.
fn unfilled(dims: &mut [usize], rows: &mut Vec<u8>) {
    let each = 8 * dims[1];
    while rows.len() >= each && rows[rows.len() - each..].iter().all(|b| *b == 255) {
        rows.truncate(rows.len() - each);
        dims[0] -= 1;
    }
}

fn unequal(found: &[u8], wanted: &Tensor) -> Option<String> {
    let Ok(floats) = wanted.as_f32() else {
        let wanted = wanted.to_bytes();
        let first = found.iter().zip(&wanted).position(|(a, b)| a != b);
        return first.map(|i| format!("byte {i} is {}, not {}", found[i], wanted[i]));
    };
    let found = found.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b));
    for (i, (have, want)) in found.zip(floats).enumerate() {
        let (a, b) = (f64::from(have), f64::from(*want));
        let same = a == b || (a.is_nan() && b.is_nan());
        let near = (a - b).abs() <= FLOAT.1 + FLOAT.0 * b.abs();
        if !same && !near {
            return Some(format!("element {i} is {have}, not {want}"));
        }
    }
    None
}
