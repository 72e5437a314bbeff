//! The agent is brought to another release of itself, with the real programs. One that does not
//! work falls back by itself: because it cannot speak to the controller, ends at once, is no whole
//! program, or is killed in the middle.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use sandpiper_e2e::binaries::Binaries;
use sandpiper_e2e::controller::Controller;
use sandpiper_e2e::device::{Device, Hardware};
use sandpiper_e2e::traffic::Steady;
use sandpiper_e2e::{activity, wait};
use sandpiper_testdata::Samples;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Longer than three trials take.
const PATIENCE: Duration = Duration::from_secs(90);
const NAME: &str = "shed";
/// What a build has to say for the controller to take it for an agent.
const METHOD: &[u8] = b"/sandpiper.v1.DeviceService/Attach";

struct Shed {
    dir: tempfile::TempDir,
    controller: Controller,
    device: Device,
    agent: PathBuf,
}

impl Shed {
    /// A device that serves a model.
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let binaries = Binaries::build("dev").unwrap();
        let controller = Controller::start(&binaries, dir.path()).unwrap();
        let mut device = Device::make(&binaries, dir.path(), Hardware::plain(NAME)).unwrap();
        device.configure("[update]\nwithin_s = 8\n").unwrap();
        let token = controller.token(&["app=activity".into()]).unwrap();
        device.join_and_run(&token).unwrap();
        controller.deploy("activity", "app=activity").unwrap();
        let file = activity().join("models/tiny-f32.onnx");
        controller
            .import("v1", &[("tiny-f32", &file)], &[])
            .unwrap();
        let args = ["rollout", "start", "activity", "--version", "v1"];
        controller
            .ok(&[&args[..], &["--bake", "1s", "--wave", "100%"]].concat())
            .unwrap();
        device.wait_serving("activity").unwrap();
        Self {
            agent: stripped(&binaries.agent, dir.path()),
            dir,
            controller,
            device,
        }
    }

    /// Publishes these bytes as a release.
    fn publish(&self, version: &str, program: &[u8]) {
        let file = self.dir.path().join(version);
        std::fs::write(&file, program).unwrap();
        let file = file.display().to_string();
        let args = ["agent", "import", &file, "--version", version];
        self.controller.ok(&args).unwrap();
    }

    fn order(&self, version: &str) {
        let args = ["agent", "update", "--device", NAME, "--version", version];
        self.controller.ok(&args).unwrap();
    }

    fn doc(&self) -> Value {
        let name = format!("device/{NAME}");
        self.controller.json(&["get", &name]).unwrap()
    }

    /// Waits until the newest order has come to this phase, and plays the service manager meanwhile.
    fn comes_to(&mut self, phase: &str) -> Value {
        let what = format!("the update is {phase}");
        let found = wait::until(&what, PATIENCE, || {
            self.device.revive()?;
            let doc = self.doc();
            let agent = &doc["agent"];
            let same = agent["order"] == doc["agent_order"]["number"];
            Ok(
                (same && agent["phase"] == phase && doc["connected"] == true)
                    .then(|| agent.clone()),
            )
        });
        found.unwrap_or_else(|e| panic!("{e:#}: {}\n{}", self.doc(), self.device.log_tail()))
    }

    fn record(&self) -> Value {
        let path = self.device.state_dir().join("agent/update.json");
        let bytes = std::fs::read(path).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// The program that the agent's process runs.
    fn runs(&self) -> PathBuf {
        program_of(self.device.process_id().unwrap()).unwrap()
    }

    fn programs(&self) -> usize {
        let files = std::fs::read_dir(self.device.state_dir().join("agent")).unwrap();
        let names = files.flatten().map(|f| f.file_name());
        let ours = names.filter(|n| n.to_string_lossy().starts_with("sandpiper-agent-"));
        ours.count()
    }
}

fn program_of(pid: u32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/exe")).ok()
}

