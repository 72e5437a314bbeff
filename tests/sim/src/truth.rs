//! What is true of versions and variants, whatever anybody reports: speed, energy, mistakes.

use sandpiper_core::abi::ModuleAbi;
use sandpiper_core::digest::{ArtefactRef, Digest};
use sandpiper_core::manifest::{
    Accuracy, AccuracySource, Golden, NativeCode, VariantManifest, VersionManifest,
};
use sandpiper_core::names::{ActorName, ModelName, VariantName, VersionName};
use sandpiper_core::target::Target;
use sandpiper_core::tensor::DType;
use sandpiper_core::time::Millis;
use serde::Serialize;
use std::collections::BTreeMap;

/// The only runtime of this world.
pub const RUNTIME: &str = "runtime-1";

/// Targets that versions have code for.
pub const TARGETS: [Target; 3] = [Target::CortexA53, Target::CortexA76, Target::X8664V3];

/// A variant: name, accuracy, multiply-accumulates, bytes of weights, energy of an inference in
/// microjoules on a board of medium speed.
const VARIANTS: [(&str, f64, u64, u64, f64); 3] = [
    ("large", 0.95, 40_000_000, 6_000_000, 9_000.0),
    ("small", 0.92, 8_000_000, 1_500_000, 2_000.0),
    ("tiny", 0.86, 1_500_000, 300_000, 500.0),
];

/// How a version really behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Quality {
    /// As it should.
    Good,
    /// Correct, and slower by so many percent.
    Slow(u32),
    /// Correct, and takes more energy by so many percent.
    Hungry(u32),
    /// Gives other outputs than its golden ones.
    FailsSelfTest,
    /// Cannot be loaded on one target.
    FailsToLoadOn(Target),
    /// Its runner dies every so many minutes.
    Dies(u32),
}

impl Quality {
    /// Whether no device can ever serve it.
    pub fn is_hopeless(self) -> bool {
        self == Self::FailsSelfTest
    }
}

/// Everything that is true of the model's versions.
#[derive(Debug, Clone, Default)]
pub struct Truth(BTreeMap<VersionName, Quality>);

/// What one inference costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// Median latency in microseconds.
    pub latency_us: f64,
    /// Energy in microjoules.
    pub energy_uj: f64,
}

impl Truth {
    /// Adds a version.
    pub fn add(&mut self, version: VersionName, quality: Quality) {
        self.0.insert(version, quality);
    }

    /// How a version behaves.
    pub fn quality(&self, version: &VersionName) -> Quality {
        self.0.get(version).copied().unwrap_or(Quality::Good)
    }

    /// Latency and energy as multiples of those of a good version.
    pub fn excess(&self, version: &VersionName) -> (f64, f64) {
        let more = |percent: u32| 1.0 + f64::from(percent) / 100.0;
        match self.quality(version) {
            Quality::Slow(percent) => (more(percent), 1.0),
            Quality::Hungry(percent) => (1.0, more(percent)),
            Quality::Good
            | Quality::FailsSelfTest
            | Quality::FailsToLoadOn(_)
            | Quality::Dies(_) => (1.0, 1.0),
        }
    }

    /// What an inference costs on a board that makes so many multiply-accumulates a second.
    pub fn cost(&self, version: &VersionName, variant: &VariantName, macs_per_s: f64) -> Cost {
        let of = VARIANTS.iter().find(|v| v.0 == variant.as_str());
        let (_, _, macs, _, energy_uj) = of.unwrap_or(&VARIANTS[0]);
        let (mut latency_us, mut energy_uj) = (*macs as f64 / macs_per_s * 1e6 + 50.0, *energy_uj);
        let (slower, hungrier) = self.excess(version);
        latency_us *= slower;
        energy_uj *= hungrier;
        Cost {
            latency_us,
            energy_uj,
        }
    }
}

/// A name that is known to be one.
pub(crate) fn name<T>(text: impl Into<String>) -> T
where
    T: TryFrom<String>,
    T::Error: std::fmt::Debug,
{
    T::try_from(text.into()).expect("the names of this world are well formed")
}

/// The one model.
pub fn model() -> ModelName {
    name("activity")
}

/// The manifest of a version.
pub fn manifest(version: &VersionName, at: Millis) -> VersionManifest {
    VersionManifest {
        model: model(),
        version: version.clone(),
        publisher: name::<ActorName>("publisher"),
        published_at: at,
        inputs: Vec::new(),
        outputs: Vec::new(),
        labels: Vec::new(),
        evaluation: None,
        variants: VARIANTS.iter().map(|v| variant(version, v)).collect(),
    }
}

fn artefact(name: &str, size_bytes: u64) -> ArtefactRef {
    ArtefactRef {
        digest: Digest::of(name.as_bytes()),
        size_bytes,
    }
}

/// A variant: name, accuracy, multiply-accumulates, bytes of weights, energy in microjoules.
pub(crate) fn variant(
    version: &VersionName,
    (name_of, accuracy, macs, bytes, _): &(&str, f64, u64, u64, f64),
) -> VariantManifest {
    let of = |kind: &str, size| artefact(&format!("{version}/{name_of}/{kind}"), size);
    let native = TARGETS.map(|target| {
        let code = NativeCode {
            artefact: of(target.name(), 200_000),
            runtime_key: RUNTIME.to_owned(),
        };
        (target, code)
    });
    VariantManifest {
        name: name(*name_of),
        accuracy: Accuracy {
            value: *accuracy,
            samples: 1000,
            source: AccuracySource::Measured,
        },
        abi: ModuleAbi {
            abi: 1,
            inputs: Vec::new(),
            outputs: Vec::new(),
            max_batch: 1,
            memory_bytes: bytes * 2,
            weights: None,
            bounded: true,
        },
        macs: [(DType::F32, *macs)].into(),
        params: bytes / 4,
        wasm: of("wasm", 100_000),
        native: native.into(),
        weights: Some(of("weights", *bytes)),
        golden: Golden {
            artefact: of("golden", 4_000),
            tolerance: 1e-4,
        },
        host_latency: None,
    }
}
