//! The agent's program with a state directory, and one model to serve.

use crate::common::{ADD_ONE, abi, bytes, infer, module};
use crate::controller::Controller;
use sandpiper_core::abi::ModuleAbi;
use sandpiper_core::assignment::{AssignedModel, Assignment, AssignmentBundle, Generation, Ladder};
use sandpiper_core::manifest::{
    Accuracy, AccuracySource, Golden, NativeCode, VariantManifest, VersionManifest,
};
use sandpiper_core::names::{
    ActorName, DeploymentName, DeviceName, ModelName, VariantName, VersionName,
};
use sandpiper_core::profile::PowerState;
use sandpiper_core::signed::Purpose;
use sandpiper_core::time::Millis;
use sandpiper_core::window::Schedule;
use sandpiper_sandbox::{Origin, host_target, precompile};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// An answer of the agent's HTTP API.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<u64>,
    pub(crate) body: String,
}

/// The agent's program. Dropping it kills it.
pub(crate) struct Device {
    dir: TempDir,
    address: String,
    child: Option<Child>,
}

impl Device {
    /// Joins this controller.
    pub(crate) async fn join(controller: &Arc<Controller>, address: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let device = Self {
            address: free.local_addr().unwrap().to_string(),
            dir,
            child: None,
        };
        drop(free);
        let at = device.dir.path().display();
        let text = format!(
            "state_dir = \"{at}/state\"\n[serve]\nlisten = \"{}\"\n[roots]\nsysfs = \"{at}/sys\"\n",
            device.address
        );
        std::fs::write(device.config(), text).unwrap();
        let token = controller.token(address).to_string();
        let mut join = device.command(&["join", &token, "--name", "shed-1"]);
        let done = tokio::task::spawn_blocking(move || join.output().unwrap());
        let done = done.await.unwrap();
        assert!(done.status.success(), "{done:?}");
        device
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("agent.toml")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sandpiper-agent"));
        command.arg("--config").arg(self.config()).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        command
    }

    pub(crate) fn start(&mut self) {
        self.child = Some(self.command(&["run"]).spawn().unwrap());
    }

    /// Adds to its configuration.
    pub(crate) fn configure(&self, more: &str) {
        let text = std::fs::read_to_string(self.config()).unwrap();
        std::fs::write(self.config(), text + more).unwrap();
    }

    /// Makes it take itself for a CPU with these features, or for the one that is here.
    pub(crate) fn pretend(&self, features: Option<&[&str]>) {
        let text = std::fs::read_to_string(self.config()).unwrap();
        let (own, _) = text.split_once("[emulate]").unwrap_or((&text, ""));
        let lent = features.map(|f| format!("[emulate]\ncpu_features = {f:?}\n"));
        std::fs::write(self.config(), own.to_owned() + &lent.unwrap_or_default()).unwrap();
    }

    /// Where it keeps what it keeps.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// As a service manager does that watches it.
    pub(crate) fn start_watched(&mut self, socket: &std::path::Path, within: Duration) {
        let mut command = self.command(&["run"]);
        command.env("NOTIFY_SOCKET", socket);
        command.env("WATCHDOG_USEC", within.as_micros().to_string());
        self.child = Some(command.spawn().unwrap());
    }

    /// As a service manager does with one that says nothing any more.
    pub(crate) fn abort(&mut self) {
        let mut child = self.child.take().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::ABORT).unwrap();
        child.wait().unwrap();
    }

    /// As a power cut does, but for the disk.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// What `status` prints.
    pub(crate) async fn status(&self) -> String {
        let mut status = self.command(&["status"]);
        let done = tokio::task::spawn_blocking(move || status.output().unwrap());
        String::from_utf8(done.await.unwrap().stdout).unwrap()
    }

    /// Asks the model; `None` while nobody listens.
    pub(crate) async fn infer(&self) -> Option<Reply> {
        self.ask("activity", [1, 2, 3, 4]).await
    }

    /// Asks a model with these numbers; `None` while nobody listens.
    pub(crate) async fn ask(&self, model: &str, x: [i32; 4]) -> Option<Reply> {
        let url = format!("http://{}/v2/models/{model}/infer", self.address);
        let body = format!(
            r#"{{"inputs":[{{"name":"x","shape":[1,4],"datatype":"INT32","data":{x:?}}}]}}"#
        );
        let ask = move || {
            let config = ureq::Agent::config_builder().http_status_as_error(false);
            let agent: ureq::Agent = config.build().into();
            let mut response = agent.post(url).send(&body).ok()?;
            let after = response.headers().get("retry-after");
            Some(Reply {
                status: response.status().as_u16(),
                retry_after: after.map(|v| v.to_str().unwrap().parse().unwrap()),
                body: response.body_mut().read_to_string().unwrap(),
            })
        };
        tokio::task::spawn_blocking(ask).await.unwrap()
    }

    /// Processes that this agent has started and that are not gone.
    pub(crate) fn runners(&self) -> Vec<u32> {
        let agent = self.child.as_ref().unwrap().id();
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = all.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
        let ours = |pid: &u32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
            status.is_ok_and(|s| s.lines().any(|l| l == format!("PPid:\t{agent}")))
        };
        pids.filter(ours).collect()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A version of one variant that adds one to four numbers; the controller holds its artefacts.
