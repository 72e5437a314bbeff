//! `cargo xtask bench inference`: our code in the sandbox against ONNX Runtime.

use super::onnxruntime::OnnxRuntime;
use super::provenance::{Provenance, own_build};
use super::stats::median;
use anyhow::{Context, Result, ensure};
use sandpiper_conformance::module::{Module, bytes};
use sandpiper_conformance::oracle::Oracle;
use sandpiper_conformance::published::{Published, table};
use sandpiper_testdata::{Samples, argmax};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Instant;

/// The sides take turns so often: what else the machine does then falls on both.
const ROUNDS: usize = 15;
/// Runs of each side in a turn: the first few find cold caches, most do not.
const RUNS: usize = 20;
/// The same for the scalar evaluation, which is some hundred times slower.
const SCALAR_ROUNDS: usize = 3;

/// What a reader must know of differing answers.
const DIFFERING: &str = "answers differ: the two sides name different classes for the sample. On an \
x86 CPU without VNNI the integer kernels of ONNX Runtime saturate in 16 bits on some of these \
networks, so that its time is that of a wrong result; who is right on all samples is measured by \
the conformance test.";

/// A model.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    model: String,
    ours_us: f64,
    other_us: f64,
    /// Time of the other side as a multiple of ours: above 1, ours is faster.
    ratio: f64,
    /// Whether both sides name the same class for the sample.
    same_answer: bool,
    /// Exact size of the linear memory, weights included.
    memory_bytes: u64,
    weights_bytes: u64,
    /// Size of the module, before it is made native.
    code_bytes: u64,
}

/// Everything.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    provenance: Provenance,
    /// Who the other side is.
    other: String,
    /// Why it is not ONNX Runtime.
    no_onnxruntime: Option<String>,
    rows: Vec<Row>,
    /// Models that were not measured, for want of files.
    skipped: Vec<String>,
}

/// Who our code is compared with.
enum Other {
    OnnxRuntime(OnnxRuntime),
    Scalar { why: String },
}

/// Measures all models whose name contains `only`.
///
/// # Errors
/// When a side fails on a model.
pub(super) fn measure(only: &str) -> Result<Report> {
    let mut other = match OnnxRuntime::start() {
        Ok(engine) => Other::OnnxRuntime(engine),
        Err(error) => Other::Scalar {
            why: format!("{error:#}"),
        },
    };
    let models = table()?
        .into_iter()
        .filter(|m| m.model.contains(only) && (m.in_repository() || m.model.starts_with("kws_")));
    let (here, absent): (Vec<_>, Vec<_>) = models.partition(|m| m.missing().is_none());
    let mut data: BTreeMap<String, Samples> = BTreeMap::new();
    let mut report = Report {
        provenance: Provenance::of(own_build()),
        other: match &other {
            Other::OnnxRuntime(engine) => format!("ONNX Runtime {}", engine.version),
            Other::Scalar { .. } => "the compiler's scalar evaluation".to_owned(),
        },
        no_onnxruntime: match &other {
            Other::OnnxRuntime(_) => None,
            Other::Scalar { why } => Some(why.clone()),
        },
        rows: Vec::new(),
        skipped: absent.into_iter().map(|m| m.model).collect(),
    };
    for model in &here {
        super::say(&model.model);
        if !data.contains_key(&model.data) {
            data.insert(model.data.clone(), model.samples()?);
        }
        let row = row(model, &data[&model.data], &mut other);
        let row = row.with_context(|| format!("cannot measure {}", model.model))?;
        report.rows.push(row);
    }
    ensure!(
        !report.rows.is_empty(),
        "there is no model whose name contains `{only}`"
    );
    Ok(report)
}

fn row(model: &Published, samples: &Samples, other: &mut Other) -> Result<Row> {
    let path = model.file();
    let onnx = std::fs::read(&path)?;
    let (x, shape) = samples.chosen(&[0]);
    let input = bytes(&x);
    let mut module = Module::compile(&onnx)?;
    let output = module.rows(&input)?.concat();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let reference = match other {
        Other::OnnxRuntime(engine) => {
            let dir = tempfile::tempdir()?;
            let file = dir.path().join("input.f32");
            std::fs::write(&file, &input)?;
            let reference = engine.load(&path, &file, &shape)?;
            for _ in 0..ROUNDS {
                ours.extend(ours_us(&mut module, &input)?);
                theirs.extend(engine.run(RUNS)?);
            }
            reference
        }
        Other::Scalar { .. } => {
            let oracle = Oracle::read(&onnx)?;
            for _ in 0..SCALAR_ROUNDS {
                ours.extend(ours_us(&mut module, &input)?);
                let start = Instant::now();
                oracle.rows(&x, &shape)?;
                theirs.push(start.elapsed().as_secs_f64() * 1e6);
            }
            oracle.rows(&x, &shape)?.concat()
        }
    };
    let (ours_us, other_us) = (median(&ours), median(&theirs));
    let made = module.report();
    Ok(Row {
        model: model.model.clone(),
        ours_us,
        other_us,
        ratio: other_us / ours_us,
        same_answer: argmax(&output) == argmax(&reference),
        memory_bytes: made.memory_bytes,
        weights_bytes: made.weights_bytes,
        code_bytes: made.wasm_bytes,
    })
}

/// Times of one turn: the copies of input and output into and out of the sandbox are in them.
fn ours_us(module: &mut Module, input: &[u8]) -> Result<Vec<f64>> {
    let mut times = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        let start = Instant::now();
        module.infer(input)?;
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(times)
}

impl Report {
    /// For people.
    ///
    /// # Errors
    /// None: writing into a string.
    pub(super) fn text(&self) -> Result<String> {
        let mut text = String::new();
        writeln!(text, "{}", self.provenance.text())?;
        writeln!(
            text,
            "batch 1, 1 thread, medians in us; the other side is {}; ratio: other / ours\n",
            self.other
        )?;
        writeln!(
            text,
            "{:<28} {:>9} {:>9} {:>7} {:>10} {:>10} {:>9}",
            "model", "ours", "other", "ratio", "memory KiB", "weights", "wasm KiB"
        )?;
        let kib = |bytes: u64| bytes as f64 / 1024.0;
        for r in &self.rows {
            let mark = if r.same_answer {
                ""
            } else {
                "  answers differ"
            };
            writeln!(
                text,
                "{:<28} {:>9.1} {:>9.1} {:>7.2} {:>10.1} {:>10.1} {:>9.1}{mark}",
                r.model,
                r.ours_us,
                r.other_us,
                r.ratio,
                kib(r.memory_bytes),
                kib(r.weights_bytes),
                kib(r.code_bytes)
            )?;
        }
        if self.rows.iter().any(|r| !r.same_answer) {
            writeln!(text, "\n{DIFFERING}")?;
        }
        if let Some(why) = &self.no_onnxruntime {
            writeln!(text, "\nONNX Runtime was not measured: {why}")?;
        }
        if !self.skipped.is_empty() {
            let (n, names) = (self.skipped.len(), self.skipped.join(" "));
            writeln!(
                text,
                "\n{n} models were skipped: they or their data are not in ../shared: {names}"
            )?;
        }
        Ok(text)
    }
}
