//! Measures a variant in the sandbox: what it answers, and how long it takes here.

use super::npz::Array;
use sandpiper_core::abi::ModuleAbi;
use sandpiper_core::manifest::{Accuracy, AccuracySource, HostLatency};
use sandpiper_core::tensor::{DType, TensorSpec};
use sandpiper_sandbox::{InferError, Instance};
use std::time::Instant;

/// Runs before latency is measured: caches and the clock of the CPU settle.
const WARM_UP_RUNS: usize = 10;
/// Runs that latency is taken from: enough for a 95th percentile.
const LATENCY_RUNS: usize = 200;
/// Samples of a batch of the golden self-test.
const GOLDEN_BATCH: u32 = 1;

/// Why a variant cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// The data has another shape than the model.
    #[error(
        "{what} has shape {found} and type {found_type}, the model's `{tensor}` needs {wanted} {wanted_type}"
    )]
    Input {
        /// Name of the array.
        what: String,
        /// Its shape.
        found: String,
        /// Its type.
        found_type: DType,
        /// Name of the model's input.
        tensor: String,
        /// The shape it needs.
        wanted: String,
        /// The type it needs.
        wanted_type: DType,
    },
    /// The targets are no list of classes.
    #[error("the targets must be whole numbers, one per sample: {0}")]
    Targets(String),
    /// The data is empty.
    #[error("the evaluation data holds no sample")]
    Empty,
    /// The model has several inputs; accuracy is measured on one.
    #[error(
        "accuracy is measured on models with one input, this one has {0}; state it with --claim-accuracy VARIANT=SHARE"
    )]
    SeveralInputs(usize),
    /// The first output is not a score per class.
    #[error(
        "accuracy needs a first output of scores per class, `{0}` is none; state it with --claim-accuracy VARIANT=SHARE"
    )]
    NotClasses(String),
    /// The run failed.
    #[error("sample {sample} gave no result")]
    Infer {
        /// Index of the first sample of the batch.
        sample: usize,
        /// What happened.
        source: InferError,
    },
    /// An output is NaN or infinite.
    #[error(
        "output `{tensor}` of sample {sample} holds NaN or infinity; import with --allow-nonfinite if that is meant"
    )]
    NonFinite {
        /// Index of the sample.
        sample: usize,
        /// Name of the output.
        tensor: String,
    },
}

/// Labelled samples.
#[derive(Debug, Clone)]
pub struct Samples {
    /// Name of the array, for messages.
    pub name: String,
    /// The inputs, one row per sample.
    pub inputs: Array,
    /// The right class of each sample.
    pub targets: Vec<i64>,
}

impl Samples {
    /// Puts inputs and targets together.
    ///
    /// # Errors
    /// [`EvaluateError::Targets`] and [`EvaluateError::Empty`].
    pub fn new(name: &str, inputs: Array, targets: &Array) -> Result<Self, EvaluateError> {
        let bad = |why: String| Err(EvaluateError::Targets(why));
        let Some(classes) = targets.integers() else {
            return bad(format!("they are of type {}", targets.dtype));
        };
        if classes.len() != inputs.rows() || targets.shape.len() > 2 {
            return bad(format!(
                "{} of them for {} samples",
                classes.len(),
                inputs.rows()
            ));
        }
        if classes.is_empty() {
            return Err(EvaluateError::Empty);
        }
        Ok(Self {
            name: name.to_owned(),
            inputs,
            targets: classes,
        })
    }
}

/// What was measured of a variant.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Top-1 accuracy.
    pub accuracy: Accuracy,
    /// Values of all outputs that are NaN or infinite.
    pub nonfinite: u64,
}

