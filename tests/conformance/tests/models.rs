//! The outputs of the example's models, against those of a reference engine: of the scalar
//! evaluation, and of the module in the sandbox.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use sandpiper_conformance::module::{Module, bytes};
use sandpiper_conformance::oracle::Oracle;
use sandpiper_conformance::{published, root};
use sandpiper_testdata::{Npz, Samples, argmax};

/// Points of accuracy by which we may differ from what is published.
const MAX_POINTS: f64 = 0.3;
/// Largest difference of an f32 output, relative to `max(1, |reference|)`.
const MAX_F32: f32 = 1e-4;
const SIZES: [&str; 4] = ["large", "pruned50", "small", "tiny"];

fn example(name: &str) -> std::path::PathBuf {
    root().join("examples/activity").join(name)
}

/// Outputs for the samples that the reference was asked.
struct Outputs {
    reference: Vec<Vec<f32>>,
    /// By who made them.
    ours: [(&'static str, Vec<Vec<f32>>); 2],
}

fn outputs(name: &str) -> Outputs {
    let path = root().join("tests/conformance/reference/activity_logits.npz");
    let mut reference = Npz::open(&path).unwrap();
    let rows = reference.indices("rows").unwrap();
    let (theirs, shape) = reference.f32(name).unwrap();
    let test = Samples::read(&example("test.npz")).unwrap();
    let (x, x_shape) = test.chosen(&rows);
    let onnx = std::fs::read(example(&format!("models/{name}.onnx"))).unwrap();
    let evaluated = Oracle::read(&onnx).unwrap().rows(&x, &x_shape).unwrap();
    let sandboxed = Module::compile(&onnx).unwrap().rows(&bytes(&x)).unwrap();
    let reference: Vec<_> = theirs.chunks(shape[1]).map(<[f32]>::to_vec).collect();
    assert_eq!(evaluated.len(), reference.len());
    assert_eq!(sandboxed.len(), reference.len());
    Outputs {
        reference,
        ours: [("evaluation", evaluated), ("sandbox", sandboxed)],
    }
}

#[test]
fn f32_outputs_equal_the_reference() {
    for size in SIZES {
        let name = format!("{size}-f32");
        let outputs = outputs(&name);
        for (who, ours) in outputs.ours {
            let theirs = outputs.reference.concat();
            let ours = ours.concat();
            assert_eq!(ours.len(), theirs.len());
            let far = |(a, b): (&f32, &f32)| (a - b).abs() / b.abs().max(1.0);
            // A NaN fails: it is no larger than anything, so it may not be folded away.
            let differences: Vec<f32> = ours.iter().zip(&theirs).map(far).collect();
            let worst = differences.iter().copied().fold(0.0, f32::max);
            println!("{name:<14} {who:<10} largest difference {worst:.2e}");
            let all = differences.iter().all(|d| *d <= MAX_F32);
            assert!(all, "{name}, {who}: {worst:e}");
        }
    }
}

#[test]
fn int8_answers_equal_the_reference() {
    for size in SIZES {
        let name = format!("{size}-int8");
        let outputs = outputs(&name);
        let theirs = &outputs.reference;
        for (who, ours) in outputs.ours {
            let pairs = ours.iter().zip(theirs);
            let differing = pairs.filter(|(a, b)| argmax(a) != argmax(b)).count();
            println!(
                "{name:<14} {who:<10} {differing} of {} answers differ",
                theirs.len()
            );
            assert_eq!(differing, 0, "{name}, {who}");
        }
    }
}

/// The smallest network alone, since scalar evaluation is slow; all 2079 windows.
#[test]
fn the_evaluation_keeps_the_accuracy() {
    let table = published::table().unwrap();
    for name in ["har_tiny_f32", "har_tiny_int8_qdq"] {
        let published = table.iter().find(|p| p.model == name).unwrap();
        let samples = published.samples().unwrap();
        let onnx = std::fs::read(published.file()).unwrap();
        let oracle = Oracle::read(&onnx).unwrap();
        let rows = oracle.rows(&samples.x, &samples.shape).unwrap();
        let pairs = rows.iter().zip(&samples.y);
        let right = pairs.filter(|(row, y)| argmax(row) == **y).count();
        let ours = right as f64 / samples.y.len() as f64;
        let points = (ours - published.accuracy) * 100.0;
        println!(
            "{name:<18} published {:.4}, ours {ours:.4}, {points:+.2} points",
            published.accuracy
        );
        assert!(points.abs() <= MAX_POINTS, "{name}: {points:+.2} points");
    }
}
