//! Every model whose accuracy is published: compiled, and run in the sandbox on all its data.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use sandpiper_conformance::module::{Module, bytes};
use sandpiper_conformance::published::{self, Published, names_in, shared};
use sandpiper_testdata::argmax;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Points of accuracy by which we may differ from what is published.
const MAX_POINTS: f64 = 0.3;

/// Test data, ready for the sandbox.
struct Data {
    x: Vec<u8>,
    y: Vec<usize>,
}

/// What came of a model.
struct Row {
    accuracy: f64,
    /// Mean over all samples, in full batches, with whatever else this machine does.
    us_per_inference: f64,
}

fn measure(model: &Published, data: &Data) -> anyhow::Result<Row> {
    let mut module = Module::compile(&std::fs::read(model.file())?)?;
    let start = Instant::now();
    let rows = module.rows(&data.x)?;
    let us = start.elapsed().as_secs_f64() * 1e6;
    anyhow::ensure!(rows.len() == data.y.len(), "{} outputs", rows.len());
    let pairs = rows.iter().zip(&data.y);
    // An output that is not finite is no answer, wherever its largest value may lie.
    let right = pairs
        .filter(|(row, y)| row.iter().all(|v| v.is_finite()) && argmax(row) == **y)
        .count();
    Ok(Row {
        accuracy: right as f64 / data.y.len() as f64,
        us_per_inference: us / data.y.len() as f64,
    })
}

/// Measures all of them, on as many threads as there are cores, in the given order.
fn measure_all(
    models: &[Published],
    data: &BTreeMap<String, Data>,
) -> Vec<(Published, anyhow::Result<Row>)> {
    let next = AtomicUsize::new(0);
    let rows = Mutex::new(BTreeMap::new());
    let work = || {
        while let Some(model) = models.get(next.fetch_add(1, Ordering::Relaxed)) {
            let row = measure(model, &data[&model.data]);
            rows.lock().unwrap().insert(model.model.clone(), row);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let mut rows = rows.into_inner().unwrap();
    let row = |m: &Published| (m.clone(), rows.remove(&m.model).unwrap());
    models.iter().map(row).collect()
}

#[test]
fn every_model_keeps_its_accuracy_in_the_sandbox() {
    let table = published::table().unwrap();
    let (here, absent): (Vec<_>, Vec<_>) = table.into_iter().partition(|m| m.missing().is_none());
    let mut data = BTreeMap::new();
    for model in &here {
        data.entry(model.data.clone()).or_insert_with(|| {
            let samples = model.samples().unwrap();
            let (x, y) = (bytes(&samples.x), samples.y);
            Data { x, y }
        });
    }
    println!("model                        published    ours  points  us per inference");
    let mut failures = Vec::new();
    for (model, row) in measure_all(&here, &data) {
        let name = &model.model;
        match row {
            Ok(row) => {
                let points = (row.accuracy - model.accuracy) * 100.0;
                println!(
                    "{name:<28} {:>9.4} {:>7.4} {points:>+7.2} {:>17.1}",
                    model.accuracy, row.accuracy, row.us_per_inference
                );
                if points.abs() > MAX_POINTS {
                    failures.push(format!("{name}: {points:+.2} points"));
                }
            }
            Err(error) => failures.push(format!("{name}: {error:#}")),
        }
    }
    println!("{} models measured, {} skipped", here.len(), absent.len());
    if let Some(why) = absent.first().and_then(Published::missing) {
        println!("skipped for want of files such as {}", why.display());
    }
    let own = here.iter().filter(|m| m.in_repository()).count();
    assert_eq!(own, 8, "the models of this repository");
    assert!(failures.is_empty(), "{failures:#?}");
}

/// Nothing is left out because nobody wrote it down.
#[test]
fn every_model_beside_the_workspace_is_in_the_table() {
    let names = names_in(&shared().join("models"));
    if names.is_empty() {
        println!("skipped: there is no ../shared/models beside the workspace");
        return;
    }
    let table = published::table().unwrap();
    let known: BTreeSet<_> = table.iter().map(|m| m.model.as_str()).collect();
    let unknown: Vec<_> = names
        .iter()
        .filter(|n| !known.contains(n.as_str()))
        .collect();
    assert!(
        unknown.is_empty(),
        "published.csv does not name {unknown:?}"
    );
    for model in table.iter().filter(|m| m.in_repository()) {
        let copy = shared().join(format!("models/{}.onnx", model.model));
        let (ours, theirs) = (std::fs::read(model.file()), std::fs::read(copy));
        assert_eq!(ours.unwrap(), theirs.unwrap(), "{}", model.model);
    }
    println!("{} models, all of them in the table", names.len());
}