/// Top-1 accuracy over all samples, in batches as large as the module takes.
///
/// # Errors
/// [`EvaluateError`]; [`EvaluateError::NonFinite`] only without `allow_nonfinite`.
pub fn accuracy(
    instance: &mut Instance,
    samples: &Samples,
    allow_nonfinite: bool,
) -> Result<Measured, EvaluateError> {
    let abi = instance.abi().clone();
    check_fit(&abi, samples)?;
    let output = &abi.outputs[0].spec;
    let classes = output.elements(1);
    if output.dtype != DType::F32 && output.dtype != DType::I8 && output.dtype != DType::U8
        || classes < 2
    {
        return Err(EvaluateError::NotClasses(output.name.clone()));
    }
    let (mut right, mut nonfinite) = (0u32, 0u64);
    let total = samples.targets.len();
    let mut outputs = vec![Vec::new(); abi.outputs.len()];
    let mut start = 0;
    while start < total {
        let batch = (total - start).min(abi.max_batch as usize);
        run(instance, samples, start, batch, &mut outputs)?;
        let bad = first_nonfinite(&abi, &outputs, batch);
        if let Some((row, tensor, count)) = bad {
            if !allow_nonfinite {
                return Err(EvaluateError::NonFinite {
                    sample: start + row,
                    tensor,
                });
            }
            nonfinite += count;
        }
        let scores = scores(output.dtype, &outputs[0]);
        for (row, target) in scores.chunks_exact(classes).zip(&samples.targets[start..]) {
            right += u32::from(argmax(row) == usize::try_from(*target).ok());
        }
        start += batch;
    }
    let samples = u32::try_from(total).unwrap_or(u32::MAX);
    let value = f64::from(right) / f64::from(samples);
    Ok(Measured {
        accuracy: Accuracy {
            value,
            samples,
            source: AccuracySource::Measured,
        },
        nonfinite,
    })
}

/// Inputs and outputs of the first sample, in the order of the ABI: the golden self-test.
///
/// Without samples the inputs are zero: that still proves that the code runs and answers alike.
///
/// # Errors
/// [`EvaluateError`]; [`EvaluateError::NonFinite`] only without `allow_nonfinite`.
pub fn golden(
    instance: &mut Instance,
    samples: Option<&Samples>,
    allow_nonfinite: bool,
) -> Result<Vec<u8>, EvaluateError> {
    let abi = instance.abi().clone();
    let inputs: Vec<Vec<u8>> = match samples {
        Some(samples) if abi.inputs.len() == 1 => {
            check_fit(&abi, samples)?;
            vec![samples.inputs.slice(0, 1).to_vec()]
        }
        _ => abi
            .inputs
            .iter()
            .map(|t| vec![0; t.spec.size_bytes(GOLDEN_BATCH)])
            .collect(),
    };
    let mut outputs = vec![Vec::new(); abi.outputs.len()];
    let views: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
    let infer = instance.infer(GOLDEN_BATCH, &views, &mut outputs);
    infer.map_err(|source| EvaluateError::Infer { sample: 0, source })?;
    if let Some((sample, tensor, _)) = first_nonfinite(&abi, &outputs, 1)
        && !allow_nonfinite
    {
        return Err(EvaluateError::NonFinite { sample, tensor });
    }
    Ok(inputs.into_iter().chain(outputs).flatten().collect())
}

/// Latency of single inferences on this machine. For comparison only: no device is this machine.
///
/// # Errors
/// [`EvaluateError::Infer`].
pub fn host_latency(instance: &mut Instance, golden: &[u8]) -> Result<HostLatency, EvaluateError> {
    let abi = instance.abi().clone();
    let mut rest = golden;
    let mut views = Vec::new();
    for tensor in &abi.inputs {
        let (head, tail) = rest.split_at(tensor.spec.size_bytes(GOLDEN_BATCH));
        views.push(head);
        rest = tail;
    }
    let mut outputs = vec![Vec::new(); abi.outputs.len()];
    let mut taken_us = Vec::with_capacity(LATENCY_RUNS);
    for run in 0..WARM_UP_RUNS + LATENCY_RUNS {
        let begin = Instant::now();
        let infer = instance.infer(GOLDEN_BATCH, &views, &mut outputs);
        infer.map_err(|source| EvaluateError::Infer { sample: 0, source })?;
        if run >= WARM_UP_RUNS {
            taken_us.push(u32::try_from(begin.elapsed().as_micros()).unwrap_or(u32::MAX));
        }
    }
    taken_us.sort_unstable();
    let at = |share: usize| taken_us[(LATENCY_RUNS * share / 100).min(LATENCY_RUNS - 1)];
    Ok(HostLatency {
        p50_us: at(50),
        p95_us: at(95),
        cpu: cpu_name(),
    })
}

fn check_fit(abi: &ModuleAbi, samples: &Samples) -> Result<(), EvaluateError> {
    let [input] = abi.inputs.as_slice() else {
        return Err(EvaluateError::SeveralInputs(abi.inputs.len()));
    };
    let spec = &input.spec;
    let array = &samples.inputs;
    if array.dtype == spec.dtype
        && array.row_bytes() == spec.size_bytes(1)
        && rows_match(spec, array)
    {
        return Ok(());
    }
    Err(EvaluateError::Input {
        what: format!("array `{}`", samples.name),
        found: shape_text(&array.shape),
        found_type: array.dtype,
        tensor: spec.name.clone(),
        wanted: spec_text(spec),
        wanted_type: spec.dtype,
    })
}

