//! A rollout by a policy file, with real programs: the lab first, then the word of an operator, then
//! a device whose window is shut.
#![allow(clippy::unwrap_used)]

use sandpiper_e2e::binaries::Binaries;
use sandpiper_e2e::controller::Controller;
use sandpiper_e2e::device::{Device, Hardware, PATIENCE};
use sandpiper_e2e::traffic::{Question, Steady};
use sandpiper_e2e::vibration::{self, Build, Flaw, MODEL};
use sandpiper_e2e::wait;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// A window of eight hours in UTC around now, in which twelve hours east it is another time of the
/// day.
fn around_now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let hour = since.as_secs() / 3_600 % 24;
    format!("{:02}:00-{:02}:30", (hour + 20) % 24, (hour + 4) % 24)
}

fn device(
    controller: &Controller,
    binaries: &Binaries,
    dir: &Path,
    name: &str,
    zone: &str,
) -> Device {
    let mut device = Device::make(binaries, dir, Hardware::plain(name)).unwrap();
    let labels = [
        "app=vibration".to_owned(),
        format!("site={name}"),
        format!("time-zone={zone}"),
    ];
    let token = controller.token(&labels).unwrap();
    device.join_and_run(&token).unwrap();
    device
}

fn rollout(controller: &Controller) -> Value {
    let docs = controller.list("rollouts").unwrap();
    docs.into_iter().next().unwrap()
}

/// Where a device stands in the rollout, once it is there.
fn stands(controller: &Controller, name: &str, word: &str) -> Value {
    wait::until(&format!("{name} is {word}"), PATIENCE, || {
        let doc = rollout(controller);
        let devices = doc["devices"].as_array().cloned().unwrap_or_default();
        let ours = devices.into_iter().find(|d| d["device"] == name);
        Ok(ours
            .map(|d| d["progress"].clone())
            .filter(|p| p["state"] == word))
    })
    .unwrap()
}

#[test]
fn the_lab_goes_first_an_operator_lets_the_rest_follow_and_a_shut_window_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    let binaries = Binaries::build("dev").unwrap();
    let controller = Controller::start(&binaries, dir.path()).unwrap();
    let mut lab = device(&controller, &binaries, dir.path(), "lab", "UTC");
    let shop = device(&controller, &binaries, dir.path(), "shop", "+12:00");
    let build = Build {
        rounds: 1,
        flaw: Flaw::None,
    };
    let variant = format!("plain={}", build.write(dir.path(), "v1").unwrap().display());
    let import = ["model", "import", MODEL, "--version", "v1", "--variant"];
    let claim = ["--claim-accuracy", "plain=0.97"];
    let args = [&import[..], &[&variant], &claim].concat();
    controller.ok(&args).unwrap();
    controller.deploy(MODEL, "app=vibration").unwrap();

    // A policy with two mistakes is refused with both, and nothing begins.
    let policy = dir.path().join("policy.yaml");
    let file = policy.display().to_string();
    let start = [
        "rollout",
        "start",
        MODEL,
        "--version",
        "v1",
        "--policy",
        &file,
    ];
    std::fs::write(&policy, "windows: {switch: [noon]}\nbake: 1\n").unwrap();
    let said = controller.run(&start).unwrap();
    assert_eq!(said.code, 2, "{}", said.err);
    assert!(
        said.err.contains("windows.switch[1]: `noon` is no window"),
        "{}",
        said.err
    );
    assert!(said.err.contains("bake: unknown field"), "{}", said.err);
    assert!(controller.list("rollouts").unwrap().is_empty());

    let text = format!(
        "waves: [{{selector: 'site=lab'}}]\n\
         approval: {{waves: after-first, by: [admin]}}\n\
         windows: {{switch: ['{}']}}\n\
         bandwidth: {{bytes_per_s: 100000000}}\n\
         bake_s: 1\n\
         wave_deadline_s: 120\n",
        around_now()
    );
    std::fs::write(&policy, text).unwrap();
    controller.ok(&start).unwrap();
    lab.wait_serving(MODEL).unwrap();
    let question: Question = Arc::new(|client, index| {
        vibration::ask(client, index)?;
        Ok(true)
    });
    let stream = Steady::asking(lab.client(), question);
    wait::until("the lab has succeeded", PATIENCE, || {
        let state = rollout(&controller)["state"]["state"].clone();
        Ok((state == "awaiting_approval").then_some(()))
    })
    .unwrap();
    assert_eq!(stands(&controller, "shop", "waiting")["state"], "waiting");
    let name = rollout(&controller)["name"].as_str().unwrap().to_owned();
    let status = controller.ok(&["rollout", "status", &name]).unwrap();
    let waits = "until admin approves it: sandpiper rollout approve";
    assert!(status.contains(waits), "{status}");
    let approve = [
        "rollout",
        "approve",
        MODEL,
        "--because",
        "it runs in the lab",
    ];
    controller.ok(&approve).unwrap();

    // It fetches ahead, and waits with everything on its disk.
    let parked = stands(&controller, "shop", "parked");
    assert_eq!(parked["wait"], "switch", "{parked}");
    let status = controller.ok(&["rollout", "status", &name]).unwrap();
    assert!(
        status.contains("has all, its switch window opens"),
        "{status}"
    );
    let explain = ["explain", "device/shop", "--model", MODEL];
    let explained = controller.ok(&explain).unwrap();
    assert!(explained.contains("wave 2: parked: has all"), "{explained}");
    assert!(explained.contains("(+12:00)"), "{explained}");
    assert!(
        shop.client()
            .infer(MODEL, "samples", &[1, 256], &[0.0; 256])
            .is_err()
    );
    let history = controller.ok(&["rollout", "history", &name]).unwrap();
    assert!(history.contains("it runs in the lab"), "{history}");

    // Going back waits for no window.
    controller.ok(&["rollout", "abort", &name]).unwrap();
    let wait = ["rollout", "status", &name, "-w", "--timeout", "60s"];
    assert_eq!(controller.run(&wait).unwrap().code, 3);
    let asked = stream.finish().unwrap();
    assert!(asked.sent > 0, "the lab was asked");
}
