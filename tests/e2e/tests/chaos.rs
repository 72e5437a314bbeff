//! The real programs under faults: a rollout with live requests, over connections that stall and
//! end, while agents and the controller are killed again and again. What happens when, a seed says:
//! `SANDPIPER_SEED` gives another one.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use sandpiper_e2e::binaries::Binaries;
use sandpiper_e2e::controller::Controller;
use sandpiper_e2e::device::{Device, Hardware, PATIENCE};
use sandpiper_e2e::relay::{Dice, Relay, Weather};
use sandpiper_e2e::traffic::{self, MODEL, Question, Steady};
use sandpiper_e2e::{activity, wait};
use sandpiper_testdata::Samples;
use serde_json::Value;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const DEVICES: usize = 3;
/// Kills of a run.
const KILLS: u64 = 10;
/// Pause of a program whose agent is down.
const AWAY: Duration = Duration::from_millis(20);
/// Longest pause between two kills, and longest time that the controller is away, in milliseconds.
const PAUSE_MS: u64 = 1_500;
/// Set in the process that runs in a network namespace of its own.
const INSIDE: &str = "SANDPIPER_IN_NAMESPACE";
/// What the kernel does to every packet there.
const NETEM: &str = "delay 10ms 10ms loss 1% duplicate 1% reorder 5% 25%";