/// The dimensions behind the first must be the model's: equal sizes alone could hide a transpose.
fn rows_match(spec: &TensorSpec, array: &Array) -> bool {
    let wanted: Vec<usize> = spec.shape(1).iter().skip(1).map(|&n| n as usize).collect();
    array.shape.get(1..).is_some_and(|found| found == wanted)
}

/// `[2079, 6, 128]`.
pub(super) fn shape_text(shape: &[usize]) -> String {
    let dims: Vec<_> = shape.iter().map(ToString::to_string).collect();
    format!("[{}]", dims.join(", "))
}

/// `[N, 6, 128]`.
pub(super) fn spec_text(spec: &TensorSpec) -> String {
    use sandpiper_core::tensor::Dim;
    let dim = |d: &Dim| match d {
        Dim::Batch => "N".to_owned(),
        Dim::Fixed(n) => n.to_string(),
    };
    format!(
        "[{}]",
        spec.dims.iter().map(dim).collect::<Vec<_>>().join(", ")
    )
}

fn run(
    instance: &mut Instance,
    samples: &Samples,
    start: usize,
    batch: usize,
    outputs: &mut [Vec<u8>],
) -> Result<(), EvaluateError> {
    let bytes = samples.inputs.slice(start, batch);
    let infer = instance.infer(batch as u32, &[bytes], outputs);
    infer.map_err(|source| EvaluateError::Infer {
        sample: start,
        source,
    })
}

/// Row and tensor of the first value that is not finite, and how many there are.
fn first_nonfinite(
    abi: &ModuleAbi,
    outputs: &[Vec<u8>],
    batch: usize,
) -> Option<(usize, String, u64)> {
    let mut found = None;
    let mut count = 0;
    for (tensor, bytes) in abi.outputs.iter().zip(outputs) {
        if tensor.spec.dtype != DType::F32 {
            continue;
        }
        let values = scores(DType::F32, bytes);
        let per_row = values.len().div_ceil(batch).max(1);
        for (index, _) in values.iter().enumerate().filter(|(_, v)| !v.is_finite()) {
            count += 1;
            found.get_or_insert_with(|| (index / per_row, tensor.spec.name.clone()));
        }
    }
    found.map(|(row, name)| (row, name, count))
}

fn scores(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    match dtype {
        DType::I8 => bytes.iter().map(|&b| f32::from(b as i8)).collect(),
        DType::U8 => bytes.iter().map(|&b| f32::from(b)).collect(),
        _ => bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|chunk| f32::from_le_bytes(*chunk))
            .collect(),
    }
}

/// Index of the largest score, the first of equals; `None` when a score is NaN, which is never a
/// right answer.
fn argmax(row: &[f32]) -> Option<usize> {
    let mut best = 0;
    for (index, score) in row.iter().enumerate() {
        if score.is_nan() {
            return None;
        }
        if *score > row[best] {
            best = index;
        }
    }
    Some(best)
}

fn cpu_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let name = named
        .and_then(|rest| rest.split_once(':'))
        .map(|(_, name)| name.trim());
    name.unwrap_or(std::env::consts::ARCH).to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_score_wins_and_nan_never_does() {
        assert_eq!(argmax(&[0.1, 0.7, 0.2]), Some(1));
        assert_eq!(argmax(&[0.5, 0.5]), Some(0));
        assert_eq!(argmax(&[0.5, f32::NAN]), None);
    }

    #[test]
    fn targets_must_be_one_class_per_sample() {
        let inputs = Array::from_f32(vec![2, 3], &[0.0; 6]);
        let floats = Array::from_f32(vec![2], &[0.0; 2]);
        let error = Samples::new("x", inputs.clone(), &floats)
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "the targets must be whole numbers, one per sample: they are of type f32"
        );
        let one = Array {
            dtype: DType::U8,
            shape: vec![1],
            bytes: vec![0],
        };
        let error = Samples::new("x", inputs, &one).unwrap_err().to_string();
        assert_eq!(
            error,
            "the targets must be whole numbers, one per sample: 1 of them for 2 samples"
        );
        let none = Array {
            dtype: DType::U8,
            shape: vec![0],
            bytes: vec![],
        };
        let empty = Array::from_f32(vec![0, 3], &[]);
        assert!(matches!(
            Samples::new("x", empty, &none),
            Err(EvaluateError::Empty)
        ));
    }
}
