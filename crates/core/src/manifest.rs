//! What a version is: variants, their artefacts and what was measured of them at import.

use crate::abi::ModuleAbi;
use crate::digest::{ArtefactRef, Digest};
use crate::names::{ActorName, ModelName, VariantName, VersionName};
use crate::target::Target;
use crate::tensor::{DType, TensorSpec};
use crate::time::Millis;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Where an accuracy comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccuracySource {
    /// Measured in the sandbox on labelled evaluation data at import.
    Measured,
    /// Stated by the publisher, not checked.
    Claimed,
}

/// Share of right answers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Share in 0..=1.
    pub value: f64,
    /// Labelled samples it was measured on; 0 when claimed.
    pub samples: u32,
    /// Where it comes from.
    pub source: AccuracySource,
}

impl Accuracy {
    /// Binomial standard error, `sqrt(p (1 - p) / n)`; 0 without samples.
    pub fn standard_error(&self) -> f64 {
        if self.samples == 0 {
            return 0.0;
        }
        (self.value * (1.0 - self.value) / f64::from(self.samples))
            .max(0.0)
            .sqrt()
    }
}

/// Latency measured by the controller's host at import, for comparison only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostLatency {
    /// Median of one inference, batch 1, in microseconds.
    pub p50_us: u32,
    /// 95th percentile.
    pub p95_us: u32,
    /// CPU it ran on.
    pub cpu: String,
}

/// Native code for one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NativeCode {
    /// The code.
    pub artefact: ArtefactRef,
    /// Version, epoch and configuration of the runtime that can load it.
    pub runtime_key: String,
}

/// The self-test: inputs and the outputs they must give. An artefact of its own, in the
/// byte order of the ABI: every input for batch 1 in order, then every output.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Golden {
    /// Inputs followed by outputs.
    pub artefact: ArtefactRef,
    /// Largest absolute difference accepted for float outputs, relative to
    /// `max(1, |expected|)`; integer outputs must match within one step.
    pub tolerance: f32,
}

/// One way to run a version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VariantManifest {
    /// Name, unique in the version.
    pub name: VariantName,
    /// Share of right answers.
    pub accuracy: Accuracy,
    /// Places of the tensors, memory, weights.
    pub abi: ModuleAbi,
    /// Multiply-accumulates of one inference by arithmetic type.
    pub macs: BTreeMap<DType, u64>,
    /// Number of parameters.
    pub params: u64,
    /// Portable code.
    pub wasm: ArtefactRef,
    /// Native code by target.
    pub native: BTreeMap<Target, NativeCode>,
    /// Packed weights, if the module has any; `abi.weights` has the same digest.
    pub weights: Option<ArtefactRef>,
    /// The self-test.
    pub golden: Golden,
    /// Latency on the importing host, if it was measured.
    pub host_latency: Option<HostLatency>,
}

impl VariantManifest {
    /// Linear memory that the guest needs, exactly.
    pub fn memory_bytes(&self) -> u64 {
        self.abi.memory_bytes
    }

    /// Every artefact a device with this target needs; `None` without code for it.
    pub fn artefacts_for(&self, target: Target) -> Option<Vec<ArtefactRef>> {
        let native = self.native.get(&target)?;
        let mut all = vec![native.artefact, self.golden.artefact];
        all.extend(self.weights);
        Some(all)
    }

    /// Bytes that a device with this target has to hold.
    pub fn download_bytes(&self, target: Target) -> Option<u64> {
        Some(
            self.artefacts_for(target)?
                .iter()
                .map(|a| a.size_bytes)
                .sum(),
        )
    }

    /// The first of these targets that there is code for that one of these runtimes can load.
    pub fn best_target(
        &self,
        targets: &[Target],
        runtime_keys: &BTreeSet<String>,
    ) -> Option<Target> {
        let loads = |t: &&Target| {
            let code = self.native.get(t);
            code.is_some_and(|c| runtime_keys.contains(&c.runtime_key))
        };
        targets.iter().find(loads).copied()
    }

    /// The arithmetic type that does most of the work.
    pub fn main_dtype(&self) -> DType {
        self.macs
            .iter()
            .max_by_key(|(_, n)| **n)
            .map_or(DType::F32, |(t, _)| *t)
    }
}

/// Labelled data that the accuracies were measured on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Digest of the data file.
    pub data: Digest,
    /// Number of samples used.
    pub samples: u32,
}

/// A release of a model. Signed as a whole; see [`crate::signed`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionManifest {
    /// The model.
    pub model: ModelName,
    /// The version.
    pub version: VersionName,
    /// Who published it.
    pub publisher: ActorName,
    /// When it was published, by the publisher's clock. For people only.
    pub published_at: Millis,
    /// Inputs that all variants share.
    pub inputs: Vec<TensorSpec>,
    /// Outputs that all variants share.
    pub outputs: Vec<TensorSpec>,
    /// Names of the classes of the first output, if known.
    pub labels: Vec<String>,
    /// The data the accuracies were measured on, if any.
    pub evaluation: Option<Evaluation>,
    /// The variants, in the order of import; names are unique.
    pub variants: Vec<VariantManifest>,
}

impl VersionManifest {
    /// The variant of this name.
    pub fn variant(&self, name: &VariantName) -> Option<&VariantManifest> {
        self.variants.iter().find(|v| v.name == *name)
    }

    /// Number of classes that the first output gives scores for; `None` when nobody said that it
    /// does, by labels or by evaluation data with right classes.
    pub fn classes(&self) -> Option<usize> {
        let measured = |v: &VariantManifest| v.accuracy.source == AccuracySource::Measured;
        let told = !self.labels.is_empty() || self.variants.iter().any(measured);
        let scores = self.outputs.first().map(|o| o.elements(1));
        scores.filter(|n| told && *n >= 2)
    }
}
