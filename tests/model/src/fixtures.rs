//! The smallest documents that the fleet takes: versions of one variant, devices that are all alike.

use sandpiper_core::abi::ModuleAbi;
use sandpiper_core::assignment::Generation;
use sandpiper_core::digest::{ArtefactRef, Digest};
use sandpiper_core::energy::{EnergyScope, Provenance};
use sandpiper_core::fleet::Published;
use sandpiper_core::manifest::{
    Accuracy, AccuracySource, Golden, NativeCode, VariantManifest, VersionManifest,
};
use sandpiper_core::names::{ActorName, DeviceName, ModelName, VariantName, VersionName};
use sandpiper_core::outputs::OutputStats;
use sandpiper_core::policy::{Deployment, Policy, Selector};
use sandpiper_core::profile::{Conditions, DeviceProfile, Power, PowerState};
use sandpiper_core::rollout::RolloutSpec;
use sandpiper_core::signed::Purpose;
use sandpiper_core::sketch::LatencySketch;
use sandpiper_core::target::{Arch, Target};
use sandpiper_core::telemetry::{
    FailureKind, Hello, ModelFailure, ModelPhase, ModelStatus, Observation, Serving,
    TelemetryWindow,
};
use sandpiper_core::time::Millis;
use sandpiper_sim::sign::PUBLISHER;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// What all code is made for.
pub const RUNTIME: &str = "runtime";
/// What all devices run code of.
pub const TARGET: Target = Target::X8664V2;

/// A name that is known to be one.
///
/// # Panics
/// When it is none.
pub fn name<T>(text: impl Into<String>) -> T
where
    T: TryFrom<String>,
    T::Error: std::fmt::Debug,
{
    T::try_from(text.into()).expect("the names of these tests are well formed")
}

/// The device of this number.
pub fn device(number: usize) -> DeviceName {
    name(format!("pi-{number}"))
}

/// The version of this number.
pub fn version(number: u32) -> VersionName {
    name(format!("v{number}"))
}

/// The one model.
pub fn model() -> ModelName {
    name("activity")
}

/// Its one variant.
pub fn variant() -> VariantName {
    name("only")
}

fn artefact(number: u32, kind: &str) -> ArtefactRef {
    ArtefactRef::of(format!("v{number}/{kind}").as_bytes())
}

/// Digest of the native code of a version.
pub fn code(number: u32) -> Digest {
    artefact(number, "native").digest
}

/// A version as published.
///
/// # Panics
/// Never: manifests have text keys.
pub fn published(number: u32) -> Published {
    let native = NativeCode {
        artefact: artefact(number, "native"),
        runtime_key: RUNTIME.to_owned(),
    };
    let variant = VariantManifest {
        name: variant(),
        accuracy: Accuracy {
            value: 0.9,
            samples: 100,
            source: AccuracySource::Measured,
        },
        abi: ModuleAbi {
            abi: 1,
            inputs: Vec::new(),
            outputs: Vec::new(),
            max_batch: 1,
            memory_bytes: 65_536,
            weights: None,
            bounded: true,
        },
        macs: BTreeMap::new(),
        params: 1,
        wasm: artefact(number, "wasm"),
        native: [(TARGET, native)].into(),
        weights: None,
        golden: Golden {
            artefact: artefact(number, "golden"),
            tolerance: 1e-4,
        },
        host_latency: None,
    };
    let manifest = VersionManifest {
        model: model(),
        version: version(number),
        publisher: name::<ActorName>("publisher"),
        published_at: Millis(u64::from(number)),
        inputs: Vec::new(),
        outputs: Vec::new(),
        labels: Vec::new(),
        evaluation: None,
        variants: vec![variant],
    };
    let payload = serde_json::to_vec(&manifest).expect("manifests have text keys");
    Published {
        signed: PUBLISHER.sign(Purpose::Version, payload),
        manifest,
    }
}

/// The one deployment: every device.
pub fn deployment() -> Deployment {
    Deployment {
        name: name("activity"),
        model: model(),
        selector: Selector::default(),
        policy: Policy::default(),
    }
}

/// A request of these fields, besides deployment and version; what is not given is as for an
/// operator who does not give it.
///
/// # Panics
/// When a field is not one of a request.
pub fn spec(number: u32, mut fields: serde_json::Value) -> RolloutSpec {
    fields["deployment"] = json!("activity");
    fields["version"] = json!(version(number));
    serde_json::from_value(fields).expect("the fields are those of a request")
}

/// What every device is.
pub fn profile() -> DeviceProfile {
    DeviceProfile {
        agent_version: String::new(),
        emulated: true,
        board: String::new(),
        soc: String::new(),
        arch: Arch::X86_64,
        cpu_model: String::new(),
        cpu_features: BTreeSet::new(),
        cores: 1,
        ram_total_bytes: 1 << 30,
        dtypes: BTreeSet::new(),
        zone: None,
        targets: vec![TARGET],
        runtime_keys: [RUNTIME.to_owned()].into(),
        speed: None,
        energy_sources: Vec::new(),
        lockdown: BTreeMap::new(),
    }
}

/// An observation.
pub fn observation(generation: Generation, models: Vec<ModelStatus>) -> Observation {
    Observation {
        generation,
        conditions: Conditions {
            ram_available_bytes: 1 << 30,
            disk_free_bytes: 1 << 30,
            power: Power::Mains,
            temperature_mc: None,
            throttled: false,
        },
        models,
        refused: None,
        agent: None,
    }
}

/// First words of a device.
pub fn hello(boot_id: u64, observation: Observation) -> Hello {
    Hello {
        boot_id,
        profile: profile(),
        observation,
    }
}

/// What serves, with the code that was published for it or other code.
pub fn serving(number: u32, genuine: bool) -> Serving {
    Serving {
        version: version(number),
        variant: variant(),
        code: match genuine {
            true => code(number),
            false => Digest::of(b"code that nobody published"),
        },
        power_state: PowerState::Mains,
    }
}

/// The state of the model on a device.
pub fn status(wanted: u32, phase: ModelPhase, serving: Option<Serving>) -> ModelStatus {
    let failure = (phase == ModelPhase::Failed).then(|| ModelFailure {
        variant: variant(),
        kind: FailureKind::SelfTest,
        message: "the golden outputs differ".to_owned(),
    });
    ModelStatus {
        deployment: name("activity"),
        model: model(),
        wanted: version(wanted),
        phase,
        serving,
        failure,
        fetched_bytes: 0,
        needed_bytes: 0,
    }
}

/// A window of inferences.
pub fn window(
    number: u32,
    generation: Generation,
    sequence: u64,
    inferences: u64,
) -> TelemetryWindow {
    TelemetryWindow {
        boot: 1,
        sequence,
        generation,
        from: Millis(0),
        to: Millis(0),
        deployment: name("activity"),
        model: model(),
        version: version(number),
        variant: variant(),
        code: code(number),
        power_state: PowerState::Mains,
        inferences,
        errors: 0,
        rejected: 0,
        traps: 0,
        nonfinite: 0,
        outputs: OutputStats::default(),
        latency: LatencySketch::default(),
        energy_uj: 0,
        energy_variance_uj2: 0.0,
        energy_provenance: Provenance::Unknown,
        energy_scope: EnergyScope::Board,
    }
}
