//! A device whose clock is wrong: it joins, connects and installs all the same, and goes on when the
//! clock is right again.
#![allow(clippy::unwrap_used)]

use sandpiper_e2e::activity;
use sandpiper_e2e::binaries::Binaries;
use sandpiper_e2e::controller::Controller;
use sandpiper_e2e::device::{Device, Hardware};
use sandpiper_e2e::traffic::Steady;
use sandpiper_testdata::Samples;
use std::sync::Arc;

/// More seconds than have passed since 1970.
const TO_1970: i64 = -100 * 365 * 86_400;
const FIFTY_YEARS: i64 = 50 * 365 * 86_400;

/// Publishes a version and has it rolled out until it counts as a success: it serves, answers, and
/// its telemetry was believed.
fn promoted(controller: &Controller, device: &mut Device, version: &str) {
    let file = activity().join("models/tiny-f32.onnx");
    controller
        .import(version, &[("tiny-f32", &file)], &[])
        .unwrap();
    let args = ["rollout", "start", "activity", "--version", version];
    controller
        .ok(&[&args[..], &["--bake", "1s", "--wave", "100%"]].concat())
        .unwrap();
    device.wait_serving("activity").unwrap();
    let samples = Arc::new(Samples::read(&activity().join("test.npz")).unwrap());
    let asking = Steady::start(device.client(), samples);
    let docs = controller.list("rollouts").unwrap();
    let name = docs.iter().find(|d| d["version"] == version).unwrap()["name"].clone();
    let name = name.as_str().unwrap();
    controller
        .ok(&["rollout", "status", name, "-w", "--timeout", "60s"])
        .unwrap();
    assert_eq!(asking.finish().unwrap().failed, 0);
}

fn reboot(device: &mut Device, clock: i64) {
    device.kill().unwrap();
    device.set_clock(clock).unwrap();
    device.run().unwrap();
    device.wait_serving("activity").unwrap();
}

#[test]
fn faults_8_and_9_a_clock_at_1970_or_50_years_ahead_keeps_a_device_from_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let binaries = Binaries::build("dev").unwrap();
    let controller = Controller::start(&binaries, dir.path()).unwrap();
    let mut device = Device::make(&binaries, dir.path(), Hardware::plain("timeless")).unwrap();
    device.set_clock(TO_1970).unwrap();
    let token = controller.token(&["app=activity".into()]).unwrap();
    device.join_and_run(&token).unwrap();
    controller.deploy("activity", "app=activity").unwrap();
    promoted(&controller, &mut device, "v1");
    reboot(&mut device, FIFTY_YEARS);
    promoted(&controller, &mut device, "v2");
    reboot(&mut device, 0);
    promoted(&controller, &mut device, "v3");
    reboot(&mut device, TO_1970);
    promoted(&controller, &mut device, "v4");
}
