//! Bad versions: one is slow, one takes energy, one dies of some inputs, one answers NaN to some,
//! one always the same, one something else than the version before. Each is stopped in the first
//! wave and taken back, with the figures, and no request fails.
#![allow(clippy::unwrap_used)]

use sandpiper_e2e::board::Board;
use sandpiper_e2e::gated::{Fleet, reading};
use sandpiper_e2e::traffic::{self, Question};
use sandpiper_e2e::vibration::{self, Build, Flaw, MODEL};
use sandpiper_e2e::{activity, onnx};
use sandpiper_testdata::Samples;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Rounds of the good version: some hundred microseconds.
const ROUNDS: u32 = 400;
/// Rounds of the slow version. What a busy machine adds to the 95th percentile of both versions must
/// not hide it: once, 1.6 times the rounds were +21 % (+5 to +33).
const SLOW: u32 = 8 * ROUNDS;
/// Energy of an inference under the good version.
const COST_UJ: f64 = 1000.0;
/// Time without requests in which a device learns its power at rest.
const REST: Duration = Duration::from_secs(12);

const GOOD: Build = Build {
    rounds: ROUNDS,
    flaw: Flaw::None,
};

/// The tests measure latency: one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn import(fleet: &Fleet, dir: &Path, version: &str, build: Build) {
    let file = build.write(dir, version).unwrap();
    let variant = format!("plain={}", file.display());
    let args = ["model", "import", MODEL, "--version", version, "--variant"];
    let claim = ["--claim-accuracy", "plain=0.97"];
    let all = [&args[..], &[&variant], &claim].concat();
    fleet.controller.ok(&all).unwrap();
}

/// A bad version in a rollout whose first wave is one device; gives its document. Sensors find v2
/// `hungry` times as costly.
fn bad(build: Build, hungry: f64, gates: &[&str]) -> Value {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let costs = [("v1", COST_UJ), ("v2", hungry * COST_UJ)];
    let ask = |device: &sandpiper_e2e::device::Device| -> anyhow::Result<Question> {
        let board = Arc::new(Board::start(device.sysfs.root(), &costs)?);
        Ok(Arc::new(move |client, index| {
            board.answered(&vibration::ask(client, index)?);
            Ok(true)
        }))
    };
    let mut fleet = Fleet::start(dir.path(), MODEL, ask).unwrap();
    import(&fleet, dir.path(), "v1", GOOD);
    let streams = fleet.settle(REST).unwrap();
    import(&fleet, dir.path(), "v2", build);
    let gates = [&["--wave", "1"], gates].concat();
    let rollout = fleet.roll_out("v2", &gates).unwrap();
    fleet.taken_back(&rollout, streams).unwrap()
}

#[test]
fn a_slower_version_is_taken_back() {
    let slow = Build {
        rounds: SLOW,
        ..GOOD
    };
    let doc = bad(slow, 1.0, &["--max-latency-rise", "10"]);
    let reading = reading(&doc, "latency_p95").unwrap();
    assert_eq!(reading["verdict"], "fail", "{doc}");
    assert!(reading["change"].as_f64().unwrap() > 10.0, "{reading}");
}

#[test]
fn a_hungrier_version_is_taken_back() {
    let doc = bad(GOOD, 1.3, &["--max-energy-rise", "10"]);
    let reading = reading(&doc, "energy").unwrap();
    assert_eq!(reading["verdict"], "fail", "{doc}");
    let change = reading["change"].as_f64().unwrap();
    assert!((15.0..45.0).contains(&change), "{reading}");
}

#[test]
fn a_version_that_dies_of_some_inputs_is_taken_back() {
    let frail = Build {
        flaw: Flaw::Dies,
        ..GOOD
    };
    let doc = bad(frail, 1.0, &["--max-trap-rise", "100"]);
    // The gate, or the device's own budget of restarts, whichever is told first.
    let gate = reading(&doc, "traps").unwrap()["verdict"] == "fail";
    let why = doc["state"]["why"].as_str().unwrap();
    assert!(gate || why.contains("1 failed"), "{doc}");
}

