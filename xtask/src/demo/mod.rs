//! `cargo xtask demo`: the whole job on this machine, with real programs and emulated hardware.
//!
//! Nothing is simulated but the hardware that the agents are told they have: the controller, the
//! agents, their identities, the model, the data and every request are real.

mod cast;
mod fleet;
mod report;
mod session;
mod terminal;

use anyhow::{Context, Result, ensure};
use report::{BadRollout, DeviceRow, LadderStep, Report, Requests};
use sandpiper_e2e::binaries::Binaries;
use sandpiper_e2e::controller::Controller;
use sandpiper_e2e::device::Device;
use sandpiper_e2e::traffic::{self, MODEL, Steady, Stream};
use sandpiper_e2e::{activity, onnx, wait};
use sandpiper_testdata::Samples;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// For what takes a device a few seconds: install, report, climb.
const PATIENCE: Duration = Duration::from_secs(30);
/// Battery charge in percent that the drained device ends with: below every threshold.
const EMPTY_PERCENT: u8 = 8;

/// Builds, runs the demo and prints what came of it; or records a session of an operator instead.
#[allow(clippy::print_stdout, clippy::print_stderr)]
pub(crate) fn run(json: bool, record: Option<&Path>) -> ExitCode {
    if let Some(to) = record {
        return match session::record(to) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("the session was not recorded: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    match demonstrate() {
        Ok(report) => {
            match serde_json::to_string_pretty(&report) {
                Ok(text) if json => println!("{text}"),
                _ => println!("{}", report.text()),
            }
            if report.failures.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("the demo did not come to its end: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stderr)]
fn say(what: &str) {
    eprintln!("demo: {what}");
}

fn demonstrate() -> Result<Report> {
    say("building");
    let binaries = Binaries::build("dev")?;
    let start = Instant::now();
    let dir = tempfile::tempdir()?;
    say("a controller, and six agents with one-time tokens and emulated hardware");
    let mut demo = Demo::start(&binaries, dir.path())?;
    say("importing activity v1: accuracy is measured in the sandbox");
    demo.publish_v1()?;
    say("rolling out v1");
    let rollouts = demo.roll_out_v1()?;
    say("streaming the test windows through every agent");
    let mut requests = Requests::default();
    let devices = demo.measure(&mut requests)?;
    // A device has succeeded when it served under the new code, so this comes after the streams.
    demo.promoted(&rollouts)?;
    say("draining a battery");
    let ladder_step = demo.drain(&mut requests)?;
    say("rolling out v2, whose only variant answers NaN (its accuracy is claimed, not measured)");
    let bad_rollout = demo.bad_rollout(dir.path(), &mut requests)?;
    let variants: BTreeSet<_> = devices.iter().map(|d| d.variant.as_str()).collect();
    let mut report = Report {
        emulated_hardware: true,
        distinct_variants: variants.len(),
        devices,
        ladder_step,
        bad_rollout,
        requests,
        seconds: start.elapsed().as_secs(),
        failures: Vec::new(),
    };
    report.judge(demo.devices.len());
    Ok(report)
}

struct Demo {
    controller: Controller,
    devices: Vec<Device>,
    samples: Arc<Samples>,
}

impl Demo {
    fn start(binaries: &Binaries, dir: &Path) -> Result<Self> {
        let samples = Arc::new(Samples::read(&activity().join("test.npz"))?);
        let controller = Controller::start(binaries, dir)?;
        let mut devices = Vec::new();
        for member in fleet::members() {
            let token = controller.token(&member.labels)?;
            let mut device = Device::make(binaries, dir, member.hardware)?;
            device.join_and_run(&token)?;
            devices.push(device);
        }
        let count = devices.len();
        wait::until("all agents are attached", PATIENCE, || {
            let docs = controller.list("devices")?;
            let attached = docs.iter().filter(|d| d["connected"] == true).count();
            Ok((attached == count).then_some(()))
        })?;
        Ok(Self {
            controller,
            devices,
            samples,
        })
    }

    fn publish_v1(&self) -> Result<()> {
        let sizes = ["large", "pruned50", "small", "tiny"];
        let names: Vec<String> = sizes
            .iter()
            .flat_map(|s| [format!("{s}-f32"), format!("{s}-int8")])
            .collect();
        let files: Vec<PathBuf> = names
            .iter()
            .map(|n| activity().join(format!("models/{n}.onnx")))
            .collect();
        let variants: Vec<(&str, &Path)> = names
            .iter()
            .map(String::as_str)
            .zip(files.iter().map(PathBuf::as_path))
            .collect();
        self.controller.import("v1", &variants, &[])
    }

    fn roll_out_v1(&mut self) -> Result<Vec<String>> {
        let mut rollouts = Vec::new();
        for (name, goal, objective) in [
            ("activity", "accuracy", "accuracy"),
            ("activity-saving", "saving", "energy"),
        ] {
            let selector = format!("app=activity,goal={goal}");
            self.controller.ok(&[
                "deployment",
                "apply",
                name,
                "--model",
                MODEL,
                "--selector",
                &selector,
                "--objective",
                objective,
                "--latency-slo",
                "50ms",
                "--accuracy-floor",
                "0.9",
            ])?;
            rollouts.push(self.rollout(name, "v1", &["--wave", "100%"])?);
        }
        for device in &mut self.devices {
            device.wait_serving(MODEL)?;
        }
        Ok(rollouts)
    }

    fn promoted(&self, rollouts: &[String]) -> Result<()> {
        for rollout in rollouts {
            self.controller
                .ok(&["rollout", "status", rollout, "-w", "--timeout", "60s"])?;
        }
        Ok(())
    }

    /// Starts a rollout and gives its name.
    fn rollout(&self, deployment: &str, version: &str, more: &[&str]) -> Result<String> {
        let start = [
            "rollout",
            "start",
            deployment,
            "--version",
            version,
            "--bake",
            "1s",
        ];
        self.controller.ok(&[&start, more].concat())?;
        let docs = self.controller.list("rollouts")?;
        let ours = |d: &&Value| d["deployment"] == deployment && d["version"] == version;
        let name = docs
            .iter()
            .rev()
            .find(ours)
            .and_then(|d| d["name"].as_str());
        Ok(name
            .with_context(|| format!("no rollout of {version}: {docs:?}"))?
            .to_owned())
    }

    fn measure(&self, requests: &mut Requests) -> Result<Vec<DeviceRow>> {
        let streams: Vec<Stream> = std::thread::scope(|scope| {
            let ask = |d: &Device| {
                let (client, samples) = (d.client(), self.samples.clone());
                scope.spawn(move || traffic::once(&client, &samples))
            };
            let threads: Vec<_> = self.devices.iter().map(ask).collect();
            let joined = threads.into_iter().map(std::thread::ScopedJoinHandle::join);
            joined
                .collect::<Result<_, _>>()
                .map_err(|_| anyhow::anyhow!("a client panicked"))
        })?;
        let mut rows = Vec::new();
        for (device, stream) in self.devices.iter().zip(streams) {
            let learned = wait::until("a device reports its telemetry", PATIENCE, || {
                let learned = self.model(device)?["learned"].clone();
                Ok(learned["latency_us_p50"].is_number().then_some(learned))
            })?;
            rows.push(self.row(device, &stream, &learned)?);
            count(requests, stream);
        }
        Ok(rows)
    }

    fn row(&self, device: &Device, stream: &Stream, learned: &Value) -> Result<DeviceRow> {
        let hw = &device.hardware;
        let variant = self.serving(device)?;
        let text = |key: &str| learned[key].as_str().unwrap_or("unknown").to_owned();
        Ok(DeviceRow {
            name: hw.name.clone(),
            emulated: hw.board.to_owned(),
            ram_mib: hw.ram_mib,
            battery_percent: hw.battery_percent,
            reason: self.reason(device, &variant)?,
            variant,
            accuracy: stream.accuracy(),
            latency_us_p50: learned["latency_us_p50"].as_u64(),
            latency_us_p95: learned["latency_us_p95"].as_u64(),
            energy_uj: learned["energy_uj"].as_f64(),
            energy_standard_error_uj: learned["energy_standard_error_uj"].as_f64(),
            energy_provenance: text("energy_provenance"),
        })
    }

    /// The controller's document of a device.
    fn doc(&self, device: &Device) -> Result<Value> {
        let docs = self.controller.list("devices")?;
        let doc = docs
            .into_iter()
            .find(|d| d["name"] == device.hardware.name.as_str());
        doc.with_context(|| format!("the controller does not know {}", device.hardware.name))
    }

    /// The model of the demo in the document of a device.
    fn model(&self, device: &Device) -> Result<Value> {
        Ok(self.doc(device)?["models"][0].clone())
    }

    fn serving(&self, device: &Device) -> Result<String> {
        let name = &device.hardware.name;
        wait::until(&format!("{name} reports what it serves"), PATIENCE, || {
            let model = self.model(device)?;
            Ok(model["status"]["serving"]["variant"]
                .as_str()
                .map(str::to_owned))
        })
    }

    /// Why a device got its variant, from `explain`.
    fn reason(&self, device: &Device, variant: &str) -> Result<String> {
        let name = format!("device/{}", device.hardware.name);
        let doc = self
            .controller
            .json(&["explain", &name, "--model", MODEL])?;
        let doc = doc.get(0).unwrap_or(&doc);
        let choices = doc["selection"]["choices"]
            .as_array()
            .context("no choices are explained")?;
        let chosen = choices.iter().find(|c| c["variant"] == variant);
        let reason = &chosen.context("what is served is not among the choices")?["reason"];
        let candidates = doc["selection"]["candidates"].as_array();
        let unfit = |c: &&Value| c["misfits"].as_array().is_some_and(|m| !m.is_empty());
        let all = candidates.map_or(0, Vec::len);
        let out = candidates.map_or(0, |c| c.iter().filter(unfit).count());
        let reason = reason
            .as_str()
            .map_or_else(|| reason.to_string(), str::to_owned);
        Ok(format!(
            "{} ({out} of {all} variants do not fit)",
            reason.replace('_', " ")
        ))
    }

    fn drain(&self, requests: &mut Requests) -> Result<LadderStep> {
        let device = self
            .devices
            .iter()
            .find(|d| d.hardware.name == fleet::DRAINED);
        let device = device.context("the demo has no device to drain")?;
        let from = self.serving(device)?;
        let steady = Steady::start(device.client(), self.samples.clone());
        device.sysfs.set_battery(EMPTY_PERCENT)?;
        let to = wait::until("the drained device steps down", PATIENCE, || {
            let now = self.serving(device)?;
            Ok((now != from).then_some(now))
        });
        count(requests, steady.finish()?);
        Ok(LadderStep {
            device: device.hardware.name.clone(),
            from,
            to: to?,
        })
    }

    fn bad_rollout(&self, dir: &Path, requests: &mut Requests) -> Result<BadRollout> {
        let good = std::fs::read(activity().join("models/small-f32.onnx"))?;
        let file = dir.join("broken.onnx");
        std::fs::write(&file, onnx::with_nan_weights(&good)?)?;
        let claim = ["--claim-accuracy", "broken-f32=0.99", "--allow-nonfinite"];
        self.controller
            .import("v2", &[("broken-f32", &file)], &claim)?;
        let steady: Vec<Steady> = self
            .devices
            .iter()
            .map(|d| Steady::start(d.client(), self.samples.clone()))
            .collect();
        let rollout = self.rollout("activity", "v2", &["--waves", "2", "--deadline", "30s"])?;
        let status = ["rollout", "status", &rollout, "-w", "--timeout", "60s"];
        let code = self.controller.run(&status)?.code;
        let docs = self.controller.list("rollouts")?;
        let doc = docs.iter().find(|d| d["name"] == rollout.as_str());
        let state = doc.context("the rollout is gone")?["state"].clone();
        for stream in steady {
            count(requests, stream.finish()?);
        }
        ensure!(
            code == 3,
            "`rollout status -w` gave {code} for a rollout that is {state}"
        );
        let back = |d: &&Device| {
            let model = self.model(d).unwrap_or_default();
            model["status"]["serving"]["version"] == "v1"
                && d.client().ready("/v2/models/activity/ready")
        };
        Ok(BadRollout {
            state: state["state"].as_str().unwrap_or("unknown").to_owned(),
            why: state["why"].as_str().unwrap_or_default().to_owned(),
            devices_on_v1: self.devices.iter().filter(back).count(),
        })
    }
}

#[allow(clippy::print_stderr)]
fn count(requests: &mut Requests, stream: Stream) {
    if let Some(why) = &stream.last_failure {
        eprintln!("demo: a request failed: {why}");
    }
    requests.sent += stream.sent;
    requests.failed += stream.failed;
}
