//! tract on one thread, which is how it runs unless told otherwise.

use anyhow::{Context, Result};
use sandpiper_peers::{Loaded, serve};
use std::path::Path;
use std::sync::Arc;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::infer::{DimFact, Factoid};
use tract_onnx::tract_hir::internal::DimLike;

struct Tract {
    plan: Arc<TypedRunnableModel>,
    inputs: TVec<TValue>,
}

impl Loaded for Tract {
    fn run(&mut self) -> Result<()> {
        self.plan.run(self.inputs.clone())?;
        Ok(())
    }

    fn outputs(&mut self) -> Result<Vec<Vec<f64>>> {
        let outputs = self.plan.run(self.inputs.clone())?;
        let values = |output: &TValue| -> Result<Vec<f64>> {
            let cast = output.cast_to::<f64>()?;
            Ok(cast.to_plain_array_view::<f64>()?.iter().copied().collect())
        };
        outputs.iter().map(values).collect()
    }
}

fn load(path: &Path, inputs: &[Vec<u8>]) -> Result<Tract> {
    // The file's notes on shapes speak of a free batch; here it is 1.
    let reader = tract_onnx::onnx()
        .with_ignore_value_info(true)
        .with_ignore_output_shapes(true);
    let mut model = reader.model_for_path(path)?;
    let mut given = TVec::new();
    for (index, bytes) in inputs.iter().enumerate() {
        let fact = model.input_fact(index)?.clone();
        let dtype = fact
            .datum_type
            .concretize()
            .context("an input without a type")?;
        let size = |d: &DimFact| d.concretize().and_then(|d| d.to_usize().ok()).unwrap_or(1);
        let shape: TVec<usize> = fact.shape.dims().map(size).collect();
        model.set_input_fact(index, InferenceFact::dt_shape(dtype, &shape))?;
        // SAFETY: any bytes are valid numbers of these types; for a bool the caller gives 0 or 1.
        let tensor = unsafe { Tensor::from_raw_dt(dtype, &shape, bytes)? };
        given.push(tensor.into());
    }
    let plan = model.into_optimized()?.into_runnable()?;
    Ok(Tract {
        plan,
        inputs: given,
    })
}

fn main() -> Result<()> {
    serve("tract 0.23.9", load)
}
