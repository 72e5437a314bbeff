//! The models whose accuracy is published, and where their files are.

use crate::root;
use anyhow::{Context, Result, ensure};
use sandpiper_testdata::Samples;
use std::path::{Path, PathBuf};

const TABLE: &str = include_str!("../reference/published.csv");

/// Published names of the models that are in this repository, and their files.
const IN_REPOSITORY: [(&str, &str); 8] = [
    ("har_large_f32", "large-f32"),
    ("har_large_int8_qdq", "large-int8"),
    ("har_large_pruned50_f32", "pruned50-f32"),
    ("har_large_pruned50_int8_qdq", "pruned50-int8"),
    ("har_small_f32", "small-f32"),
    ("har_small_int8_qdq", "small-int8"),
    ("har_tiny_f32", "tiny-f32"),
    ("har_tiny_int8_qdq", "tiny-int8"),
];

/// A model and what is published of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// Name.
    pub model: String,
    /// Name of the data.
    pub data: String,
    /// Samples of it.
    pub samples: usize,
    /// Share of the samples that the model gets right.
    pub accuracy: f64,
}

/// The table of `reference/published.csv`.
///
/// # Errors
/// When a line of it is malformed.
pub fn table() -> Result<Vec<Published>> {
    let lines = TABLE.lines().skip(1);
    lines
        .map(|line| row(line).with_context(|| format!("published.csv: {line}")))
        .collect()
}

fn row(line: &str) -> Result<Published> {
    let fields: Vec<&str> = line.split(',').collect();
    let [model, data, samples, accuracy] = fields[..] else {
        anyhow::bail!("four fields are expected");
    };
    Ok(Published {
        model: model.to_owned(),
        data: data.to_owned(),
        samples: samples.parse()?,
        accuracy: accuracy.parse()?,
    })
}

/// Models and data that are too large or not ours to commit: beside the workspace, when there.
pub fn shared() -> PathBuf {
    root().join("../shared")
}

impl Published {
    /// Whether the model comes with this repository.
    pub fn in_repository(&self) -> bool {
        IN_REPOSITORY.iter().any(|(model, _)| *model == self.model)
    }

    /// Where the file of the model is, or would be.
    pub fn file(&self) -> PathBuf {
        let own = IN_REPOSITORY.iter().find(|(model, _)| *model == self.model);
        match own {
            Some((_, name)) => root().join(format!("examples/activity/models/{name}.onnx")),
            None => shared().join(format!("models/{}.onnx", self.model)),
        }
    }

    /// Where its data is, or would be.
    pub fn data_file(&self) -> PathBuf {
        match self.data.as_str() {
            "har_test" => root().join("examples/activity/test.npz"),
            other => shared().join(format!("data/{other}.npz")),
        }
    }

    /// What is missing to run it, if anything. A file of this repository is never missing: to
    /// read it fails.
    pub fn missing(&self) -> Option<PathBuf> {
        let beside = |p: &PathBuf| p.starts_with(shared());
        let files = [self.file(), self.data_file()];
        files.into_iter().find(|p| beside(p) && !p.is_file())
    }

    /// Its samples, as many as were published.
    ///
    /// # Errors
    /// When the file is not there, or holds another number.
    pub fn samples(&self) -> Result<Samples> {
        let samples = Samples::read(&self.data_file())?;
        let count = samples.y.len();
        ensure!(
            count == self.samples,
            "{} has {count} samples, not {}",
            self.data,
            self.samples
        );
        Ok(samples)
    }
}

/// Names of the ONNX files of a directory without their ending, sorted; none when it is absent.
pub fn names_in(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let files = entries.map(|e| e.path());
    let mut names: Vec<String> = files
        .filter(|p| p.extension().is_some_and(|e| e == "onnx"))
        .filter_map(|p| p.file_stem()?.to_str().map(str::to_owned))
        .collect();
    names.sort();
    names
}
