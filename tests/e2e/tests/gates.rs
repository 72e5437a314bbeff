//! Bad versions that answer rightly: one is slow, one takes energy, one dies of some inputs. Each
//! is stopped in the first wave and taken back, with the figures, and no request fails.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use sandpiper_e2e::binaries::Binaries;
use sandpiper_e2e::board::Board;
use sandpiper_e2e::controller::Controller;
use sandpiper_e2e::device::{Device, Hardware, PATIENCE};
use sandpiper_e2e::traffic::{Question, Steady};
use sandpiper_e2e::vibration::{self, Build, MODEL};
use sandpiper_e2e::wait;
use serde_json::Value;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Rounds of the good version: some hundred microseconds.
const ROUNDS: u32 = 400;
/// Energy of an inference under the good version.
const COST_UJ: f64 = 1000.0;
/// Inferences of a device before the bad version comes.
const BEFORE: u64 = 600;
/// Time without requests in which a device learns its power at rest.
const REST: Duration = Duration::from_secs(12);

/// The tests measure latency: one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Two devices that serve v1, with sensors that find v2 `hungry` times as costly.
struct Fleet {
    controller: Controller,
    devices: Vec<(Device, Arc<Board>)>,
}

impl Fleet {
    fn start(dir: &Path, hungry: f64) -> Self {
        let binaries = Binaries::build("dev").unwrap();
        let controller = Controller::start(&binaries, dir).unwrap();
        let mut devices = Vec::new();
        for name in ["canary", "other"] {
            let hardware = Hardware {
                window_s: 3,
                ..Hardware::plain(name)
            };
            let mut device = Device::make(&binaries, dir, hardware).unwrap();
            let costs = [("v1", COST_UJ), ("v2", hungry * COST_UJ)];
            let board = Board::start(device.sysfs.root(), &costs).unwrap();
            let token = controller.token(&["app=vibration".into()]).unwrap();
            device.join_and_run(&token).unwrap();
            devices.push((device, Arc::new(board)));
        }
        Self {
            controller,
            devices,
        }
    }

    fn import(&self, dir: &Path, version: &str, build: Build) {
        let file = build.write(dir, version).unwrap();
        let variant = format!("plain={}", file.display());
        let args = ["model", "import", MODEL, "--version", version, "--variant"];
        let claim = ["--claim-accuracy", "plain=0.97"];
        self.controller
            .ok(&[&args[..], &[&variant], &claim].concat())
            .unwrap();
    }

    fn roll_out(&self, version: &str, more: &[&str]) -> String {
        let args = ["rollout", "start", MODEL, "--version", version];
        let times = ["--bake", "1s", "--deadline", "60s"];
        self.controller
            .ok(&[&args[..], &times, more].concat())
            .unwrap();
        let docs = self.controller.list("rollouts").unwrap();
        let doc = docs.iter().find(|d| d["version"] == version).unwrap();
        doc["name"].as_str().unwrap().to_owned()
    }

    fn ask(&self) -> Vec<Steady> {
        let ask = |(device, board): &(Device, Arc<Board>)| {
            let board = board.clone();
            let question: Question = Arc::new(move |client, index| {
                board.answered(&vibration::ask(client, index)?);
                Ok(true)
            });
            Steady::asking(device.client(), question)
        };
        self.devices.iter().map(ask).collect()
    }

    /// v1 everywhere, measured.
    fn settle(&mut self, dir: &Path) -> Vec<Steady> {
        self.import(
            dir,
            "v1",
            Build {
                rounds: ROUNDS,
                frail: false,
            },
        );
        let apply = ["deployment", "apply", MODEL, "--model", MODEL];
        let selector = ["--selector", "app=vibration"];
        self.controller
            .ok(&[&apply[..], &selector].concat())
            .unwrap();
        let first = self.roll_out("v1", &["--wave", "100%"]);
        for (device, _) in &mut self.devices {
            device.wait_serving(MODEL).unwrap();
        }
        std::thread::sleep(REST);
        let streams = self.ask();
        let wait = ["rollout", "status", &first, "-w", "--timeout", "60s"];
        self.controller.ok(&wait).unwrap();
        wait::until("v1 is measured", PATIENCE, || {
            let docs = self.controller.list("devices")?;
            let counts = docs
                .iter()
                .map(|d| &d["models"][0]["learned"]["inferences"]);
            let enough = counts.filter(|n| n.as_u64() >= Some(BEFORE)).count();
            Ok((enough == docs.len()).then_some(()))
        })
        .unwrap();
        streams
    }