fn seed() -> u64 {
    let given = std::env::var("SANDPIPER_SEED").ok();
    given.and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

/// A device with what its program must know: an odd number while the agent is down.
struct Watched {
    device: Device,
    lives: Arc<AtomicU64>,
    answers: Arc<AtomicU64>,
    relay: Option<Relay>,
}

impl Watched {
    fn ask(&self, samples: &Arc<Samples>) -> Steady {
        let question = traffic::activity(samples.clone());
        let (lives, answers) = (self.lives.clone(), self.answers.clone());
        let known = Mutex::new((0, self.device.client()));
        let watched: Question = Arc::new(move |_, index| {
            let before = lives.load(Ordering::SeqCst);
            if before % 2 == 1 {
                std::thread::sleep(AWAY);
                return Ok(true);
            }
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.0 != before {
                *known = (before, known.1.anew());
            }
            let answer = question(&known.1, index);
            if answer.is_err() && lives.load(Ordering::SeqCst) != before {
                // It was killed over this request.
                return Ok(true);
            }
            answers.fetch_add(u64::from(answer.is_ok()), Ordering::SeqCst);
            answer
        });
        Steady::asking(self.device.client(), watched)
    }

    /// The power goes and comes.
    fn cut(&mut self) {
        self.lives.fetch_add(1, Ordering::SeqCst);
        self.device.kill().unwrap();
        self.device.run().unwrap();
        self.device.wait_serving(MODEL).unwrap();
        self.lives.fetch_add(1, Ordering::SeqCst);
    }
}

fn start(controller: &Controller, version: &str, size: &str, waves: &str) -> String {
    let file = activity().join(format!("models/{size}-f32.onnx"));
    let variant = format!("{size}-f32");
    controller
        .import(version, &[(&variant, &file)], &[])
        .unwrap();
    let args = ["rollout", "start", MODEL, "--version", version];
    let more = ["--bake", "1s", "--deadline", "120s", "--waves", waves];
    controller.ok(&[&args[..], &more].concat()).unwrap();
    let doc = rollout(controller, version);
    doc["name"].as_str().unwrap().to_owned()
}

fn rollout(controller: &Controller, version: &str) -> Value {
    let docs = controller.list("rollouts").unwrap();
    docs.into_iter().find(|d| d["version"] == version).unwrap()
}

fn storm(weather: Option<Weather>) {
    let seed = seed();
    println!("seed {seed}");
    let dir = tempfile::tempdir().unwrap();
    let binaries = Binaries::build("dev").unwrap();
    let mut controller = Controller::start(&binaries, dir.path()).unwrap();
    let mut fleet: Vec<Watched> = (0..DEVICES)
        .map(|number| {
            let hardware = Hardware::plain(&format!("pi-{number}"));
            let mut device = Device::make(&binaries, dir.path(), hardware).unwrap();
            let token = controller.token(&["app=activity".into()]).unwrap();
            assert!(device.join(&token).unwrap().status.success());
            let relay = weather.map(|weather| {
                let address = device.controller_address().unwrap();
                let seed = weather.seed + number as u64;
                let relay = Relay::in_weather(&address, Weather { seed, ..weather }).unwrap();
                device.reroute(relay.address()).unwrap();
                relay
            });
            device.run().unwrap();
            Watched {
                device,
                lives: Arc::default(),
                answers: Arc::default(),
                relay,
            }
        })
        .collect();
    controller.deploy(MODEL, "app=activity").unwrap();
    wait::until("all devices are attached", PATIENCE, || {
        let docs = controller.list("devices")?;
        let there = docs.iter().filter(|d| d["connected"] == true).count();
        Ok((there == DEVICES).then_some(()))
    })
    .unwrap();
    let first = start(&controller, "v1", "tiny", "1");
    for watched in &mut fleet {
        watched.device.wait_serving(MODEL).unwrap();
    }
    let samples = Arc::new(Samples::read(&activity().join("test.npz")).unwrap());
    let programs: Vec<_> = fleet.iter().map(|w| w.ask(&samples)).collect();
    let status = ["rollout", "status", &first, "-w", "--timeout", "120s"];
    controller.ok(&status).unwrap();

    let second = start(&controller, "v2", "small", "2");
    let mut dice = Dice::new(seed, 0);
    let mut killed = [0; 2];
    for _ in 0..KILLS {
        std::thread::sleep(Duration::from_millis(dice.below(PAUSE_MS)));
        // One of the agents or the controller.
        let victim = dice.below(DEVICES as u64 + 2) as usize;
        match fleet.get_mut(victim) {
            Some(watched) => watched.cut(),
            None => {
                controller.kill().unwrap();
                std::thread::sleep(Duration::from_millis(dice.below(PAUSE_MS)));
                controller.serve().unwrap();
            }
        }
        killed[usize::from(victim >= DEVICES)] += 1;
    }
    let relays = fleet.iter().filter_map(|w| w.relay.as_ref());
    relays.for_each(Relay::calm);
    // It ends: well, or taken back, but not never.
    let ended = wait::until("the rollout ends", 3 * PATIENCE, || {
        let doc = rollout(&controller, "v2");
        let state = doc["state"]["state"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        Ok(["promoted", "rolled_back"]
            .contains(&state.as_str())
            .then_some(state))
    })
    .unwrap();
    let resets: u64 = fleet
        .iter()
        .filter_map(|w| Some(w.relay.as_ref()?.resets()))
        .sum();
    let [agents, controllers] = killed;
    println!(
        "{second}: {ended}, {agents} agents and {controllers} controllers killed, {resets} connections ended"
    );
    let version = if ended == "promoted" { "v2" } else { "v1" };
    wait::until("everybody agrees", PATIENCE, || {
        let docs = controller.list("devices")?;
        let serves = |d: &&Value| d["models"][0]["status"]["serving"]["version"] == version;
        Ok((docs.iter().filter(serves).count() == DEVICES).then_some(()))
    })
    .unwrap();
    for (watched, program) in fleet.iter().zip(programs) {
        let stream = program.finish().unwrap();
        let answers = watched.answers.load(Ordering::SeqCst);
        println!("{}: {answers} answers", watched.device.hardware.name);
        assert!(answers > 100, "{answers} answers");
        assert_eq!(stream.failed, 0, "{:?}", stream.last_failure);
    }
    assert!(
        agents > 0 && controllers > 0,
        "seed {seed} kills only one kind"
    );
}

/// Over TCP connections that a relay makes late, lets stall and ends.
#[test]
fn a_rollout_ends_and_no_request_fails_though_everything_is_killed_over_bad_connections() {
    storm(Some(Weather {
        bytes_per_s: 0,
        delay_ms: 40,
        stalls: 30,
        resets: 15,
        seed: seed(),
    }));
}

/// The same in a network namespace of its own, where the kernel loses, doubles, delays and reorders
/// packets.
#[test]
fn a_rollout_ends_and_no_request_fails_over_packets_that_are_lost_doubled_and_reordered() {
    if std::env::var_os(INSIDE).is_some() {
        return storm(None);
    }
    let prepare = format!("ip link set lo up && tc qdisc add dev lo root netem {NETEM}");
    let unshared = |then: &str| {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", &format!("{prepare} && {then}")]);
        command
    };
    let able = unshared("true").output();
    if !able.is_ok_and(|output| output.status.success()) {
        println!("skipped: no network namespace with netem can be made here");
        return;
    }
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    let mut inside = unshared("exec \"$0\" --exact \"$1\" --nocapture");
    inside.arg(std::env::current_exe().unwrap()).arg(name);
    assert!(inside.env(INSIDE, "1").status().unwrap().success());
}
