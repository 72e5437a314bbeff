//! Real models and data through the compiler: what the tests compare with references.

use anyhow::{Context, Result, ensure};
use npyz::NpyFile;
use sandpiper_compiler::{Model, Tensor};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Samples that are evaluated together: bounds the memory of the intermediate tensors.
const BATCH: usize = 16;

/// The root of the workspace.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// An `.npz` file.
#[derive(Debug)]
pub struct Npz(zip::ZipArchive<File>);

impl Npz {
    /// Opens a file.
    ///
    /// # Errors
    /// When it is not there or no archive.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self(zip::ZipArchive::new(file)?))
    }

    fn bytes(&mut self, key: &str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.0
            .by_name(&format!("{key}.npy"))?
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// An array of f32, row-major, with its shape.
    ///
    /// # Errors
    /// When it is not there or of another type.
    pub fn f32(&mut self, key: &str) -> Result<(Vec<f32>, Vec<usize>)> {
        let bytes = self.bytes(key)?;
        let array = NpyFile::new(&bytes[..])?;
        let shape = array.shape().iter().map(|n| *n as usize).collect();
        Ok((array.into_vec()?, shape))
    }

    /// An array of u8 or i64 as indices.
    ///
    /// # Errors
    /// When it is not there or of another type.
    pub fn indices(&mut self, key: &str) -> Result<Vec<usize>> {
        let bytes = self.bytes(key)?;
        if let Ok(values) = NpyFile::new(&bytes[..])?.into_vec::<u8>() {
            return Ok(values.into_iter().map(usize::from).collect());
        }
        let values: Vec<i64> = NpyFile::new(&bytes[..])?.into_vec()?;
        values
            .into_iter()
            .map(|v| Ok(usize::try_from(v)?))
            .collect()
    }
}

/// Runs samples of f32 through a model in the compiler's scalar evaluation; gives the first
/// output of each, in order.
///
/// # Errors
/// When the model is refused or sizes do not fit.
pub fn evaluate(path: &Path, x: &[f32], shape: &[usize]) -> Result<Vec<Vec<f32>>> {
    let onnx = std::fs::read(path).with_context(|| format!("no file {}", path.display()))?;
    let model = Model::read(&onnx)?;
    let summary = model.summary();
    ensure!(
        summary.inputs.len() == 1,
        "the model has not exactly one input"
    );
    let size: usize = shape[1..].iter().product();
    let mut rows = Vec::with_capacity(shape[0]);
    for chunk in x.chunks(size * BATCH) {
        let dims = [&[chunk.len() / size], &shape[1..]].concat();
        let tensor = Tensor::f32(&dims, chunk.to_vec()).map_err(anyhow::Error::msg)?;
        let inputs = BTreeMap::from([(summary.inputs[0].name.clone(), tensor)]);
        let outputs = model.evaluate(&inputs)?;
        let output = outputs
            .get(&summary.outputs[0])
            .context("the output is missing")?;
        let values = output.as_f32().map_err(anyhow::Error::msg)?;
        rows.extend(values.chunks(values.len() / dims[0]).map(<[f32]>::to_vec));
    }
    Ok(rows)
}

/// Index of the largest value; the first of equal ones.
pub fn argmax(values: &[f32]) -> usize {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = index;
        }
    }
    best
}
