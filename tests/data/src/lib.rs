//! Labelled samples for tests and benchmarks: arrays of `.npz` files.

use anyhow::{Context, Result, ensure};
use npyz::NpyFile;
use std::fs::File;
use std::io::Read;
use std::path::Path;

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
    /// Reads the arrays `x` (f32) and `y` (u8 or i64) of a file.
    ///
    /// # Errors
    /// When they are not there, of another type or of different lengths.
    pub fn read(path: &Path) -> Result<Self> {
        let mut file = Npz::open(path)?;
        let (x, shape) = file.f32("x")?;
        let y = file.indices("y")?;
        ensure!(
            !y.is_empty() && shape.first() == Some(&y.len()),
            "x and y of {} do not have the same number of samples, at least one",
            path.display()
        );
        Ok(Self { x, shape, y })
    }

    /// Number of f32 of one sample.
    pub fn size(&self) -> usize {
        self.shape[1..].iter().product()
    }

    /// Inputs of one sample.
    pub fn sample(&self, index: usize) -> &[f32] {
        &self.x[index * self.size()..][..self.size()]
    }

    /// Inputs and shape of these samples alone.
    pub fn chosen(&self, rows: &[usize]) -> (Vec<f32>, Vec<usize>) {
        let x = rows.iter().flat_map(|row| self.sample(*row));
        let x = x.copied().collect();
        (x, [&[rows.len()], &self.shape[1..]].concat())
    }
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
