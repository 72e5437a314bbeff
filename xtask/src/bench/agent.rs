//! `cargo xtask bench agent`: what an agent takes and how soon it answers, against the goals.

use super::goals::{Goal, Report};
use super::http::{Connection, Request};
use super::memory::{children, pss_bytes};
use super::provenance::Provenance;
use super::stats::{median, quantile};
use anyhow::{Context, Result, ensure};
use sandpiper_e2e::binaries::Binaries;
use sandpiper_e2e::controller::Controller;
use sandpiper_e2e::device::{Device, Hardware};
use sandpiper_e2e::traffic::MODEL;
use sandpiper_e2e::{activity, wait};
use sandpiper_testdata::Samples;
use std::path::Path;
use std::time::{Duration, Instant};

/// For what takes a device a few seconds: attach, install.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is done once after a start is over after this time.
const SETTLE: Duration = Duration::from_secs(3);
const MEMORY_SAMPLES: usize = 30;
const BETWEEN_SAMPLES: Duration = Duration::from_millis(100);
const WARM_UP_REQUESTS: usize = 500;
const REQUESTS: usize = 3000;
const STARTS: usize = 15;
/// Between two looks whether a started agent answers: bounds the error of that time.
const LOOK: Duration = Duration::from_micros(500);
const MIB: f64 = (1 << 20) as f64;

/// The goals, for the figures of an agent with one model.
const AT_REST_MIB: f64 = 5.0;
const SERVING_MIB: f64 = 12.0;
const HTTP_US: f64 = 200.0;
const START_MS: f64 = 100.0;

/// Builds with a profile of cargo, runs one fleet of one agent that serves `variant` of the
/// example, and measures.
///
/// # Errors
/// When something does not start, or does not answer.
pub(super) fn measure(profile: &str, variant: &str) -> Result<Report> {
    let file = activity().join(format!("models/{variant}.onnx"));
    ensure!(
        file.is_file(),
        "examples/activity has no variant `{variant}`"
    );
    super::say("building");
    let binaries = Binaries::build(profile)?;
    let provenance = Provenance::of(profile);
    let dir = tempfile::tempdir()?;
    let mut bench = Bench::start(&binaries, dir.path())?;
    let mut report = Report::new(
        provenance,
        &format!("one agent, serving activity/{variant}"),
    );
    super::say("at rest");
    let rest = bench.pss_at_rest()?;
    report.add(
        "agent at rest, PSS",
        "MiB",
        rest / MIB,
        Goal::Is(AT_REST_MIB),
    );
    super::say("installing a model");
    let planned = bench.install(variant, &file)?;
    let (json, binary) = requests()?;
    super::say("serving");
    let memory = bench.pss_serving(&binary)?;
    let goal = SERVING_MIB + planned / MIB;
    report.add(
        "serving one model, PSS",
        "MiB",
        (memory.agent + memory.runner) / MIB,
        Goal::Is(goal),
    );
    report.add("  of it the agent", "MiB", memory.agent / MIB, Goal::None);
    report.add("  of it the runner", "MiB", memory.runner / MIB, Goal::None);
    report.note(format!(
        "the goal while serving is {SERVING_MIB} MiB and the {:.2} MiB that the model was planned to take",
        planned / MIB
    ));
    for (name, request) in [("binary", &binary), ("JSON", &json)] {
        let times = bench.round_trips(request)?;
        let label = |p: &str| format!("HTTP round trip, {name}, {p}");
        report.add(&label("p50"), "us", median(&times), Goal::Is(HTTP_US));
        report.add(&label("p95"), "us", quantile(&times, 0.95), Goal::None);
    }
    super::say("starting again and again");
    let starts = bench.starts(&binary)?;
    let (p50, most) = (median(&starts), quantile(&starts, 1.0));
    report.add(
        "start to first answer, median",
        "ms",
        p50,
        Goal::Is(START_MS),
    );
    report.add("start to first answer, longest", "ms", most, Goal::None);
    Ok(report)
}

/// The first test window, as JSON and as binary tensors.
fn requests() -> Result<(Request, Request)> {
    let samples = Samples::read(&activity().join("test.npz"))?;
    let shape = [&[1], &samples.shape[1..]].concat();
    let x = samples.sample(0);
    Ok((
        Request::json(MODEL, "input", &shape, x),
        Request::binary(MODEL, "input", &shape, x),
    ))
}

struct Memory {
    agent: f64,
    runner: f64,
}

struct Bench {
    controller: Controller,
    device: Device,
}

