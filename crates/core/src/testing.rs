//! Documents for the tests of this crate.
#![allow(clippy::unwrap_used)]

use crate::digest::ArtefactRef;
use crate::fixtures;
use crate::manifest::{
    Accuracy, AccuracySource, Golden, NativeCode, VariantManifest, VersionManifest,
};
use crate::names::{ModelName, VariantName, VersionName};
use crate::profile::{Conditions, DeviceProfile, Power, SandboxSpeed};
use crate::target::Target;
use crate::tensor::DType;

/// The only runtime that the tests' code is made for.
pub(crate) const RUNTIME: &str = "test-runtime";

pub(crate) fn model_name() -> ModelName {
    ModelName::new("activity").unwrap()
}

pub(crate) fn variant_name(name: &str) -> VariantName {
    VariantName::new(name).unwrap()
}

pub(crate) fn version_name(name: &str) -> VersionName {
    VersionName::new(name).unwrap()
}

/// A variant whose artefacts are told apart by version and name.
pub(crate) fn variant(version: &str, name: &str, accuracy: f64, macs: u64) -> VariantManifest {
    let artefact = |kind: &str| ArtefactRef::of(format!("{version}/{name}/{kind}").as_bytes());
    let native = NativeCode {
        artefact: artefact("native"),
        runtime_key: RUNTIME.to_owned(),
    };
    VariantManifest {
        accuracy: Accuracy {
            value: accuracy,
            samples: 100,
            source: AccuracySource::Measured,
        },
        macs: [(DType::F32, macs)].into(),
        wasm: artefact("wasm"),
        native: [(Target::X8664V2, native)].into(),
        weights: Some(artefact("weights")),
        golden: Golden {
            artefact: artefact("golden"),
            tolerance: 1e-4,
        },
        ..fixtures::variant(name)
    }
}

pub(crate) fn manifest(version: &str, variants: Vec<VariantManifest>) -> VersionManifest {
    VersionManifest {
        variants,
        ..fixtures::manifest(version)
    }
}

/// A Pi 4 that runs the tests' target at 1e9 multiply-accumulates per second.
pub(crate) fn profile() -> DeviceProfile {
    DeviceProfile {
        cores: 4,
        runtime_keys: [RUNTIME.to_owned()].into(),
        speed: Some(SandboxSpeed {
            macs_per_s: [(DType::F32, 1e9)].into(),
            bytes_per_s: 1e9,
            overhead_us: 10.0,
        }),
        ..fixtures::profile("Raspberry Pi 4 Model B Rev 1.4")
    }
}

pub(crate) fn conditions() -> Conditions {
    Conditions {
        ram_available_bytes: 1 << 30,
        disk_free_bytes: 1 << 30,
        power: Power::Mains,
        temperature_mc: None,
        throttled: false,
    }
}
