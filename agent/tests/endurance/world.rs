//! Versions of a model, and a launcher that looks at the bytes that it is given and then acts as
//! the version does. Everything else is the agent's own.

use crate::controller::Controller;
use sandpiper_agent::guest::{Answer, Boxed, Guest, GuestError, LaunchSpec, Launcher};
use sandpiper_core::abi::{ABI_VERSION, ModuleAbi, PlacedTensor, WeightsRegion};
use sandpiper_core::assignment::{AssignedModel, Assignment, Generation, Ladder};
use sandpiper_core::digest::{ArtefactRef, Digest};
use sandpiper_core::manifest::{
    Accuracy, AccuracySource, Golden, NativeCode, VariantManifest, VersionManifest,
};
use sandpiper_core::names::{
    ActorName, DeploymentName, DeviceName, ModelName, VariantName, VersionName,
};
use sandpiper_core::profile::PowerState;
use sandpiper_core::reconcile::DeviceEvent;
use sandpiper_core::target::Arch;
use sandpiper_core::tensor::{DType, Dim, TensorSpec};
use sandpiper_core::time::Millis;
use sandpiper_core::update::{AgentOrder, AgentRelease};
use sandpiper_sandbox::{host_target, runtime_key};
use sandpiper_transport::fsio::{self, Disk};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

pub(crate) const MODEL: &str = "activity";

/// What a version does once it is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conduct {
    /// Adds one.
    Good,
    /// Adds nine, which its golden output does not say.
    Wrong,
    /// Passes its self-test, and dies.
    Dies,
}

/// Everything that was published.
pub(crate) struct World {
    pub(crate) controller: Arc<Controller>,
    versions: BTreeMap<String, (VersionManifest, Conduct)>,
    /// By digest of the native code.
    conduct: Arc<BTreeMap<Digest, Conduct>>,
    /// Another agent.
    release: AgentRelease,
}

/// A program as far as anybody looks into it.
fn program() -> Vec<u8> {
    let machine = match std::env::consts::ARCH {
        "x86_64" => 62,
        _ => 183,
    };
    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend([2, 0, machine, 0]);
    bytes.extend(blob(77, 130_000));
    bytes
}

/// Bytes that differ from chunk to chunk and from seed to seed.
fn blob(seed: usize, length: usize) -> Vec<u8> {
    (0..length)
        .map(|i| (i * 31 % 251 + i / 65_536 + seed * 7) as u8)
        .collect()
}

fn spec(name: &str) -> TensorSpec {
    TensorSpec {
        name: name.into(),
        dtype: DType::I32,
        dims: vec![Dim::Batch, Dim::Fixed(4)],
    }
}

fn bytes(numbers: [i32; 4]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}

impl World {
    /// `v1` to `v5`: good, good, one that dies, one that answers wrongly, good.
    pub(crate) fn new() -> Self {
        use Conduct::{Dies, Good, Wrong};
        let controller = Controller::new();
        let all = [Good, Good, Dies, Wrong, Good];
        let mut versions = BTreeMap::new();
        let mut conduct = BTreeMap::new();
        for (index, how) in all.into_iter().enumerate() {
            let name = format!("v{}", index + 1);
            let manifest = version(&controller, &name, index);
            let native = &manifest.variants[0].native[&host_target()];
            conduct.insert(native.artefact.digest, how);
            versions.insert(name, (manifest, how));
        }
        let artefact = controller.hold(program());
        let release = AgentRelease {
            version: "0.2.0".parse().unwrap(),
            publisher: ActorName::new("publisher").unwrap(),
            published_at: Millis(0),
            oldest: None,
            binaries: [(Arch::X86_64, artefact), (Arch::Aarch64, artefact)].into(),
        };
        Self {
            controller,
            versions,
            conduct: Arc::new(conduct),
            release,
        }
    }

    /// An assignment of a version.
    pub(crate) fn assigned(&self, generation: u64, version: &str) -> DeviceEvent {
        let manifest = &self.versions[version].0;
        let ladder = Ladder {
            rungs: [(PowerState::Mains, manifest.variants[0].name.clone())].into(),
            low_percent: 30,
            critical_percent: 10,
        };
        let model = AssignedModel {
            deployment: DeploymentName::new("sheds").unwrap(),
            model: manifest.model.clone(),
            version: manifest.version.clone(),
            ladder: ladder.into(),
            latency_slo_us: None,
            schedule: None,
        };
        let assignment = Assignment {
            device: DeviceName::new("shed-1").unwrap(),
            generation: Generation(generation),
            agent: None,
            models: [(manifest.model.clone(), model)].into(),
        };
        DeviceEvent::Assigned(assignment, vec![manifest.clone()])
    }

    /// The same with an order for another agent.
    pub(crate) fn updating(&self, generation: u64, version: &str) -> DeviceEvent {
        let mut event = self.assigned(generation, version);
        if let DeviceEvent::Assigned(assignment, _) = &mut event {
            let release = Some(self.release.clone());
            assignment.agent = Some(AgentOrder { number: 1, release });
        }
        event
    }

    pub(crate) fn conduct(&self, version: &VersionName) -> Conduct {
        self.versions[version.as_str()].1
    }

    /// What the device downloads for a version.
    pub(crate) fn artefacts(&self, version: &str) -> Vec<ArtefactRef> {
        let variant = &self.versions[version].0.variants[0];
        let native = variant.native[&host_target()].artefact;
        let weights = variant.weights.unwrap();
        vec![native, weights, variant.golden.artefact]
    }

