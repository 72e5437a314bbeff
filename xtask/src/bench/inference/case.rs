//! What is measured: a model and one sample.

use crate::{python, shell};
use anyhow::{Result, ensure};
use sandpiper_conformance::module::bytes;
use sandpiper_conformance::published::{names_in, table};
use sandpiper_testdata::Samples;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A model and one sample.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) name: String,
    /// The file.
    pub(super) onnx: PathBuf,
    /// A file with the little-endian elements of the only input.
    pub(super) input: PathBuf,
    /// Whether the batch is fixed to 1 when it is compiled, as one does for large models.
    pub(super) single: bool,
}

impl Case {
    /// Whether layers of it are computed in integers, so that engines may differ by a step.
    pub(super) fn quantised(&self) -> bool {
        self.name.contains("int8")
    }
}

/// The cases whose name contains `only`, and why others are missing. Samples of the small models
/// are written into `scratch`.
///
/// # Errors
/// When data of this repository cannot be read.
pub(super) fn cases(only: &str, scratch: &Path) -> Result<(Vec<Case>, Vec<String>)> {
    let mut missing = Vec::new();
    let mut cases = published(only, scratch, &mut missing)?;
    match networks() {
        Ok(directory) => {
            let names = names_in(&directory).into_iter();
            cases.extend(names.filter(|n| n.contains(only)).map(|name| Case {
                onnx: directory.join(format!("{name}.onnx")),
                input: directory.join(format!("{name}.input")),
                single: true,
                name,
            }));
        }
        Err(error) => missing.push(format!(
            "the networks of tests/networks are missing: {error:#}"
        )),
    }
    Ok((cases, missing))
}

/// The models of this repository, and those beside it.
fn published(only: &str, scratch: &Path, missing: &mut Vec<String>) -> Result<Vec<Case>> {
    let models = table()?
        .into_iter()
        .filter(|m| m.model.contains(only) && (m.in_repository() || m.model.starts_with("kws_")));
    let (here, absent): (Vec<_>, Vec<_>) = models.partition(|m| m.missing().is_none());
    if !absent.is_empty() {
        let names: Vec<&str> = absent.iter().map(|m| m.model.as_str()).collect();
        missing.push(format!(
            "{} models were skipped, they or their data are not in ../shared: {}",
            names.len(),
            names.join(" ")
        ));
    }
    let mut inputs: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut cases = Vec::new();
    for model in here {
        if !inputs.contains_key(&model.data) {
            let samples: Samples = model.samples()?;
            let file = scratch.join(format!("{}.input", model.data));
            std::fs::write(&file, bytes(samples.sample(0)))?;
            inputs.insert(model.data.clone(), file);
        }
        cases.push(Case {
            onnx: model.file(),
            input: inputs[&model.data].clone(),
            single: false,
            name: model.model,
        });
    }
    Ok(cases)
}

/// Directory of the networks of `tests/networks`, which are written on first use and whenever
/// their description has changed.
fn networks() -> Result<PathBuf> {
    let source = shell::root().join("tests/networks");
    let directory = shell::root().join("target/networks");
    let mark = directory.join("made-from");
    let mut text = String::new();
    for file in ["graph.py", "networks.py", "make.py"] {
        text += &std::fs::read_to_string(source.join(file))?;
    }
    if std::fs::read_to_string(&mark).is_ok_and(|found| found == text) {
        return Ok(directory);
    }
    super::super::say("making the networks");
    let made = Command::new(python::python()?)
        .arg(source.join("make.py"))
        .arg(&directory)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    ensure!(
        made.success(),
        "tests/networks/make.py failed; run it by hand to see why"
    );
    std::fs::write(&mark, text)?;
    Ok(directory)
}
