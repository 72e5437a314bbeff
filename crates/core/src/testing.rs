//! Documents for the tests of this crate.
#![allow(clippy::unwrap_used)]

use crate::abi::ModuleAbi;
use crate::digest::ArtefactRef;
use crate::manifest::{
    Accuracy, AccuracySource, Golden, NativeCode, VariantManifest, VersionManifest,
};
use crate::names::{ActorName, ModelName, VariantName, VersionName};
use crate::profile::{Conditions, DeviceProfile, Power, SandboxSpeed};
use crate::target::{Arch, Target};
use crate::tensor::DType;
use crate::time::Millis;
use std::collections::{BTreeMap, BTreeSet};

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
        name: variant_name(name),
        accuracy: Accuracy {
            value: accuracy,
            samples: 100,
            source: AccuracySource::Measured,
        },
        abi: ModuleAbi {
            abi: 1,
            inputs: vec![],
            outputs: vec![],
            max_batch: 1,
            memory_bytes: 65536,
            weights: None,
            bounded: true,
        },
        macs: [(DType::F32, macs)].into(),
        params: 1,
        wasm: artefact("wasm"),
        native: [(Target::X8664V2, native)].into(),
        weights: Some(artefact("weights")),
        golden: Golden {
            artefact: artefact("golden"),
            tolerance: 1e-4,
        },
        host_latency: None,
    }
}

pub(crate) fn manifest(version: &str, variants: Vec<VariantManifest>) -> VersionManifest {
    VersionManifest {
        model: model_name(),
        version: version_name(version),
        publisher: ActorName::new("publisher").unwrap(),
        published_at: Millis(0),
        inputs: vec![],
        outputs: vec![],
        labels: vec![],
        evaluation: None,
        variants,
    }
}

/// A Pi 4 that runs the tests' target at 1e9 multiply-accumulates per second.
pub(crate) fn profile() -> DeviceProfile {
    DeviceProfile {
        agent_version: String::new(),
        emulated: true,
        board: "Raspberry Pi 4 Model B Rev 1.4".to_owned(),
        soc: String::new(),
        arch: Arch::X86_64,
        cpu_model: String::new(),
        cpu_features: BTreeSet::new(),
        cores: 4,
        ram_total_bytes: 1 << 30,
        dtypes: BTreeSet::new(),
        zone: None,
        targets: vec![Target::X8664V2],
        runtime_keys: [RUNTIME.to_owned()].into(),
        speed: Some(SandboxSpeed {
            macs_per_s: [(DType::F32, 1e9)].into(),
            bytes_per_s: 1e9,
            overhead_us: 10.0,
        }),
        energy_sources: vec![],
        lockdown: BTreeMap::new(),
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