/// Programs of the children of a process, and how many have ended without being asked for.
fn children(parent: u32) -> (Vec<PathBuf>, usize) {
    let (mut programs, mut ended) = (Vec::new(), 0);
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let Some((pid, rest)) = stat.split_once(" (") else {
            continue;
        };
        let fields: Vec<&str> = rest
            .rsplit_once(") ")
            .map_or("", |r| r.1)
            .split(' ')
            .collect();
        if fields.get(1) != Some(&parent.to_string().as_str()) {
            continue;
        }
        ended += usize::from(fields[0] == "Z");
        programs.extend(program_of(pid.parse().unwrap()));
    }
    (programs, ended)
}

/// A debug build carries more than a release may have.
fn stripped(agent: &Path, dir: &Path) -> PathBuf {
    let to = dir.join("stripped");
    let strip = std::process::Command::new("strip")
        .arg("-o")
        .arg(&to)
        .arg(agent)
        .status();
    assert!(strip.unwrap().success(), "the agent cannot be stripped");
    to
}

/// The agent as another build that speaks to another controller: of the same length, and with one
/// letter of the method's name changed.
fn mute(agent: &[u8]) -> Vec<u8> {
    let mut program = agent.to_vec();
    let places: Vec<usize> = (0..program.len() - METHOD.len())
        .filter(|at| program[*at..].starts_with(METHOD))
        .collect();
    assert!(!places.is_empty(), "the agent does not name its method");
    for at in places {
        program[at + METHOD.len() - 1] = b'x';
    }
    program
}

#[test]
fn a_release_takes_over_and_one_that_does_not_work_falls_back_by_itself() {
    let mut shed = Shed::start();
    let agent = std::fs::read(&shed.agent).unwrap();
    let samples = Arc::new(Samples::read(&activity().join("test.npz")).unwrap());
    let pid = shed.device.process_id().unwrap();

    // Another build: the same with something behind it.
    let newer = [&agent[..], b"another build"].concat();
    shed.publish("0.2.0", &newer);
    let asking = Steady::start(shed.device.client(), samples);
    shed.order("0.2.0");
    let told = shed.comes_to("confirmed");
    assert_eq!(told["running"], "0.2.0");
    assert_eq!(told["installed"], false);
    assert_eq!(shed.device.process_id(), Some(pid), "the process goes on");
    shed.device.wait_serving("activity").unwrap();
    let release = shed.runs();
    assert!(release.starts_with(shed.device.state_dir().join("agent")));
    let (runners, ended) = children(pid);
    assert_eq!(runners.len(), 1);
    assert_eq!(runners[0], release, "runners are of the same program");
    assert_eq!(ended, 0, "runners that ended were asked for");
    let stream = asking.finish().unwrap();
    println!(
        "while the agent was updated, {} of {} requests failed; the last: {:?}",
        stream.failed, stream.sent, stream.last_failure
    );
    let events = shed.controller.ok(&["get", "events"]).unwrap();
    assert!(events.contains("AgentUpdated"), "{events}");

    // A build that the controller does not understand.
    shed.publish("0.3.0", &mute(&agent));
    shed.order("0.3.0");
    let told = shed.comes_to("fell_back");
    assert_eq!(told["running"], "0.2.0");
    let why = told["why"].as_str().unwrap();
    assert!(why.contains("did not attach"), "{why}");
    assert_eq!(shed.device.process_id(), Some(pid), "by itself");
    shed.device.wait_serving("activity").unwrap();
    assert_eq!(shed.runs(), release);
    assert_eq!(shed.programs(), 1, "what fell back is not kept");

    // Programs that end at once: one is another program, one is torn.
    for (version, program) in [
        ("0.4.0", std::fs::read("/bin/false").unwrap()),
        ("0.5.0", agent[..8192].to_vec()),
    ] {
        shed.publish(version, &program);
        shed.order(version);
        let told = shed.comes_to("fell_back");
        assert_eq!(told["running"], "0.2.0");
        println!("{version}: {}", told["why"]);
        shed.device.wait_serving("activity").unwrap();
    }

    // Asked for again, it is tried again.
    shed.order("0.3.0");
    shed.comes_to("fell_back");
    assert_eq!(shed.record()["settled"]["order"], 5);

    // And back to what is installed, without another package.
    let args = ["agent", "update", "--device", NAME, "--installed"];
    shed.controller.ok(&args).unwrap();
    let told = shed.comes_to("confirmed");
    assert_eq!(told["installed"], true);
    shed.device.wait_serving("activity").unwrap();
    assert_eq!(shed.programs(), 0);
    let list = shed.controller.ok(&["agent", "list"]).unwrap();
    assert!(list.contains("0.5.0") && list.contains("x86_64"), "{list}");
}

