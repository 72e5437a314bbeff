//! A model in rten on one thread.

use anyhow::{Context, Result, bail, ensure};
use rten::{DataType, Dimension, Model, NodeId, RunOptions, ThreadPool, Value, ValueType};
use rten_tensor::prelude::*;
use std::sync::Arc;

/// A loaded model with its inputs.
pub struct Rten {
    model: Model,
    inputs: Vec<(NodeId, Value)>,
    pool: Arc<ThreadPool>,
}

impl Rten {
    /// Reads an ONNX file; of each input, in its order, the little-endian elements. A dimension that the
    /// model leaves free is 1.
    ///
    /// # Errors
    /// What the engine says, or an input that does not fit.
    pub fn load(onnx: Vec<u8>, inputs: &[Vec<u8>]) -> Result<Self> {
        let model = Model::load(onnx)?;
        let ids = model.input_ids().to_vec();
        ensure!(
            ids.len() == inputs.len(),
            "the model has {} inputs",
            ids.len()
        );
        let mut given = Vec::new();
        for (id, bytes) in ids.into_iter().zip(inputs) {
            let info = model
                .node_info(id)
                .context("an input without a description")?;
            let shape = info.shape().context("an input without a shape")?;
            let size = |d: &Dimension| match d {
                Dimension::Fixed(n) => *n,
                Dimension::Symbolic(_) => 1,
            };
            let shape: Vec<usize> = shape.iter().map(size).collect();
            let dtype = info.dtype().context("an input without a type")?;
            given.push((id, value(dtype, &shape, bytes)?));
        }
        Ok(Self {
            model,
            inputs: given,
            pool: Arc::new(ThreadPool::with_num_threads(1)),
        })
    }

    /// One run.
    ///
    /// # Errors
    /// What the engine says.
    pub fn run(&self) -> Result<Vec<Value>> {
        let inputs = self.inputs.iter().map(|(id, v)| (*id, v.as_view().into()));
        let mut options = RunOptions::default();
        options.thread_pool = Some(Arc::clone(&self.pool));
        Ok(self
            .model
            .run(inputs.collect(), self.model.output_ids(), Some(options))?)
    }

    /// One run; the elements of each output.
    ///
    /// # Errors
    /// What the engine says, or an output of a type that is no number.
    pub fn outputs(&self) -> Result<Vec<Vec<f64>>> {
        let floats = |value: Value| -> Result<Vec<f64>> {
            Ok(match value {
                Value::FloatTensor(t) => t.iter().map(|v| f64::from(*v)).collect(),
                Value::Int32Tensor(t) => t.iter().map(|v| f64::from(*v)).collect(),
                Value::Int8Tensor(t) => t.iter().map(|v| f64::from(*v)).collect(),
                Value::UInt8Tensor(t) => t.iter().map(|v| f64::from(*v)).collect(),
                other => bail!("an output of type {:?}", other.dtype()),
            })
        };
        self.run()?.into_iter().map(floats).collect()
    }
}

/// This engine has 64-bit integers and truth values as 32-bit integers; the size of an element
/// tells which they were.
fn value(dtype: ValueType, shape: &[usize], bytes: &[u8]) -> Result<Value> {
    let count = shape.iter().product::<usize>().max(1);
    let words = |bytes: &[u8]| -> Result<Vec<i32>> {
        Ok(match bytes.len() / count {
            1 => bytes.iter().map(|b| i32::from(*b)).collect(),
            4 => bytes
                .as_chunks()
                .0
                .iter()
                .map(|b| i32::from_le_bytes(*b))
                .collect(),
            _ => {
                let long = bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b));
                long.map(i32::try_from).collect::<Result<_, _>>()?
            }
        })
    };
    let floats = || bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b));
    Ok(match dtype {
        ValueType::Tensor(DataType::Float) => {
            Value::from_shape(shape, floats().collect::<Vec<_>>())?
        }
        ValueType::Tensor(DataType::Int32) => Value::from_shape(shape, words(bytes)?)?,
        ValueType::Tensor(DataType::UInt8) => Value::from_shape(shape, bytes.to_vec())?,
        ValueType::Tensor(DataType::Int8) => {
            Value::from_shape(shape, bytes.iter().map(|b| *b as i8).collect::<Vec<_>>())?
        }
        other => bail!("an input of type {other:?}"),
    })
}
