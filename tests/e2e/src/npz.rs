//! Reads test data: the arrays `x` (f32) and `y` (u8 or i64) of an `.npz` file.

use anyhow::{Context, Result, ensure};
use npyz::NpyFile;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Labelled samples.
#[derive(Debug, Clone)]
pub struct Samples {
    /// All inputs, sample after sample.
    pub x: Vec<f32>,
    /// Shape of `x`; the first number counts the samples.
    pub shape: Vec<usize>,
    /// Class of each sample.
    pub y: Vec<usize>,
}

impl Samples {
    /// Reads a file.
    ///
    /// # Errors
    /// When it is no such file.
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let mut zip = zip::ZipArchive::new(file)?;
        let mut entry = |name: &str| -> Result<Vec<u8>> {
            let mut bytes = Vec::new();
            zip.by_name(name)?.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let (x, y) = (entry("x.npy")?, entry("y.npy")?);
        let x = NpyFile::new(&x[..])?;
        let shape: Vec<usize> = x.shape().iter().map(|n| *n as usize).collect();
        let x: Vec<f32> = x.into_vec()?;
        let y = classes(&y)?;
        ensure!(
            shape.first() == Some(&y.len()),
            "x and y differ in their number of samples"
        );
        Ok(Self { x, shape, y })
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.y.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.y.is_empty()
    }

    /// Inputs of one sample.
    pub fn sample(&self, index: usize) -> &[f32] {
        let size = self.shape[1..].iter().product::<usize>();
        &self.x[index * size..(index + 1) * size]
    }
}

fn classes(bytes: &[u8]) -> Result<Vec<usize>> {
    if let Ok(values) = NpyFile::new(bytes)?.into_vec::<u8>() {
        return Ok(values.into_iter().map(usize::from).collect());
    }
    let values: Vec<i64> = NpyFile::new(bytes)?
        .into_vec()
        .context("y is neither u8 nor i64")?;
    values
        .into_iter()
        .map(|v| Ok(usize::try_from(v)?))
        .collect()
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
