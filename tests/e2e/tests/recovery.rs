//! Power cuts: what was served goes on, what was acknowledged stays.
#![allow(clippy::unwrap_used)]

use sandpiper_e2e::binaries::Binaries;
use sandpiper_e2e::controller::Controller;
use sandpiper_e2e::device::{Device, Hardware, PATIENCE};
use sandpiper_e2e::npz::Samples;
use sandpiper_e2e::{activity, wait};
use serde_json::Value;
use std::path::Path;

/// A fleet in which `devices` serve `activity` v1.
fn serving(binaries: &Binaries, dir: &Path, devices: &[&str]) -> (Controller, Vec<Device>) {
    let controller = Controller::start(binaries, dir).unwrap();
    let mut made = Vec::new();
    for name in devices {
        let mut device = Device::make(binaries, dir, Hardware::plain(name)).unwrap();
        device
            .join_and_run(&controller.token(&["app=activity".into()]).unwrap())
            .unwrap();
        made.push(device);
    }
    import(&controller, "v1", "tiny");
    controller
        .ok(&[
            "deployment",
            "apply",
            "activity",
            "--model",
            "activity",
            "--selector",
            "app=activity",
        ])
        .unwrap();
    start(&controller, "v1", &["--wave", "100%"]);
    for device in &mut made {
        device.wait_serving("activity").unwrap();
    }
    (controller, made)
}

fn import(controller: &Controller, version: &str, size: &str) {
    let file = activity().join(format!("models/{size}-f32.onnx"));
    controller
        .import(version, &[(&format!("{size}-f32"), &file)], &[])
        .unwrap();
}

fn start(controller: &Controller, version: &str, more: &[&str]) {
    let args = [
        "rollout",
        "start",
        "activity",
        "--version",
        version,
        "--bake",
        "1s",
    ];
    controller.ok(&[&args, more].concat()).unwrap();
}

fn rollout(controller: &Controller, version: &str) -> Value {
    let docs = controller.list("rollouts").unwrap();
    docs.into_iter().find(|d| d["version"] == version).unwrap()
}

#[test]
fn a_rollout_goes_on_after_the_controller_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let binaries = Binaries::build("dev").unwrap();
    let (mut controller, devices) = serving(&binaries, dir.path(), &["a", "b"]);
    import(&controller, "v2", "small");
    start(&controller, "v2", &["--waves", "2", "--deadline", "60s"]);
    let before = rollout(&controller, "v2");
    controller.kill().unwrap();
    controller.serve().unwrap();
    let name = before["name"].as_str().unwrap();
    controller
        .ok(&["rollout", "status", name, "-w", "--timeout", "60s"])
        .unwrap();
    assert_eq!(
        rollout(&controller, "v2")["name"],
        before["name"],
        "it was begun anew"
    );
    let docs = controller.list("devices").unwrap();
    assert_eq!(docs.len(), devices.len());
    for doc in docs {
        assert_eq!(
            doc["models"][0]["status"]["serving"]["version"], "v2",
            "{doc}"
        );
        // One assignment for v1 and one for v2: nothing was assigned twice.
        assert_eq!(doc["generation"], 2, "{doc}");
    }
}

#[test]
fn an_agent_without_its_controller_boots_into_the_last_good_model() {
    let dir = tempfile::tempdir().unwrap();
    let binaries = Binaries::build("dev").unwrap();
    let (mut controller, mut devices) = serving(&binaries, dir.path(), &["lonely"]);
    let device = &mut devices[0];
    controller.kill().unwrap();
    device.kill().unwrap();
    device.run().unwrap();
    device.wait_serving("activity").unwrap();
    let samples = Samples::read(&activity().join("test.npz")).unwrap();
    let sent = 40;
    for index in 0..sent {
        let answer =
            device
                .client()
                .infer("activity", "input", &[1, 6, 128], samples.sample(index));
        assert_eq!(answer.unwrap().version, "v1");
    }
    controller.serve().unwrap();
    let reported = |controller: &Controller| -> u64 {
        let docs = controller.list("devices").unwrap();
        docs[0]["models"][0]["learned"]["inferences"]
            .as_u64()
            .unwrap_or(0)
    };
    wait::until("telemetry is back-filled", PATIENCE, || {
        Ok((reported(&controller) >= sent as u64).then_some(()))
    })
    .unwrap();
    // Once and not twice: windows have identities, so a second attach adds nothing.
    let before = reported(&controller);
    device.kill().unwrap();
    device.run().unwrap();
    device.wait_serving("activity").unwrap();
    wait::until("the device is attached again", PATIENCE, || {
        Ok(controller.list("devices")?[0]["connected"]
            .as_bool()
            .filter(|c| *c))
    })
    .unwrap();
    assert_eq!(reported(&controller), before);
}
