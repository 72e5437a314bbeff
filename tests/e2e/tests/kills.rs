//! The agent is killed at any time while it installs, again and again: what it serves is the old or
//! the new version, never neither, and in the end the new one.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use sandpiper_e2e::binaries::Binaries;
use sandpiper_e2e::controller::Controller;
use sandpiper_e2e::device::{Device, Hardware, PATIENCE};
use sandpiper_e2e::relay::Relay;
use sandpiper_e2e::traffic::Steady;
use sandpiper_e2e::{activity, wait};
use sandpiper_testdata::Samples;
use std::sync::Arc;
use std::time::Duration;

/// Kills during each installation.
const KILLS: u32 = 12;
/// Longest life of an agent before it is killed, in milliseconds.
const LONGEST_MS: u64 = 900;

/// A generator of numbers that a seed determines (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

fn import(controller: &Controller, version: &str, size: &str) {
    let file = activity().join(format!("models/{size}-f32.onnx"));
    let variant = format!("{size}-f32");
    controller
        .import(version, &[(&variant, &file)], &[])
        .unwrap();
}

fn start(controller: &Controller, version: &str) {
    let args = ["rollout", "start", "activity", "--version", version];
    let more = ["--bake", "1s", "--wave", "100%", "--deadline", "10m"];
    controller.ok(&[&args[..], &more[..]].concat()).unwrap();
}

/// Generation of the assignment that the agent has written down.
fn generation(device: &Device) -> u64 {
    let text = std::fs::read(device.state_dir().join("state.json")).unwrap_or_default();
    let state: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    state["generation"].as_u64().unwrap_or(0)
}

/// One answer, and the version that gave it.
fn answered(device: &Device, samples: &Samples) -> String {
    let shape = [&[1], &samples.shape[1..]].concat();
    let ask = || {
        let answer = device
            .client()
            .infer("activity", "input", &shape, samples.sample(0));
        let answer = answer.ok()?;
        assert!(answer.values.iter().all(|v| v.is_finite()));
        Some(answer.version)
    };
    wait::until("a version answers", PATIENCE, || Ok(ask())).unwrap()
}

#[test]
fn an_agent_that_is_killed_while_it_installs_serves_the_old_or_the_new_version() {
    let dir = tempfile::tempdir().unwrap();
    let binaries = Binaries::build("dev").unwrap();
    let samples = Samples::read(&activity().join("test.npz")).unwrap();
    let controller = Controller::start(&binaries, dir.path()).unwrap();
    let mut device = Device::make(&binaries, dir.path(), Hardware::plain("mortal")).unwrap();
    let token = controller.token(&["app=activity".into()]).unwrap();
    device.join_and_run(&token).unwrap();
    import(&controller, "v1", "tiny");
    let selector = "app=activity";
    controller.deploy("activity", selector).unwrap();
    start(&controller, "v1");
    device.wait_serving("activity").unwrap();
    assert_eq!(answered(&device, &samples), "v1");
    device.kill().unwrap();
    // Slow enough that downloads are cut too.
    let relay = Relay::start(&device.controller_address().unwrap(), 400_000).unwrap();
    device.reroute(relay.address()).unwrap();
    device.run().unwrap();

    let (mut dice, mut kills, mut floor) = (Dice(2026), 0, 0);
    let mut seen = Vec::new();
    for (old, new, size) in [("v1", "v2", "large"), ("v2", "v3", "small")] {
        import(&controller, new, size);
        start(&controller, new);
        for _ in 0..KILLS {
            std::thread::sleep(Duration::from_millis(dice.below(LONGEST_MS)));
            device.kill().unwrap();
            let kept = generation(&device);
            assert!(kept >= floor, "generation {kept} after {floor}");
            floor = kept;
            device.run().unwrap();
            let version = answered(&device, &samples);
            assert!(version == old || version == new, "{version} serves");
            seen.push(version);
            kills += 1;
        }
        wait::until("the new version serves", PATIENCE, || {
            Ok((answered(&device, &samples) == new).then_some(()))
        })
        .unwrap();
        let asking = Steady::start(device.client(), Arc::new(samples.clone()));
        let docs = controller.list("rollouts").unwrap();
        let name = docs.iter().find(|d| d["version"] == new).unwrap()["name"].clone();
        let name = name.as_str().unwrap();
        controller
            .ok(&["rollout", "status", name, "-w", "--timeout", "60s"])
            .unwrap();
        assert_eq!(asking.finish().unwrap().failed, 0);
    }
    println!("{kills} kills; after each one served: {}", seen.join(" "));
}