    /// A launcher over what is on a disk.
    pub(crate) fn launcher(&self, disk: &Arc<dyn Disk>) -> Arc<Bench> {
        Arc::new(Bench {
            disk: disk.clone(),
            conduct: self.conduct.clone(),
            wrong: Mutex::default(),
        })
    }
}

/// One variant with native code of 70 kB, weights of 170 kB and the golden numbers.
fn version(controller: &Controller, name: &str, seed: usize) -> VersionManifest {
    let weights = blob(seed + 100, 170_000);
    let region = WeightsRegion {
        offset: 1 << 16,
        size_bytes: 170_000,
        digest: Digest::of(&weights),
    };
    let place = |name, offset| PlacedTensor {
        spec: spec(name),
        offset,
    };
    let abi = ModuleAbi {
        abi: ABI_VERSION,
        inputs: vec![place("x", 0)],
        outputs: vec![place("y", 1024)],
        max_batch: 8,
        memory_bytes: 8 << 16,
        weights: Some(region),
        bounded: true,
    };
    let native = NativeCode {
        artefact: controller.hold(blob(seed, 70_000)),
        runtime_key: runtime_key(host_target(), true),
    };
    // The tail tells versions apart by nothing: golden bytes are the same for all, one artefact.
    let golden = [bytes([1, 2, 3, 4]), bytes([2, 3, 4, 5])].concat();
    let variant = VariantManifest {
        name: VariantName::new("small").unwrap(),
        accuracy: Accuracy {
            value: 0.9,
            samples: 100,
            source: AccuracySource::Measured,
        },
        abi,
        macs: BTreeMap::new(),
        params: 1,
        wasm: ArtefactRef::of(b"not fetched by devices"),
        native: [(host_target(), native)].into(),
        weights: Some(controller.hold(weights)),
        golden: Golden {
            artefact: controller.hold(golden),
            tolerance: 1e-4,
        },
        host_latency: None,
    };
    VersionManifest {
        model: ModelName::new(MODEL).unwrap(),
        version: VersionName::new(name).unwrap(),
        publisher: ActorName::new("publisher").unwrap(),
        published_at: Millis(0),
        inputs: vec![spec("x")],
        outputs: vec![spec("y")],
        labels: Vec::new(),
        evaluation: None,
        variants: vec![variant],
    }
}

/// Loads what the agent says, after a look at it.
pub(crate) struct Bench {
    disk: Arc<dyn Disk>,
    conduct: Arc<BTreeMap<Digest, Conduct>>,
    /// What it was given that it should not have been.
    wrong: Mutex<Vec<String>>,
}

impl Bench {
    pub(crate) fn wrong(&self) -> Vec<String> {
        self.wrong.lock().unwrap().clone()
    }

    /// A file that is gone belongs to a version that is not wanted any more: the start of it has
    /// ended. One with other bytes must never come here.
    fn look(&self, spec: &LaunchSpec) -> Result<Conduct, String> {
        for path in [Some(&spec.native), spec.weights.as_ref()]
            .into_iter()
            .flatten()
        {
            let bytes = fsio::read(&*self.disk, path).map_err(|e| e.to_string())?;
            let named = path.file_name().unwrap().to_string_lossy();
            if Digest::of(&bytes).to_string() != named {
                let what = format!("{} is not what its name says", path.display());
                self.wrong.lock().unwrap().push(what.clone());
                return Err(what);
            }
        }
        let digest = spec.native.file_name().unwrap().to_string_lossy();
        let conduct = self.conduct.get(&digest.parse().unwrap());
        conduct.copied().ok_or_else(|| "unknown code".to_owned())
    }
}

impl Launcher for Bench {
    fn launch(&self, spec: LaunchSpec) -> Boxed<'_, Result<Arc<dyn Guest>, GuestError>> {
        Box::pin(async move {
            match self.look(&spec) {
                Ok(conduct) => {
                    let (alive, _) = watch::channel(());
                    let guest: Arc<dyn Guest> = Arc::new(Actor { conduct, alive });
                    Ok(guest)
                }
                Err(what) => Err(GuestError::Load(what)),
            }
        })
    }
}

struct Actor {
    conduct: Conduct,
    /// Closed with the guest.
    alive: watch::Sender<()>,
}

impl Guest for Actor {
    fn end(&self) -> Boxed<'static, Option<String>> {
        let (conduct, mut alive) = (self.conduct, self.alive.subscribe());
        Box::pin(async move {
            if conduct == Conduct::Dies {
                return Some("it dies, as it always does".to_owned());
            }
            while alive.changed().await.is_ok() {}
            None
        })
    }

    fn lockdown(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn infer(&self, _: u32, inputs: Vec<Vec<u8>>) -> Boxed<'_, Result<Answer, GuestError>> {
        let more = match self.conduct {
            Conduct::Good | Conduct::Dies => 1,
            Conduct::Wrong => 9,
        };
        let number = |b: &[u8]| i32::from_le_bytes(b.try_into().unwrap()) + more;
        let numbers = inputs[0].chunks_exact(4).map(number);
        let output = numbers.flat_map(i32::to_le_bytes).collect();
        let answer = Answer {
            outputs: vec![output],
            latency_us: 10,
            cpu_us: 10,
        };
        Box::pin(async move { Ok(answer) })
    }
}
