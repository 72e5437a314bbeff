//! Compiles and measures the variants of a version, and assembles what is published.

use super::evaluate::{self, EvaluateError, Samples};
use super::module::{Module, ModuleError};
use super::npz::NpzError;
use sandpiper_compiler::Options;
use sandpiper_core::digest::ArtefactRef;
use sandpiper_core::manifest::{
    Accuracy, AccuracySource, Evaluation, Golden, NativeCode, VariantManifest, VersionManifest,
};
use sandpiper_core::names::{ActorName, ModelName, VariantName, VersionName};
use sandpiper_core::target::Target;
use sandpiper_core::tensor::TensorSpec;
use sandpiper_core::time::Millis;
use sandpiper_sandbox::{Instance, SandboxError};
use std::collections::BTreeMap;
use std::time::Duration;

/// Difference a float output of the self-test may show on another CPU, relative to
/// `max(1, |expected|)`. The code is the same everywhere and rounds alike; this is for brought
/// modules that use fused operations.
const GOLDEN_TOLERANCE: f32 = 1e-3;
/// Longest time of one inference at import: it only tells an endless loop from a slow model.
const DEADLINE: Duration = Duration::from_secs(60);

/// A variant to import.
#[derive(Debug, Clone)]
pub struct VariantSource {
    /// Name.
    pub name: VariantName,
    /// The bytes of an ONNX file, or of a wasm module that keeps the ABI.
    pub file: Vec<u8>,
    /// Weights of a wasm module whose ABI names some.
    pub weights: Option<Vec<u8>>,
    /// Accuracy that the publisher states; used when there is no evaluation data.
    pub claimed_accuracy: Option<f64>,
}

/// What to import.
#[derive(Debug, Clone)]
pub struct ImportRequest {
    /// The model.
    pub model: ModelName,
    /// The version.
    pub version: VersionName,
    /// Who publishes it.
    pub publisher: ActorName,
    /// Now.
    pub published_at: Millis,
    /// The variants; names are unique.
    pub variants: Vec<VariantSource>,
    /// Names of the classes.
    pub labels: Vec<String>,
    /// Evaluation data and the digest of its file.
    pub evaluation: Option<(Samples, Evaluation)>,
    /// Targets to make native code for.
    pub targets: Vec<Target>,
    /// Largest batch.
    pub max_batch: u32,
    /// Accept outputs that are NaN or infinite.
    pub allow_nonfinite: bool,
}

/// What is published.
#[derive(Debug, Clone)]
pub struct Built {
    /// The manifest, not yet signed.
    pub manifest: VersionManifest,
    /// Every artefact it names.
    pub artefacts: BTreeMap<ArtefactRef, Vec<u8>>,
}

