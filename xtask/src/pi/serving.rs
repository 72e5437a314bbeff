//! A whole device: the package is installed into a Debian root, joins a controller on this machine,
//! and serves models that were made here, with the same results.

use super::board::Board;
use super::emulator::Emulator;
use super::kernels::FLOAT_TOLERANCE;
use super::root::Root;
use crate::dist::Debian;
use anyhow::{Context, Result, ensure};
use sandpiper_conformance::module::Module;
use sandpiper_e2e::binaries::Binaries;
use sandpiper_e2e::controller::{Controller, free_address};
use sandpiper_e2e::oip::Client;
use sandpiper_e2e::process::Process;
use sandpiper_e2e::{activity, wait};
use sandpiper_sandbox::lockdown::Measure;
use sandpiper_testdata::Samples;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Emulated, a device takes its time.
const PATIENCE: Duration = Duration::from_secs(240);
/// Test windows that each device is asked about.
const WINDOWS: usize = 12;
/// Model, its variant, and whether its results must be the same bits.
const MODELS: [(&str, &str, bool); 2] = [
    ("integers", "small-int8", true),
    ("floats", "small-f32", false),
];

/// What a device showed.
#[derive(Debug)]
pub(super) struct Served {
    /// Answers that were compared.
    pub(super) answers: usize,
    /// The farthest of the floats, as a share of the largest value.
    pub(super) farthest: f64,
    /// Measures of isolation that it reported as taken in part, or not at all.
    pub(super) degraded: Vec<String>,
}

/// A controller with two models and packages to install from.
pub(super) struct Site {
    dir: tempfile::TempDir,
    controller: Controller,
    samples: Samples,
}