#[test]
fn a_version_that_answers_nan_to_some_inputs_is_taken_back() {
    let broken = Build {
        flaw: Flaw::Nan,
        ..GOOD
    };
    // Every answer that the programs got was right: the version before gave those.
    let doc = bad(broken, 1.0, &["--max-nan-rise", "20"]);
    let reading = reading(&doc, "nonfinite").unwrap();
    assert_eq!(reading["verdict"], "fail", "{doc}");
    assert!(reading["change"].as_f64().unwrap() > 100.0, "{reading}");
    let why = doc["state"]["why"].as_str().unwrap();
    assert!(why.contains("NaN or infinite outputs: fail, +"), "{doc}");
}

/// The example with `v1` of one file and `v2` of another.
struct Example {
    dir: tempfile::TempDir,
    v1: PathBuf,
}

impl Example {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            v1: activity().join("models/small-f32.onnx"),
        }
    }

    /// The file of v1 with other weights.
    fn changed(&self, change: impl FnMut(&mut [f32])) -> PathBuf {
        let model = std::fs::read(&self.v1).unwrap();
        let file = self.dir.path().join("v2.onnx");
        std::fs::write(&file, onnx::with_weights(&model, change).unwrap()).unwrap();
        file
    }

    /// A fleet that serves v1, and the rollout of this file.
    fn roll_out<T>(
        &self,
        v2: &Path,
        gates: &[&str],
        end: impl FnOnce(&Fleet, &str, Vec<traffic::Steady>) -> T,
    ) -> T {
        let _alone = alone();
        let samples = Arc::new(Samples::read(&activity().join("test.npz")).unwrap());
        let ask = |_: &_| Ok(traffic::activity(samples.clone()));
        let mut fleet = Fleet::start(self.dir.path(), traffic::MODEL, ask).unwrap();
        let import = |version, file| {
            let imported = fleet.controller.import(version, &[("one", file)], &[]);
            imported.unwrap();
        };
        import("v1", &self.v1);
        import("v2", v2);
        let streams = fleet.settle(Duration::ZERO).unwrap();
        let gates = [&["--wave", "1"], gates].concat();
        let rollout = fleet.roll_out("v2", &gates).unwrap();
        end(&fleet, &rollout, streams)
    }

    fn taken_back(&self, v2: &Path, gates: &[&str]) -> Value {
        self.roll_out(v2, gates, |fleet, rollout, streams| {
            fleet.taken_back(rollout, streams).unwrap()
        })
    }
}

#[test]
fn a_version_that_always_answers_the_same_is_taken_back() {
    let example = Example::new();
    let v2 = example.changed(|weights| weights.fill(0.0));
    let doc = example.taken_back(&v2, &["--max-constant-rise", "200"]);
    let reading = reading(&doc, "constant").unwrap();
    assert_eq!(reading["verdict"], "fail", "{doc}");
    assert!(reading["change"].as_f64().unwrap() > 900.0, "{reading}");
}

#[test]
fn a_version_that_disagrees_with_the_one_before_is_taken_back() {
    let example = Example::new();
    // The six biases of the last layer, one for each class: the first class wins too often.
    let v2 = example.changed(|weights| {
        if let [first, _, _, _, _, _] = weights {
            *first += 8.0;
        }
    });
    let gates = ["--max-disagreement", "10", "--max-class-shift", "90"];
    let doc = example.taken_back(&v2, &gates);
    let reading = reading(&doc, "disagreement").unwrap();
    assert_eq!(reading["verdict"], "fail", "{doc}");
    let why = doc["state"]["why"].as_str().unwrap();
    assert!(why.contains("compared"), "{doc}");
}

#[test]
fn a_version_of_another_arithmetic_that_agrees_is_promoted() {
    let example = Example::new();
    let v2 = activity().join("models/small-int8.onnx");
    let doc = example.roll_out(
        &v2,
        &["--max-disagreement", "15"],
        |fleet, name, streams| fleet.ended(name, 0, streams).unwrap(),
    );
    assert_eq!(doc["state"]["state"], "promoted", "{doc}");
    let reading = reading(&doc, "disagreement").unwrap();
    assert_eq!(reading["verdict"], "pass", "{doc}");
    assert!(reading["inferences"].as_u64() >= Some(20), "{reading}");
}