/// Why a version cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// No variant.
    #[error("a version needs at least one variant: give --variant NAME=FILE")]
    NoVariant,
    /// The same name twice.
    #[error("variant `{0}` is given twice")]
    Twice(VariantName),
    /// The file is refused.
    #[error("variant `{variant}` cannot be used")]
    Module {
        /// The variant.
        variant: VariantName,
        /// Why.
        source: ModuleError,
    },
    /// The sandbox refuses the module.
    #[error("variant `{variant}` has no native code")]
    Sandbox {
        /// The variant.
        variant: VariantName,
        /// Why.
        source: SandboxError,
    },
    /// It cannot be measured.
    #[error("variant `{variant}` cannot be measured")]
    Evaluate {
        /// The variant.
        variant: VariantName,
        /// Why.
        source: Box<EvaluateError>,
    },
    /// Neither measured nor claimed.
    #[error(
        "the accuracy of variant `{0}` is unknown: give --eval FILE.npz, or --claim-accuracy {0}=SHARE"
    )]
    NoAccuracy(VariantName),
    /// A claim out of range.
    #[error("the accuracy {value} claimed for variant `{variant}` is no share in 0..=1")]
    Claim {
        /// The variant.
        variant: VariantName,
        /// The claim.
        value: f64,
    },
    /// Another signature than the first variant.
    #[error(
        "variant `{variant}` has {kind} {found}, but the first variant has {wanted}: all variants of a version share one signature"
    )]
    Signature {
        /// The variant.
        variant: VariantName,
        /// `inputs` or `outputs`.
        kind: &'static str,
        /// Its tensors.
        found: String,
        /// Those of the first variant.
        wanted: String,
    },
    /// The number of class names and scores differs.
    #[error("{labels} labels are given, output `{output}` has {scores} scores per sample")]
    Labels {
        /// Number of labels.
        labels: usize,
        /// Name of the output.
        output: String,
        /// Scores per sample.
        scores: usize,
    },
    /// The evaluation data cannot be read.
    #[error("the evaluation data cannot be used")]
    Data(#[from] NpzError),
    /// The evaluation data does not fit together.
    #[error("the evaluation data cannot be used")]
    Samples(#[source] Box<EvaluateError>),
}

/// Compiles, measures and assembles. `progress` is told what is done, for people.
///
/// # Errors
/// [`ImportError`] naming the variant at fault; nothing is kept then.
pub fn build(
    request: &ImportRequest,
    progress: &mut dyn FnMut(&str),
) -> Result<Built, ImportError> {
    check_names(&request.variants)?;
    let mut artefacts = BTreeMap::new();
    let mut variants = Vec::new();
    let mut signature: Option<(Vec<TensorSpec>, Vec<TensorSpec>)> = None;
    let of = request.variants.len();
    for (number, source) in (1..).zip(&request.variants) {
        let name = &source.name;
        progress(&format!(
            "compiling and measuring {name} ({number} of {of})"
        ));
        let variant = build_variant(request, source, &mut artefacts)?;
        let specs = |placed: &[sandpiper_core::abi::PlacedTensor]| {
            placed.iter().map(|t| t.spec.clone()).collect()
        };
        let own = (specs(&variant.abi.inputs), specs(&variant.abi.outputs));
        match &signature {
            None => signature = Some(own),
            Some(first) => check_signature(&source.name, first, &own)?,
        }
        variants.push(variant);
    }
    let (inputs, outputs) = signature.ok_or(ImportError::NoVariant)?;
    check_labels(&request.labels, &outputs)?;
    let manifest = VersionManifest {
        model: request.model.clone(),
        version: request.version.clone(),
        publisher: request.publisher.clone(),
        published_at: request.published_at,
        inputs,
        outputs,
        labels: request.labels.clone(),
        evaluation: request
            .evaluation
            .as_ref()
            .map(|(_, evaluation)| evaluation.clone()),
        variants,
    };
    Ok(Built {
        manifest,
        artefacts,
    })
}

fn build_variant(
    request: &ImportRequest,
    source: &VariantSource,
    artefacts: &mut BTreeMap<ArtefactRef, Vec<u8>>,
) -> Result<VariantManifest, ImportError> {
    let name = &source.name;
    let options = Options {
        max_batch: request.max_batch,
        shapes: BTreeMap::new(),
    };
    let weights = source.weights.as_deref();
    let module =
        Module::of(&source.file, weights, &options).map_err(|source| ImportError::Module {
            variant: name.clone(),
            source,
        })?;
    let refused = |source| ImportError::Sandbox {
        variant: name.clone(),
        source,
    };
    let unmeasured = |source| ImportError::Evaluate {
        variant: name.clone(),
        source: Box::new(source),
    };

    let mut instance = module.load(DEADLINE).map_err(refused)?;
    let accuracy = accuracy(request, source, &mut instance)?;
    let samples = request.evaluation.as_ref().map(|(samples, _)| samples);
    let golden =
        evaluate::golden(&mut instance, samples, request.allow_nonfinite).map_err(unmeasured)?;
    let latency = evaluate::host_latency(&mut instance, &golden).map_err(unmeasured)?;

    let mut native = BTreeMap::new();
    for &target in &request.targets {
        let made = module.native(target).map_err(refused)?;
        let artefact = keep(artefacts, made.native);
        native.insert(
            target,
            NativeCode {
                artefact,
                runtime_key: made.runtime_key,
            },
        );
    }
    let weights = module.abi.weights.map(|_| keep(artefacts, module.weights));
    Ok(VariantManifest {
        name: name.clone(),
        accuracy,
        abi: module.abi,
        macs: module.macs,
        params: module.params,
        wasm: keep(artefacts, module.wasm),
        native,
        weights,
        golden: Golden {
            artefact: keep(artefacts, golden),
            tolerance: GOLDEN_TOLERANCE,
        },
        host_latency: Some(latency),
    })
}

fn keep(artefacts: &mut BTreeMap<ArtefactRef, Vec<u8>>, bytes: Vec<u8>) -> ArtefactRef {
    let artefact = ArtefactRef::of(&bytes);
    artefacts.insert(artefact, bytes);
    artefact
}

fn accuracy(
    request: &ImportRequest,
    source: &VariantSource,
    instance: &mut Instance,
) -> Result<Accuracy, ImportError> {
    let variant = || source.name.clone();
    if let Some(value) = source.claimed_accuracy
        && !(0.0..=1.0).contains(&value)
    {
        return Err(ImportError::Claim {
            variant: variant(),
            value,
        });
    }
    if let Some(value) = source.claimed_accuracy {
        return Ok(Accuracy {
            value,
            samples: 0,
            source: AccuracySource::Claimed,
        });
    }
    let Some((samples, _)) = &request.evaluation else {
        return Err(ImportError::NoAccuracy(variant()));
    };
    let measured =
        evaluate::accuracy(instance, samples, request.allow_nonfinite).map_err(|source| {
            ImportError::Evaluate {
                variant: variant(),
                source: Box::new(source),
            }
        })?;
    Ok(measured.accuracy)
}

fn check_names(variants: &[VariantSource]) -> Result<(), ImportError> {
    let mut seen = std::collections::BTreeSet::new();
    if variants.is_empty() {
        return Err(ImportError::NoVariant);
    }
    match variants.iter().find(|v| !seen.insert(&v.name)) {
        Some(twice) => Err(ImportError::Twice(twice.name.clone())),
        None => Ok(()),
    }
}

fn signature_text(specs: &[TensorSpec]) -> String {
    let one = |t: &TensorSpec| format!("`{}` {} {}", t.name, t.dtype, evaluate::spec_text(t));
    specs.iter().map(one).collect::<Vec<_>>().join(", ")
}

type Signature = (Vec<TensorSpec>, Vec<TensorSpec>);

fn check_signature(
    name: &VariantName,
    first: &Signature,
    own: &Signature,
) -> Result<(), ImportError> {
    let pairs = [("inputs", &own.0, &first.0), ("outputs", &own.1, &first.1)];
    match pairs.into_iter().find(|(_, own, first)| own != first) {
        None => Ok(()),
        Some((kind, own, first)) => Err(ImportError::Signature {
            variant: name.clone(),
            kind,
            found: signature_text(own),
            wanted: signature_text(first),
        }),
    }
}

fn check_labels(labels: &[String], outputs: &[TensorSpec]) -> Result<(), ImportError> {
    let Some(first) = outputs.first() else {
        return Ok(());
    };
    let scores = first.elements(1);
    if labels.is_empty() || labels.len() == scores {
        return Ok(());
    }
    Err(ImportError::Labels {
        labels: labels.len(),
        output: first.name.clone(),
        scores,
    })
}
