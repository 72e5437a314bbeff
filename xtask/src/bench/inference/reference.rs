//! What the file means: the output that all sides are held against.

use super::case::Case;
use anyhow::{Context, Result, anyhow};
use sandpiper_compiler::build::outline;
use sandpiper_compiler::{Model, Options, Tensor, evaluate};
use std::collections::BTreeMap;

/// The output of a model that computes in integers by its operators (the QOperator and dynamic
/// dialects), by the compiler's scalar evaluation; none for other models. On an x86 CPU without VNNI
/// the kernels of ONNX Runtime for these operators saturate, also without optimisations.
///
/// # Errors
/// When it cannot be evaluated.
pub(super) fn of_integer_operators(case: &Case) -> Result<Option<Vec<f64>>> {
    let onnx = std::fs::read(&case.onnx)?;
    let integer = |o: &String| {
        ["QLinear", "QGemm", "Integer"]
            .iter()
            .any(|p| o.contains(p))
    };
    if !outline(&onnx)?.operators.iter().any(integer) {
        return Ok(None);
    }
    let summary = Model::read(&onnx)?.summary();
    let input = summary.inputs.first().context("no input")?;
    let bytes = std::fs::read(&case.input)?;
    let dims = input.shape(1).iter().map(|d| *d as usize).collect();
    let tensor = Tensor::from_bytes(input.dtype, dims, &bytes).map_err(|e| anyhow!("{e}"))?;
    let inputs = BTreeMap::from([(input.name.clone(), tensor)]);
    let outputs = evaluate(&onnx, &Options::default(), &inputs)?;
    let mut values = Vec::new();
    for name in &summary.outputs {
        let output = outputs.get(name).context("an output is missing")?;
        let floats = output.as_f32().map_err(|e| anyhow!("{e}"))?;
        values.extend(floats.iter().map(|v| f64::from(*v)));
    }
    Ok(Some(values))
}