pub(crate) fn version(controller: &Controller) -> VersionManifest {
    version_of(controller, "activity", ADD_ONE)
}

/// A version of one variant with this body, which must add one to the numbers 1 to 4.
pub(crate) fn version_of(controller: &Controller, model: &str, body: &str) -> VersionManifest {
    let wanted = ModuleAbi {
        bounded: true,
        ..abi(1)
    };
    let wasm = module(&infer(1, body), &wanted);
    let target = host_target();
    let made = precompile(&wasm, target, Origin::OwnCompiler).unwrap();
    let golden = [bytes(&[1, 2, 3, 4]), bytes(&[2, 3, 4, 5])].concat();
    let native = NativeCode {
        artefact: controller.hold(made.native),
        runtime_key: made.runtime_key,
    };
    let specs =
        |all: &[sandpiper_core::abi::PlacedTensor]| all.iter().map(|t| t.spec.clone()).collect();
    let variant = VariantManifest {
        name: VariantName::new("small").unwrap(),
        accuracy: Accuracy {
            value: 0.9,
            samples: 100,
            source: AccuracySource::Measured,
        },
        abi: made.abi.clone(),
        macs: BTreeMap::new(),
        params: 1,
        wasm: controller.hold(wasm),
        native: [(target, native)].into(),
        weights: None,
        golden: Golden {
            artefact: controller.hold(golden),
            tolerance: 1e-4,
        },
        host_latency: None,
    };
    VersionManifest {
        model: ModelName::new(model).unwrap(),
        version: VersionName::new("v1").unwrap(),
        publisher: ActorName::new("publisher").unwrap(),
        published_at: Millis(0),
        inputs: specs(&made.abi.inputs),
        outputs: specs(&made.abi.outputs),
        labels: Vec::new(),
        evaluation: None,
        variants: vec![variant],
    }
}

/// An assignment of that version to a device of this name.
pub(crate) fn bundle(
    controller: &Controller,
    device: &str,
    generation: u64,
    version: &VersionManifest,
) -> AssignmentBundle {
    bundle_of(controller, device, generation, &[version])
}

fn assigned(version: &VersionManifest) -> AssignedModel {
    let ladder = Ladder {
        rungs: [(PowerState::Mains, version.variants[0].name.clone())].into(),
        low_percent: 30,
        critical_percent: 10,
    };
    AssignedModel {
        deployment: DeploymentName::new("sheds").unwrap(),
        model: version.model.clone(),
        version: version.version.clone(),
        ladder: ladder.into(),
        latency_slo_us: None,
        schedule: None,
    }
}

/// An assignment of these versions.
pub(crate) fn bundle_of(
    controller: &Controller,
    device: &str,
    generation: u64,
    versions: &[&VersionManifest],
) -> AssignmentBundle {
    scheduled(controller, device, generation, versions, None)
}

/// The same, to be fetched and switched to when this says.
pub(crate) fn scheduled(
    controller: &Controller,
    device: &str,
    generation: u64,
    versions: &[&VersionManifest],
    schedule: Option<Schedule>,
) -> AssignmentBundle {
    let models = versions.iter().map(|v| {
        let schedule = schedule.clone().map(Arc::new);
        let assigned = assigned(v);
        (
            v.model.clone(),
            AssignedModel {
                schedule,
                ..assigned
            },
        )
    });
    let signed =
        |v: &&VersionManifest| Controller::sign(&controller.publisher, Purpose::Version, *v);
    let assignment = Assignment {
        device: DeviceName::new(device).unwrap(),
        generation: Generation(generation),
        agent: None,
        models: models.collect(),
    };
    AssignmentBundle {
        assignment: Controller::sign(&controller.assigner, Purpose::Assignment, &assignment),
        versions: versions.iter().map(signed).collect(),
        agent: None,
    }
}
