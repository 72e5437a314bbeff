//! A fleet whose devices serve v1 and are measured, and a v2 whose first wave is one of them.

use crate::binaries::Binaries;
use crate::controller::Controller;
use crate::device::{Device, Hardware, PATIENCE};
use crate::traffic::{Question, Steady};
use crate::wait;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// Inferences of a device before v2 comes: some windows of them, since one window is not like the
/// other.
const BEFORE: u64 = 1_500;

/// A controller and two devices whose programs ask on and on.
pub struct Fleet {
    /// The controller.
    pub controller: Controller,
    devices: Vec<(Device, Question)>,
    model: &'static str,
}

impl Fleet {
    /// Starts one. `ask` makes what the programs of a device ask, before the device runs.
    ///
    /// # Errors
    /// When a program does not start.
    pub fn start(
        dir: &Path,
        model: &'static str,
        mut ask: impl FnMut(&Device) -> Result<Question>,
    ) -> Result<Self> {
        let binaries = Binaries::build("dev")?;
        let controller = Controller::start(&binaries, dir)?;
        let mut devices = Vec::new();
        for name in ["canary", "other"] {
            let hardware = Hardware {
                window_s: 3,
                ..Hardware::plain(name)
            };
            let mut device = Device::make(&binaries, dir, hardware)?;
            let question = ask(&device)?;
            let token = controller.token(&[format!("app={model}")])?;
            device.join_and_run(&token)?;
            devices.push((device, question));
        }
        Ok(Self {
            controller,
            devices,
            model,
        })
    }

    /// Starts a rollout and gives its name.
    ///
    /// # Errors
    /// When it is refused.
    pub fn roll_out(&self, version: &str, more: &[&str]) -> Result<String> {
        let args = ["rollout", "start", self.model, "--version", version];
        let times = ["--bake", "1s", "--deadline", "60s"];
        let said = self.controller.ok(&[&args[..], &times, more].concat())?;
        let first = said.lines().next().context("the rollout has no name")?;
        Ok(first.trim_start_matches("rollout/").trim().to_owned())
    }

    /// Brings v1, which is published, to all devices, lets them rest and has them measure it.
    ///
    /// # Errors
    /// When they do not serve it.
    pub fn settle(&mut self, rest: Duration) -> Result<Vec<Steady>> {
        let selector = format!("app={}", self.model);
        self.controller.deploy(self.model, &selector)?;
        let first = self.roll_out("v1", &["--wave", "100%"])?;
        for (device, _) in &mut self.devices {
            device.wait_serving(self.model)?;
        }
        std::thread::sleep(rest);
        let ask = |(device, question): &(Device, Question)| {
            Steady::asking(device.client(), question.clone())
        };
        let streams = self.devices.iter().map(ask).collect();
        let wait = ["rollout", "status", &first, "-w", "--timeout", "60s"];
        self.controller.ok(&wait)?;
        wait::until("v1 is measured", PATIENCE, || {
            let docs = self.controller.list("devices")?;
            let counts = docs
                .iter()
                .map(|d| &d["models"][0]["learned"]["inferences"]);
            let enough = counts.filter(|n| n.as_u64() >= Some(BEFORE)).count();
            Ok((enough == docs.len()).then_some(()))
        })?;
        Ok(streams)
    }

    /// The end of a rollout: what it says of itself. No request may have failed.
    ///
    /// # Errors
    /// When its exit code is another one, or a request has failed.
    pub fn ended(&self, rollout: &str, code: i32, streams: Vec<Steady>) -> Result<Value> {
        let wait = ["rollout", "status", rollout, "-w", "--timeout", "120s"];
        let said = self.controller.run(&wait)?;
        ensure!(
            said.code == code,
            "{}: {}\n{}",
            said.code,
            said.out,
            said.err
        );
        for stream in streams {
            let stream = stream.finish()?;
            ensure!(stream.sent > BEFORE, "{} requests", stream.sent);
            ensure!(stream.failed == 0, "{:?}", stream.last_failure);
        }
        let docs = self.controller.list("rollouts")?;
        let doc = docs.into_iter().find(|d| d["name"] == rollout);
        doc.context("the rollout is gone")
    }

    /// The end of a rollout that must be stopped in its first wave and taken back.
    ///
    /// # Errors
    /// As [`Self::ended`], or when it went further or a device did not go back.
    pub fn taken_back(&self, rollout: &str, streams: Vec<Steady>) -> Result<Value> {
        let doc = self.ended(rollout, 3, streams)?;
        ensure!(doc["state"]["state"] == "rolled_back", "{doc}");
        let why = doc["state"]["why"].as_str().unwrap_or_default();
        ensure!(why.starts_with("wave 1: "), "{doc}");
        for (device, _) in &self.devices {
            let name = &device.hardware.name;
            wait::until(&format!("{name} is on v1"), PATIENCE, || {
                let docs = self.controller.list("devices")?;
                let ours = docs.iter().find(|d| d["name"] == name.as_str());
                let version = ours.map(|d| d["models"][0]["status"]["serving"]["version"].clone());
                Ok(version.filter(|v| v == "v1"))
            })?;
        }
        Ok(doc)
    }
}

/// The reading of a gate in the document of a rollout.
///
/// # Errors
/// When it was not asked.
pub fn reading<'a>(doc: &'a Value, metric: &str) -> Result<&'a Value> {
    let gates = doc["gates"].as_array().context("no gates")?;
    let found = gates.iter().find(|g| g["metric"] == metric);
    found.with_context(|| format!("no gate looks at {metric}: {doc}"))
}