    /// The end of a rollout that must go back: what it says of itself.
    fn taken_back(&self, rollout: &str, streams: Vec<Steady>) -> Value {
        let wait = ["rollout", "status", rollout, "-w", "--timeout", "90s"];
        let said = self.controller.run(&wait).unwrap();
        println!("{}", said.out);
        assert_eq!(said.code, 3, "{}\n{}", said.out, said.err);
        for stream in streams {
            let stream = stream.finish().unwrap();
            assert!(stream.sent > BEFORE);
            assert_eq!(stream.failed, 0, "{:?}", stream.last_failure);
        }
        let docs = self.controller.list("rollouts").unwrap();
        let doc = docs.iter().find(|d| d["name"] == rollout).unwrap().clone();
        assert_eq!(doc["state"]["state"], "rolled_back", "{doc}");
        let why = doc["state"]["why"].as_str().unwrap_or_default();
        assert!(why.starts_with("wave 1: "), "{doc}");
        for (device, _) in &self.devices {
            let name = &device.hardware.name;
            wait::until(&format!("{name} is on v1"), PATIENCE, || {
                let docs = self.controller.list("devices")?;
                let ours = docs.iter().find(|d| d["name"] == name.as_str());
                let version = ours.map(|d| d["models"][0]["status"]["serving"]["version"].clone());
                Ok(version.filter(|v| v == "v1"))
            })
            .unwrap();
        }
        doc
    }
}

/// A bad version in a rollout whose first wave is one device; gives its document.
fn bad(build: Build, hungry: f64, gates: &[&str]) -> Value {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let mut fleet = Fleet::start(dir.path(), hungry);
    let streams = fleet.settle(dir.path());
    fleet.import(dir.path(), "v2", build);
    let rollout = fleet.roll_out("v2", &[&["--wave", "1"], gates].concat());
    fleet.taken_back(&rollout, streams)
}

/// The reading of a gate.
fn reading<'a>(doc: &'a Value, metric: &str) -> &'a Value {
    let gates = doc["gates"].as_array().unwrap();
    gates.iter().find(|g| g["metric"] == metric).unwrap()
}

#[test]
fn a_slower_version_is_taken_back() {
    let slow = Build {
        rounds: ROUNDS * 8 / 5,
        frail: false,
    };
    let doc = bad(slow, 1.0, &["--max-latency-rise", "10"]);
    let reading = reading(&doc, "latency_p95");
    assert_eq!(reading["verdict"], "fail", "{doc}");
    assert!(reading["change"].as_f64().unwrap() > 10.0, "{reading}");
}

#[test]
fn a_hungrier_version_is_taken_back() {
    let same = Build {
        rounds: ROUNDS,
        frail: false,
    };
    let doc = bad(same, 1.3, &["--max-energy-rise", "10"]);
    let reading = reading(&doc, "energy");
    assert_eq!(reading["verdict"], "fail", "{doc}");
    let change = reading["change"].as_f64().unwrap();
    assert!((15.0..45.0).contains(&change), "{reading}");
}

#[test]
fn a_version_that_dies_of_some_inputs_is_taken_back() {
    let frail = Build {
        rounds: ROUNDS,
        frail: true,
    };
    let doc = bad(frail, 1.0, &["--max-trap-rise", "100"]);
    // The gate, or the device's own budget of restarts, whichever is told first.
    let gate = reading(&doc, "traps")["verdict"] == "fail";
    let why = doc["state"]["why"].as_str().unwrap();
    assert!(gate || why.contains("1 failed"), "{doc}");
}
