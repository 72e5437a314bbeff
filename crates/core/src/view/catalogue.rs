//! Models, variants, deployments and join tokens.

use crate::manifest::{Accuracy, HostLatency, VariantManifest, VersionManifest};
use crate::names::{ActorName, ModelName, RolloutName, VariantName, VersionName};
use crate::policy::{Deployment, Labels};
use crate::target::Target;
use crate::tensor::{DType, TensorSpec};
use crate::time::Millis;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A model with its versions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelDoc {
    /// Name.
    pub name: ModelName,
    /// Versions, newest last.
    pub versions: Vec<VersionDoc>,
}

/// A version of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionDoc {
    /// Name.
    pub version: VersionName,
    /// Who published it.
    pub publisher: ActorName,
    /// When, by the publisher's clock.
    pub published_at: Millis,
    /// Inputs.
    pub inputs: Vec<TensorSpec>,
    /// Outputs.
    pub outputs: Vec<TensorSpec>,
    /// Names of its variants in the order of import.
    pub variants: Vec<VariantName>,
    /// Samples that the accuracies were measured on; 0 when none were.
    pub evaluation_samples: u32,
    /// Devices that serve it now.
    pub devices: u64,
}

/// A variant of a version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VariantDoc {
    /// Model.
    pub model: ModelName,
    /// Version.
    pub version: VersionName,
    /// Name.
    pub variant: VariantName,
    /// Share of right answers, with its source.
    pub accuracy: Accuracy,
    /// Standard error of the accuracy.
    pub accuracy_standard_error: f64,
    /// Guest memory in bytes, exactly.
    pub memory_bytes: u64,
    /// Number of parameters.
    pub params: u64,
    /// Multiply-accumulates of one inference by arithmetic type.
    pub macs: BTreeMap<DType, u64>,
    /// Bytes a device has to hold, by target.
    pub download_bytes: BTreeMap<Target, u64>,
    /// Latency on the importing host.
    pub host_latency: Option<HostLatency>,
    /// What the fleet does with it.
    pub usage: VariantUse,
}

/// What the fleet does with a variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VariantUse {
    /// Devices that serve it now.
    pub devices: u64,
    /// Inferences of all devices.
    pub inferences: u64,
    /// Failed requests of all devices.
    pub errors: u64,
    /// Median over all devices' newest windows, in microseconds.
    pub latency_us_p50: Option<u32>,
    /// 95th percentile over all devices' newest windows.
    pub latency_us_p95: Option<u32>,
}

/// A deployment, and what it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeploymentDoc {
    /// As it was applied.
    pub deployment: Deployment,
    /// The version promoted last.
    pub version: Option<VersionName>,
    /// The rollout that is not final yet.
    pub rollout: Option<RolloutName>,
    /// Devices that the selector matches.
    pub devices_selected: u64,
    /// Of these, devices that serve `version`.
    pub devices_serving: u64,
}

/// A one-time token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinTokenDoc {
    /// Public part, by which it is revoked.
    pub id: String,
    /// What it was made for.
    pub description: String,
    /// Labels that the device gets.
    pub labels: Labels,
    /// Who made it.
    pub created_by: String,
    /// When it was made.
    pub created_at: Millis,
    /// When it ends.
    pub expires_at: Millis,
    /// The device that used it.
    pub used_by: Option<String>,
}

impl VersionDoc {
    /// The document of a version that so many devices serve.
    pub fn of(manifest: &VersionManifest, devices: u64) -> Self {
        Self {
            version: manifest.version.clone(),
            publisher: manifest.publisher.clone(),
            published_at: manifest.published_at,
            inputs: manifest.inputs.clone(),
            outputs: manifest.outputs.clone(),
            variants: manifest.variants.iter().map(|v| v.name.clone()).collect(),
            evaluation_samples: manifest.evaluation.as_ref().map_or(0, |e| e.samples),
            devices,
        }
    }
}

impl VariantDoc {
    /// The document of a variant.
    pub fn of(manifest: &VersionManifest, variant: &VariantManifest, usage: VariantUse) -> Self {
        let targets = variant.native.keys();
        let download_bytes = targets
            .filter_map(|t| Some((*t, variant.download_bytes(*t)?)))
            .collect();
        Self {
            model: manifest.model.clone(),
            version: manifest.version.clone(),
            variant: variant.name.clone(),
            accuracy: variant.accuracy,
            accuracy_standard_error: variant.accuracy.standard_error(),
            memory_bytes: variant.memory_bytes(),
            params: variant.params,
            macs: variant.macs.clone(),
            download_bytes,
            host_latency: variant.host_latency.clone(),
            usage,
        }
    }
}
