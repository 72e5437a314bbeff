//! Runs a file of ONNX or wasm once in the sandbox, arrays in and arrays out.

use super::evaluate::{shape_text, spec_text};
use super::module::{Module, ModuleError};
use super::npz::{self, Array, Arrays, NpzError};
use sandpiper_compiler::Options;
use sandpiper_core::abi::{ModuleAbi, PlacedTensor};
use sandpiper_core::tensor::{DType, Dim, TensorSpec};
use sandpiper_sandbox::{InferError, Instance, SandboxError};
use std::time::Duration;

/// Longest time of one call: it only tells an endless loop from a slow model.
const DEADLINE: Duration = Duration::from_secs(600);

/// Why a file gave no result.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The file is refused.
    #[error("the file cannot be used")]
    Module(#[from] ModuleError),
    /// The sandbox refuses the module.
    #[error("the model cannot be loaded")]
    Sandbox(#[from] SandboxError),
    /// An array is missing.
    #[error("the inputs do not fit the model")]
    Npz(#[from] NpzError),
    /// An array that is no input.
    #[error("the model has no input `{name}`; its inputs are {inputs}")]
    Unknown {
        /// The array.
        name: String,
        /// The inputs, with types and shapes.
        inputs: String,
    },
    /// Wrong type or shape.
    #[error("array `{name}` is {found_type} {found}, the model needs {wanted_type} {wanted}")]
    Shape {
        /// The array.
        name: String,
        /// Its type.
        found_type: DType,
        /// Its shape.
        found: String,
        /// The type needed.
        wanted_type: DType,
        /// The shape needed.
        wanted: String,
    },
    /// Inputs disagree about the batch.
    #[error("the inputs have different batches: {0} and {1}")]
    Batches(usize, usize),
    /// The batch is empty.
    #[error("the inputs hold no sample")]
    Empty,
    /// The run failed.
    #[error("the model gave no result")]
    Infer(#[from] InferError),
}

/// Makes a module of the file and runs it on these inputs; a batch larger than the model takes is run in
/// slices, which gives the same result because the items of a batch do not touch each other.
///
/// # Errors
/// [`RunError`].
pub fn run(
    file: &[u8],
    weights: Option<&[u8]>,
    options: &Options,
    inputs: &Arrays,
) -> Result<Arrays, RunError> {
    let module = Module::of(file, weights, options)?;
    let batch = check_inputs(&module.abi, inputs)?;
    let mut instance = module.load(DEADLINE)?;
    run_slices(&mut instance, inputs, batch)
}

fn run_slices(instance: &mut Instance, inputs: &Arrays, batch: usize) -> Result<Arrays, RunError> {
    let abi = instance.abi().clone();
    let mut collected: Vec<Vec<u8>> = vec![Vec::new(); abi.outputs.len()];
    let mut outputs = collected.clone();
    let mut start = 0;
    while start < batch {
        let count = (batch - start).min(abi.max_batch as usize);
        let mut views = Vec::with_capacity(abi.inputs.len());
        for tensor in &abi.inputs {
            let array = npz::get(inputs, &tensor.spec.name)?;
            views.push(if has_batch(&tensor.spec) {
                array.slice(start, count)
            } else {
                &array.bytes
            });
        }
        instance.infer(count as u32, &views, &mut outputs)?;
        for ((all, slice), tensor) in collected.iter_mut().zip(&outputs).zip(&abi.outputs) {
            if has_batch(&tensor.spec) {
                all.extend_from_slice(slice);
            } else {
                all.clone_from(slice);
            }
        }
        start += count;
    }
    let named = abi.outputs.iter().zip(collected).map(|(tensor, bytes)| {
        let shape = tensor
            .spec
            .shape(batch as u32)
            .iter()
            .map(|&n| n as usize)
            .collect();
        (
            tensor.spec.name.clone(),
            Array {
                dtype: tensor.spec.dtype,
                shape,
                bytes,
            },
        )
    });
    Ok(named.collect())
}

fn has_batch(spec: &TensorSpec) -> bool {
    spec.dims.first() == Some(&Dim::Batch)
}

/// The batch, once every array fits the model.
fn check_inputs(abi: &ModuleAbi, inputs: &Arrays) -> Result<usize, RunError> {
    let known = |name: &String| abi.inputs.iter().any(|t| t.spec.name == *name);
    if let Some(name) = inputs.keys().find(|name| !known(name)) {
        return Err(RunError::Unknown {
            name: name.clone(),
            inputs: signature(&abi.inputs),
        });
    }
    let mut batch = None;
    for tensor in &abi.inputs {
        let spec = &tensor.spec;
        let array = npz::get(inputs, &spec.name)?;
        check_shape(spec, array)?;
        if !has_batch(spec) {
            continue;
        }
        match batch {
            Some(first) if first != array.rows() => {
                return Err(RunError::Batches(first, array.rows()));
            }
            _ => batch = Some(array.rows()),
        }
    }
    match batch {
        Some(0) => Err(RunError::Empty),
        Some(n) => Ok(n),
        None => Ok(1),
    }
}

fn check_shape(spec: &TensorSpec, array: &Array) -> Result<(), RunError> {
    let fits = |(found, wanted): (&usize, &Dim)| match wanted {
        Dim::Batch => u32::try_from(*found).is_ok(),
        Dim::Fixed(n) => *found == *n as usize,
    };
    let same_rank = array.shape.len() == spec.dims.len();
    if array.dtype == spec.dtype && same_rank && array.shape.iter().zip(&spec.dims).all(fits) {
        return Ok(());
    }
    Err(RunError::Shape {
        name: spec.name.clone(),
        found_type: array.dtype,
        found: shape_text(&array.shape),
        wanted_type: spec.dtype,
        wanted: spec_text(spec),
    })
}

fn signature(tensors: &[PlacedTensor]) -> String {
    let one =
        |t: &PlacedTensor| format!("`{}` {} {}", t.spec.name, t.spec.dtype, spec_text(&t.spec));
    tensors.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn abi() -> ModuleAbi {
        let spec = |name: &str, dims| TensorSpec {
            name: name.to_owned(),
            dtype: DType::F32,
            dims,
        };
        let at = |spec, offset| PlacedTensor { spec, offset };
        ModuleAbi {
            abi: 1,
            inputs: vec![at(spec("input", vec![Dim::Batch, Dim::Fixed(2)]), 0)],
            outputs: vec![at(spec("out", vec![Dim::Batch]), 64)],
            max_batch: 2,
            memory_bytes: 65536,
            weights: None,
            bounded: true,
        }
    }

    fn given(name: &str, shape: &[usize]) -> Arrays {
        let values = vec![0.0; shape.iter().product()];
        [(name.to_owned(), Array::from_f32(shape.to_vec(), &values))].into()
    }

    #[test]
    fn the_batch_is_that_of_the_arrays() {
        assert_eq!(check_inputs(&abi(), &given("input", &[5, 2])).unwrap(), 5);
    }

    #[test]
    fn each_mistake_has_its_message() {
        let refuse = |arrays: Arrays| check_inputs(&abi(), &arrays).unwrap_err().to_string();
        assert_eq!(
            refuse(given("x", &[1, 2])),
            "the model has no input `x`; its inputs are `input` f32 [N, 2]"
        );
        assert_eq!(
            refuse(given("input", &[1, 3])),
            "array `input` is f32 [1, 3], the model needs f32 [N, 2]"
        );
        assert_eq!(
            refuse(given("input", &[2])),
            "array `input` is f32 [2], the model needs f32 [N, 2]"
        );
        assert_eq!(refuse(given("input", &[0, 2])), "the inputs hold no sample");
        assert!(matches!(
            check_inputs(&abi(), &Arrays::new()),
            Err(RunError::Npz(NpzError::Missing { .. }))
        ));
    }
}
