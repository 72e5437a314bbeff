//! What it costs to look at an answer: nanoseconds of one core for each request.
//! `cargo run --release -p sandpiper-core --example look`
#![allow(clippy::print_stdout)]

use sandpiper_core::outputs::{Look, OutputStats, Watch};
use sandpiper_core::tensor::{DType, Dim, TensorSpec};
use std::hint::black_box;
use std::time::Instant;

/// Requests of each kind.
const REQUESTS: u32 = 20_000;

fn spec(dims: &[u32]) -> TensorSpec {
    let dims = dims.iter().map(|n| Dim::Fixed(*n));
    TensorSpec {
        name: "x".to_owned(),
        dtype: DType::F32,
        dims: std::iter::once(Dim::Batch).chain(dims).collect(),
    }
}

fn main() {
    for (what, input, classes) in [
        ("6 x 128 samples, 6 classes", vec![6, 128], 6),
        (
            "3 x 224 x 224 pixels, 1000 classes",
            vec![3, 224, 224],
            1_000,
        ),
    ] {
        let (input, output) = (spec(&input), spec(&[classes]));
        let look = Look::new(
            std::slice::from_ref(&input),
            &[output],
            Some(classes as usize),
        );
        let mut inputs = vec![vec![0; input.size_bytes(1)]];
        let scores = (0..classes).flat_map(|c| (c as f32 / 100.0).sin().to_le_bytes());
        let outputs = vec![scores.collect::<Vec<u8>>()];
        let (mut watch, mut stats) = (Watch::default(), OutputStats::default());
        let begun = Instant::now();
        for request in 0..REQUESTS {
            inputs[0][..4].copy_from_slice(&request.to_le_bytes());
            let prints = look.inputs(1, black_box(&inputs));
            watch.count(&look.outputs_to(&prints, black_box(&outputs)), &mut stats);
        }
        let each = begun.elapsed() / REQUESTS;
        println!("{what}: {} ns", each.as_nanos());
        assert_eq!(stats.followed, u64::from(REQUESTS) - 1);
    }
}
