//! What the compiler understands of real models, against the results of a reference engine.
//!
//! The scalar evaluation is compared: the oracle that generated code is held against.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use sandpiper_conformance::{Npz, argmax, evaluate, root};

/// Points of accuracy by which we may differ from the reference.
const MAX_POINTS: f64 = 0.3;
/// Largest difference of an f32 output, relative to `max(1, |reference|)`.
const MAX_F32: f32 = 1e-4;
const SIZES: [&str; 4] = ["large", "pruned50", "small", "tiny"];

fn example(name: &str) -> std::path::PathBuf {
    root().join("examples/activity").join(name)
}

/// For each sample of the reference: its inputs, and the shape of all of them.
fn chosen(rows: &[usize]) -> (Vec<f32>, Vec<usize>) {
    let mut test = Npz::open(&example("test.npz")).unwrap();
    let (x, mut shape) = test.f32("x").unwrap();
    let size: usize = shape[1..].iter().product();
    let sample = |row: &usize| x[row * size..(row + 1) * size].to_vec();
    let x = rows.iter().flat_map(sample).collect();
    shape[0] = rows.len();
    (x, shape)
}

/// Our outputs and those of the reference for the samples it was asked.
fn both(name: &str) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
    let path = root().join("tests/conformance/reference/activity_logits.npz");
    let mut reference = Npz::open(&path).unwrap();
    let rows = reference.indices("rows").unwrap();
    let (theirs, shape) = reference.f32(name).unwrap();
    let (x, x_shape) = chosen(&rows);
    let ours = evaluate(&example(&format!("models/{name}.onnx")), &x, &x_shape).unwrap();
    (ours, theirs.chunks(shape[1]).map(<[f32]>::to_vec).collect())
}

#[test]
fn f32_outputs_equal_the_reference() {
    for size in SIZES {
        let name = format!("{size}-f32");
        let (ours, theirs) = both(&name);
        assert_eq!(ours.len(), theirs.len());
        let pairs = ours.concat().into_iter().zip(theirs.concat());
        let far = |(a, b): (f32, f32)| (a - b).abs() / b.abs().max(1.0);
        let worst = pairs.map(far).fold(0.0, f32::max);
        println!("{name:<14} largest difference {worst:.2e}");
        assert!(worst <= MAX_F32, "{name}: {worst:e}");
    }
}

#[test]
fn int8_answers_equal_the_reference() {
    for size in SIZES {
        let name = format!("{size}-int8");
        let (ours, theirs) = both(&name);
        let differing = ours
            .iter()
            .zip(&theirs)
            .filter(|(a, b)| argmax(a) != argmax(b))
            .count();
        println!("{name:<14} {differing} of {} answers differ", theirs.len());
        assert_eq!(differing, 0, "{name}");
    }
}

/// The smallest network alone, since scalar evaluation is slow; all 2079 windows.
#[test]
fn accuracy_equals_the_reference() {
    let mut test = Npz::open(&example("test.npz")).unwrap();
    let (x, shape) = test.f32("x").unwrap();
    let y = test.indices("y").unwrap();
    for (name, reference) in [
        ("tiny-f32", "har_tiny_f32"),
        ("tiny-int8", "har_tiny_int8_qdq"),
    ] {
        let table = include_str!("../reference/accuracy.csv");
        let line = table
            .lines()
            .find(|l| l.split(',').next() == Some(reference))
            .unwrap();
        let theirs: f64 = line.rsplit(',').next().unwrap().parse().unwrap();
        let rows = evaluate(&example(&format!("models/{name}.onnx")), &x, &shape).unwrap();
        let ours = rows
            .iter()
            .zip(&y)
            .filter(|(row, y)| argmax(row) == **y)
            .count() as f64;
        let points = (ours - theirs) / y.len() as f64 * 100.0;
        println!("{name:<14} reference {theirs} right, ours {ours}, {points:+.2} points");
        assert!(points.abs() <= MAX_POINTS, "{name}: {points:+.2} points");
    }
}