impl Site {
    /// Starts the controller and imports the models for every target.
    ///
    /// # Errors
    /// When something does not start.
    pub(super) fn start(binaries: &Binaries, packages: &Path) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let controller = Controller::start_with(binaries, dir.path(), Some(packages))?;
        for (model, variant, _) in MODELS {
            let file = activity().join(format!("models/{variant}.onnx"));
            let variant = format!("{variant}={}", file.display());
            let claim = format!("{}=0.9", variant.split_once('=').map_or("", |v| v.0));
            controller.ok(&[
                "model",
                "import",
                model,
                "--version",
                "v1",
                "--variant",
                &variant,
                "--claim-accuracy",
                &claim,
            ])?;
            controller.ok(&[
                "deployment",
                "apply",
                model,
                "--model",
                model,
                "--selector",
                "pi=virtual",
            ])?;
        }
        let samples = Samples::read(&activity().join("test.npz"))?;
        Ok(Self {
            dir,
            controller,
            samples,
        })
    }

    /// Installs a system with the agent's package and joins it, as a person would.
    ///
    /// # Errors
    /// With what was said when it failed.
    pub(super) fn device(
        &self,
        board: &Board,
        debian: &Debian,
        emulator: &Emulator,
        packages: &Path,
    ) -> Result<Device> {
        let (cpu, name) = (board.cpu, format!("pi-{}", board.cpu));
        let dir = self.dir.path().join(&name);
        let root = Root::make(&dir, board.platform, debian, emulator)?;
        root.bring(packages)?;
        let token = self.controller.token(&["pi=virtual".to_owned()])?;
        let installer = [
            "/bin/sh",
            "/packages/install.sh",
            "--packages",
            "/packages",
            "--name",
            &name,
        ];
        let said = root.run(cpu, &installer, &[("SANDPIPER_TOKEN", &token)])?;
        ensure!(
            said.contains(".deb"),
            "no package of Debian was installed: {said}"
        );
        let status = root.run(cpu, &["dpkg-query", "-W", "sandpiper-agent"], &[])?;
        ensure!(
            status.contains("sandpiper-agent"),
            "dpkg knows nothing of it: {status}"
        );
        let address = free_address()?;
        let config = root.path("etc/sandpiper/agent.toml");
        let text = fs::read_to_string(&config)?.replace("127.0.0.1:8090", &address);
        // What it measured is to be known soon.
        let text = text.replace("window_s = 60", "window_s = 1");
        ensure!(
            text.contains(&address),
            "the package's configuration is another"
        );
        fs::write(&config, text)?;
        Ok(Device {
            root,
            name,
            address,
        })
    }

    fn document(&self, device: &Device) -> Result<Value> {
        let all = self.controller.list("devices")?;
        let mine = all.into_iter().find(|d| d["name"] == device.name.as_str());
        mine.with_context(|| format!("{} is not enrolled", device.name))
    }

    /// Runs an installed agent as on a board and compares what it serves with this machine.
    ///
    /// # Errors
    /// When it does not attach, serve, or answer alike.
    pub(super) fn serve(&self, device: &Device, board: &Board) -> Result<Served> {
        let log = self.dir.path().join(format!("{}.log", board.cpu));
        let program = ["/usr/bin/sandpiper-agent", "run"];
        let mut process = device
            .root
            .start(board.cpu, "sandpiper-agent", &program, &[], &log)?;
        let served = self.ask(device, board, &mut process);
        let tail = process.log_tail();
        process.stop()?;
        served.with_context(|| format!("the agent's log ends with\n{tail}"))
    }

    fn ask(&self, device: &Device, board: &Board, process: &mut Process) -> Result<Served> {
        wait::until("the device attaches as this board", PATIENCE, || {
            process.check()?;
            let doc = self.document(device)?;
            let best = doc["profile"]["targets"][0] == board.target.name();
            Ok((doc["connected"] == true && best).then_some(()))
        })?;
        for (model, ..) in MODELS {
            self.roll_out(model)?;
        }
        let client = Client::new(&device.address);
        let (mut answers, mut farthest) = (0, 0f64);
        for (model, variant, exact) in MODELS {
            wait::until("the device serves", PATIENCE, || {
                process.check()?;
                Ok(client
                    .ready(&format!("/v2/models/{model}/ready"))
                    .then_some(()))
            })?;
            let onnx = fs::read(activity().join(format!("models/{variant}.onnx")))?;
            let mut here = Module::compile(&onnx)?;
            let shape = [&[1], &self.samples.shape[1..]].concat();
            for index in 0..WINDOWS {
                let x = self.samples.sample(index);
                let bytes: Vec<u8> = x.iter().flat_map(|v| v.to_le_bytes()).collect();
                let want = here
                    .infer(&bytes)?
                    .as_chunks()
                    .0
                    .iter()
                    .map(|b| f32::from_le_bytes(*b));
                let want: Vec<f32> = want.collect();
                let got = client.infer(model, "input", &shape, x)?.values;
                ensure!(got.len() == want.len(), "{model}: {} values", got.len());
                let largest = want.iter().fold(1e-3f32, |a, v| a.max(v.abs()));
                for (got, want) in got.iter().zip(&want) {
                    let far = f64::from((got - want).abs() / largest);
                    let allowed = if exact { 0.0 } else { FLOAT_TOLERANCE };
                    ensure!(
                        far <= allowed,
                        "{model}, window {index}: {got} where here is {want}"
                    );
                    farthest = farthest.max(far);
                }
                answers += 1;
            }
        }
        wait::until("what was served promotes both versions", PATIENCE, || {
            process.check()?;
            let all = self.controller.list("rollouts")?;
            let promoted = all.iter().all(|r| r["state"]["state"] == "promoted");
            Ok(promoted.then_some(()))
        })?;
        let lockdown = wait::until(
            "the device tells how its runners are locked",
            PATIENCE,
            || {
                let doc = self.document(device)?;
                let told = doc["profile"]["lockdown"]
                    .as_object()
                    .filter(|m| !m.is_empty());
                Ok(told.cloned())
            },
        )?;
        for measure in Measure::all().map(Measure::name) {
            ensure!(
                lockdown.contains_key(measure),
                "nothing is said of {measure}"
            );
        }
        // Whatever QEMU lacks, it has never had filters of system calls; a device that claims one
        // would claim it on a kernel without, too.
        ensure!(
            !device.root.is_emulated() || lockdown["few_calls"] != "applied",
            "a filter of system calls is claimed that QEMU cannot have put on"
        );
        let short = lockdown.iter().filter(|(_, what)| *what != "applied");
        let degraded = short.map(|(name, _)| name.clone()).collect();
        Ok(Served {
            answers,
            farthest,
            degraded,
        })
    }

    /// Starts the rollout of a model for the first device; those that join later get what was
    /// promoted.
    fn roll_out(&self, model: &str) -> Result<()> {
        let begun = self.controller.list("rollouts")?;
        if begun.iter().any(|r| r["deployment"] == model) {
            return Ok(());
        }
        let args = [
            "rollout",
            "start",
            model,
            "--version",
            "v1",
            "--wave",
            "100%",
            "--bake",
            "1s",
        ];
        self.controller.ok(&args).map(drop)
    }
}

/// A system with an agent that has joined.
pub(super) struct Device {
    root: Root,
    name: String,
    address: String,
}
