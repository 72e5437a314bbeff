//! Prints, for every ONNX file of a directory, how its module does on test data in the sandbox.
//!
//! `cargo run --release -p sandpiper-compiler --example table -- MODELS_DIR DATA_DIR [NAME_PART]`
//!
//! A model `FAMILY_x.onnx` is measured on `FAMILY_test.npz` with arrays `x` and `y`. Columns:
//! accuracy, memory, weights, code, operations, and the 10th percentile of the latency.
#![allow(clippy::print_stdout)]

use anyhow::{Context, Result, ensure};
use npyz::NpyFile;
use sandpiper_compiler::{Options, compile};
use sandpiper_sandbox::{Origin, load_wasm};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

struct Data {
    x: Vec<f32>,
    y: Vec<i64>,
}

fn bytes(archive: &mut zip::ZipArchive<std::fs::File>, key: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    archive.by_name(key)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn data(path: &Path) -> Result<Data> {
    let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
    let mut archive = zip::ZipArchive::new(file)?;
    let x = NpyFile::new(&bytes(&mut archive, "x.npy")?[..])?.into_vec()?;
    let y = bytes(&mut archive, "y.npy")?;
    let y = match NpyFile::new(&y[..])?.into_vec::<i64>() {
        Ok(y) => y,
        Err(_) => NpyFile::new(&y[..])?
            .into_vec::<u8>()?
            .into_iter()
            .map(i64::from)
            .collect(),
    };
    Ok(Data { x, y })
}

fn argmax(values: &[f32]) -> i64 {
    let better = |best: usize, i: usize| if values[i] > values[best] { i } else { best };
    (0..values.len()).fold(0, better) as i64
}

fn row(name: &str, onnx: &[u8], data: &Data) -> Result<String> {
    let options = Options::default();
    let compiled = compile(onnx, &options)?;
    ensure!(
        compiled == compile(onnx, &options)?,
        "two compilations differ"
    );
    let deadline = Duration::from_secs(60);
    let mut instance = load_wasm(
        &compiled.wasm,
        &compiled.weights,
        Origin::OwnCompiler,
        deadline,
    )?;
    let size = compiled.abi.inputs[0].spec.elements(1);
    let mut outputs = vec![Vec::new()];
    let mut right = 0;
    for (chunk, labels) in data.x.chunks(8 * size).zip(data.y.chunks(8)) {
        let input: Vec<u8> = chunk.iter().flat_map(|v| v.to_le_bytes()).collect();
        instance.infer(labels.len() as u32, &[&input], &mut outputs)?;
        let values: Vec<f32> = outputs[0]
            .as_chunks()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect();
        let rows = values.chunks(values.len() / labels.len());
        right += rows
            .zip(labels)
            .filter(|(row, label)| argmax(row) == **label)
            .count();
    }
    let input: Vec<u8> = data.x[..size]
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    let mut times = Vec::new();
    for _ in 0..300 {
        let start = Instant::now();
        instance.infer(1, &[&input], &mut outputs)?;
        times.push(start.elapsed().as_nanos() as f64 / 1e3);
    }
    times.sort_by(f64::total_cmp);
    let r = &compiled.report;
    let macs: Vec<_> = r
        .macs
        .iter()
        .map(|(d, n)| format!("{d} {:.3}M", *n as f64 / 1e6))
        .collect();
    Ok(format!(
        "{name:<32} {:.4} {right:>5} {:>9} {:>8} {:>7} {:>7.1} {:>3} {}",
        right as f64 / data.y.len() as f64,
        r.memory_bytes,
        r.weights_bytes,
        r.wasm_bytes,
        times[30],
        r.steps.len(),
        macs.join(" ")
    ))
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, models, data_dir, rest @ ..] = args.as_slice() else {
        anyhow::bail!("usage: table MODELS_DIR DATA_DIR [NAME_PART]");
    };
    let mut files: Vec<_> = std::fs::read_dir(models)?
        .flatten()
        .map(|e| e.path())
        .collect();
    files.retain(|p| p.extension().is_some_and(|e| e == "onnx"));
    files.sort();
    let mut sets: BTreeMap<String, Data> = BTreeMap::new();
    println!(
        "{:<32} {:>6} {:>5} {:>9} {:>8} {:>7} {:>7} steps macs",
        "model", "acc", "right", "memory", "weights", "code", "us"
    );
    for path in files {
        let name = path
            .file_stem()
            .and_then(|s| s.to_str())
            .unwrap_or_default()
            .to_owned();
        if rest.iter().any(|part| !name.contains(part.as_str())) {
            continue;
        }
        let family = name.split('_').next().unwrap_or_default().to_owned();
        if !sets.contains_key(&family) {
            let set = data(&Path::new(data_dir).join(format!("{family}_test.npz")))?;
            sets.insert(family.clone(), set);
        }
        match row(&name, &std::fs::read(&path)?, &sets[&family]) {
            Ok(line) => println!("{line}"),
            Err(error) => println!("{name:<32} FAILED: {error:#}"),
        }
    }
    Ok(())
}