#[test]
fn a_kill_in_the_middle_of_a_trial_counts_and_the_device_comes_back() {
    let mut shed = Shed::start();
    let agent = std::fs::read(&shed.agent).unwrap();
    shed.publish("0.2.0", &mute(&agent));
    shed.order("0.2.0");
    // Killed as soon as it is tried, as often as it has starts.
    for start in 1..=3 {
        wait::until("the release is tried", PATIENCE, || {
            let tried = shed.record()["trial"]["starts"] == start;
            let there = shed.runs().starts_with(shed.device.state_dir());
            Ok((tried && there).then_some(()))
        })
        .unwrap();
        shed.device.kill().unwrap();
        assert_eq!(shed.record()["trial"]["starts"], start);
        shed.device.run().unwrap();
    }
    let told = shed.comes_to("fell_back");
    assert_eq!(told["installed"], true);
    let why = told["why"].as_str().unwrap();
    assert!(why.contains("started 3 times"), "{why}");
    shed.device.wait_serving("activity").unwrap();
    // One that works survives a kill at any moment of its trial.
    shed.publish("0.3.0", &[&agent[..], b"good"].concat());
    shed.order("0.3.0");
    wait::until("the release is tried", PATIENCE, || {
        let record = shed.record();
        let tried = record["trial"]["starts"] == 1 || !record["confirmed"].is_null();
        Ok(tried.then_some(()))
    })
    .unwrap();
    shed.device.kill().unwrap();
    shed.device.run().unwrap();
    let told = shed.comes_to("confirmed");
    assert_eq!(told["running"], "0.3.0");
    shed.device.wait_serving("activity").unwrap();
}

#[test]
fn what_is_no_release_is_refused_with_one_clear_message() {
    let shed = Shed::start();
    let file = |name: &str, bytes: &[u8]| {
        let path = shed.dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let script = file("script", b"#!/bin/sh\n");
    let mut arm = std::fs::read(&shed.agent).unwrap();
    arm.truncate(4096);
    (arm[4], arm[18]) = (1, 40);
    let arm = file("arm", &arm);
    let large = shed.dir.path().join("large");
    std::fs::copy(&shed.agent, &large).unwrap();
    let open = std::fs::OpenOptions::new().write(true).open(&large);
    open.unwrap().set_len((64 << 20) + 1).unwrap();
    let large = large.display().to_string();
    let import = |files: &[&str], version: &str| {
        let args = [&["agent", "import"], files, &["--version", version]].concat();
        shed.controller.run(&args).unwrap()
    };
    for (files, version, want) in [
        (&[&script[..]][..], "0.2.0", "no ELF header"),
        (&[&large], "0.2.0", "at most 67108864"),
        (&[&arm, &arm], "0.2.0", "two of the files"),
        (&[&arm], "v2", "not a version of an agent"),
    ] {
        let said = import(files, version);
        assert_eq!(said.code, 2, "{}", said.err);
        assert!(said.err.contains(want), "{}", said.err);
    }
    assert_eq!(import(&[&arm], "0.2.0").code, 0);
    assert!(import(&[&arm], "0.2.0").err.contains("published already"));
    let update = |more: &[&str]| {
        let args = [&["agent", "update", "--version", "0.2.0"], more].concat();
        shed.controller.run(&args).unwrap()
    };
    let said = update(&["--device", NAME]);
    assert!(said.err.contains("has no program"), "{}", said.err);
    let said = update(&["--selector", "app=activity", "-o", "json"]);
    let doc: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(doc["ordered"], Value::Array(Vec::new()));
    assert_eq!(doc["passed_by"][0]["device"], NAME);
    let said = update(&["--device", "nobody"]);
    assert_eq!(said.code, 5, "{}", said.err);
    assert!(update(&[]).err.contains("--device"));
    assert!(shed.record().is_null(), "nothing reached the device");
}
