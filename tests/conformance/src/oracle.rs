//! The scalar evaluation of the compiler: slow, and right by inspection.

use anyhow::{Context, Result, ensure};
use sandpiper_compiler::{Model, Tensor};
use std::collections::BTreeMap;

/// Samples that are evaluated together: bounds the memory of the intermediate tensors.
const BATCH: usize = 16;

/// A model that is evaluated.
pub struct Oracle(Model);

impl Oracle {
    /// Reads an ONNX file.
    ///
    /// # Errors
    /// When it is refused, or has not exactly one input.
    pub fn read(onnx: &[u8]) -> Result<Self> {
        let model = Model::read(onnx)?;
        let inputs = model.summary().inputs.len();
        ensure!(
            inputs == 1,
            "the model has {inputs} inputs, not exactly one"
        );
        Ok(Self(model))
    }

    /// Runs samples of f32; gives the first output of each, in order. The first number of `shape`
    /// counts the samples.
    ///
    /// # Errors
    /// When sizes do not fit.
    pub fn rows(&self, x: &[f32], shape: &[usize]) -> Result<Vec<Vec<f32>>> {
        let summary = self.0.summary();
        let size: usize = shape[1..].iter().product();
        let mut rows = Vec::with_capacity(shape[0]);
        for chunk in x.chunks(size * BATCH) {
            let dims = [&[chunk.len() / size], &shape[1..]].concat();
            let tensor = Tensor::f32(&dims, chunk.to_vec()).map_err(anyhow::Error::msg)?;
            let inputs = BTreeMap::from([(summary.inputs[0].name.clone(), tensor)]);
            let outputs = self.0.evaluate(&inputs)?;
            let output = outputs
                .get(&summary.outputs[0])
                .context("the output is missing")?;
            let values = output.as_f32().map_err(anyhow::Error::msg)?;
            rows.extend(values.chunks(values.len() / dims[0]).map(<[f32]>::to_vec));
        }
        Ok(rows)
    }
}