impl Bench {
    fn start(binaries: &Binaries, dir: &Path) -> Result<Self> {
        let controller = Controller::start(binaries, dir)?;
        let token = controller.token(&["app=activity".to_owned()])?;
        let mut device = Device::make(binaries, dir, Hardware::plain("bench"))?;
        device.join_and_run(&token)?;
        wait::until("the agent is attached", PATIENCE, || {
            let docs = controller.list("devices")?;
            let attached = docs.iter().any(|d| d["connected"] == true);
            Ok(attached.then_some(()))
        })?;
        Ok(Self { controller, device })
    }

    fn pid(&self) -> Result<u32> {
        self.device.process_id().context("the agent does not run")
    }

    fn pss_at_rest(&self) -> Result<f64> {
        let pid = self.pid()?;
        std::thread::sleep(SETTLE);
        let mut samples = Vec::with_capacity(MEMORY_SAMPLES);
        for _ in 0..MEMORY_SAMPLES {
            std::thread::sleep(BETWEEN_SAMPLES);
            samples.push(pss_bytes(pid)? as f64);
        }
        ensure!(
            children(pid)?.is_empty(),
            "an agent without a model has a child"
        );
        Ok(median(&samples))
    }

    /// Publishes one variant and has the agent serve it; gives its planned memory in bytes.
    fn install(&mut self, variant: &str, file: &Path) -> Result<f64> {
        self.controller.import("v1", &[(variant, file)], &[])?;
        let selector = "app=activity";
        self.controller.ok(&[
            "deployment",
            "apply",
            MODEL,
            "--model",
            MODEL,
            "--selector",
            selector,
        ])?;
        self.controller.ok(&[
            "rollout",
            "start",
            MODEL,
            "--version",
            "v1",
            "--wave",
            "100%",
        ])?;
        self.device.wait_serving(MODEL)?;
        let docs = self.controller.list("variants")?;
        let doc = docs.first().context("no variant was published")?;
        let planned = doc["memory_bytes"].as_f64();
        planned.with_context(|| format!("no memory_bytes in {doc}"))
    }

    /// Asks between the samples, so that it is the memory of one that serves.
    fn pss_serving(&self, request: &Request) -> Result<Memory> {
        let pid = self.pid()?;
        let mut connection = Connection::open(&self.address()?)?;
        for _ in 0..WARM_UP_REQUESTS {
            connection.ask(request)?;
        }
        std::thread::sleep(SETTLE);
        let runners = children(pid)?;
        ensure!(
            runners.len() == 1,
            "the agent has {} children, not one runner",
            runners.len()
        );
        let (mut agent, mut runner) = (Vec::new(), Vec::new());
        for _ in 0..MEMORY_SAMPLES {
            std::thread::sleep(BETWEEN_SAMPLES);
            connection.ask(request)?;
            agent.push(pss_bytes(pid)? as f64);
            runner.push(pss_bytes(runners[0])? as f64);
        }
        Ok(Memory {
            agent: median(&agent),
            runner: median(&runner),
        })
    }

    /// Times of requests one after another, in microseconds.
    fn round_trips(&self, request: &Request) -> Result<Vec<f64>> {
        let mut connection = Connection::open(&self.address()?)?;
        let mut times = Vec::with_capacity(WARM_UP_REQUESTS + REQUESTS);
        for _ in 0..WARM_UP_REQUESTS + REQUESTS {
            let start = Instant::now();
            connection.ask(request)?;
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
        Ok(times.split_off(WARM_UP_REQUESTS))
    }

    /// Times from the start of a killed agent to its first inference, in milliseconds.
    fn starts(&mut self, request: &Request) -> Result<Vec<f64>> {
        let address = self.address()?;
        let mut times = Vec::with_capacity(STARTS);
        for _ in 0..STARTS {
            self.device.kill()?;
            let start = Instant::now();
            self.device.run()?;
            loop {
                let asked = Connection::open(&address).and_then(|mut c| c.ask(request));
                let error = match asked {
                    Ok(_) => break,
                    Err(error) => error,
                };
                ensure!(
                    start.elapsed() < PATIENCE,
                    "the agent does not answer: {error:#}\n{}",
                    self.device.log_tail()
                );
                std::thread::sleep(LOOK);
            }
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        Ok(times)
    }

    /// Where the agent serves, as its configuration says.
    fn address(&self) -> Result<String> {
        let text = std::fs::read_to_string(self.device.config())?;
        let line = text.lines().find_map(|l| l.strip_prefix("listen = "));
        let quoted = line.context("the agent's configuration has no listen address")?;
        Ok(quoted.trim_matches('"').to_owned())
    }
}
