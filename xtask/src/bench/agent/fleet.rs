//! A fleet of one agent, and what is read off it.

use crate::bench::http::{Connection, Request};
use crate::bench::memory::{Used, children, pss_bytes};
use crate::bench::stats::median;
use anyhow::{Context, Result, ensure};
use sandpiper_e2e::binaries::Binaries;
use sandpiper_e2e::controller::Controller;
use sandpiper_e2e::device::{Device, Hardware};
use sandpiper_e2e::{activity, wait};
use sandpiper_testdata::Samples;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// For what takes a device a few seconds: attach, install.
const PATIENCE: Duration = Duration::from_secs(60);
/// What is done once after a start is over after this time: threads that waited for the disk have
/// ended too.
const SETTLE: Duration = Duration::from_secs(15);
const MEMORY_SAMPLES: usize = 30;
const BETWEEN_SAMPLES: Duration = Duration::from_millis(100);
const WARM_UP_REQUESTS: usize = 500;
const REQUESTS: usize = 3000;
const STARTS: usize = 15;
/// Between two looks whether a started agent answers: bounds the error of that time.
const LOOK: Duration = Duration::from_micros(500);

/// The first test window, as JSON or as binary tensors, for a model.
pub(super) fn request(model: &str, binary: bool) -> Result<Request> {
    let samples = Samples::read(&activity().join("test.npz"))?;
    let shape = [&[1], &samples.shape[1..]].concat();
    let x = samples.sample(0);
    Ok(match binary {
        true => Request::binary(model, "input", &shape, x),
        false => Request::json(model, "input", &shape, x),
    })
}

/// Proportional set sizes in bytes.
pub(super) struct Memory {
    pub(super) agent: f64,
    /// Of each runner.
    pub(super) runners: Vec<f64>,
}

/// What an agent used in some time.
pub(super) struct Rest {
    pub(super) seconds: f64,
    pub(super) cpu_s: f64,
    pub(super) written_bytes: f64,
}

/// What a local program saw while versions were swapped.
#[derive(Default)]
pub(super) struct Swaps {
    /// Longest time without an answer around each change of the version, in milliseconds.
    pub(super) gaps_ms: Vec<f64>,
    pub(super) sent: u64,
    pub(super) failed: u64,
}

pub(super) struct Bench {
    controller: Controller,
    device: Device,
}

impl Bench {
    pub(super) fn start(binaries: &Binaries, dir: &Path) -> Result<Self> {
        let controller = Controller::start(binaries, dir)?;
        let token = controller.token(&["app=activity".to_owned()])?;
        let hardware = Hardware {
            // As it is without being told otherwise.
            window_s: 30,
            ..Hardware::plain("bench")
        };
        let mut device = Device::make(binaries, dir, hardware)?;
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

    /// Publishes a variant as a version of a model and has the agent serve it; gives its planned
    /// memory in bytes.
    pub(super) fn install(
        &mut self,
        model: &str,
        version: &str,
        variant: &str,
        file: &Path,
    ) -> Result<f64> {
        let example = activity();
        let path = |name: &str| example.join(name).display().to_string();
        let (eval, labels) = (path("test.npz"), path("labels.txt"));
        let given = format!("{variant}={}", file.display());
        let import = ["model", "import", model, "--version", version, "--variant"];
        let data = ["--eval", &eval, "--inputs", "x", "--targets", "y"];
        let given = [given.as_str(), "--labels", &labels];
        self.controller
            .ok(&[&import[..], &given[..], &data[..]].concat())?;
        let selector = "app=activity";
        let apply = ["deployment", "apply", model, "--model", model];
        self.controller
            .ok(&[&apply[..], &["--selector", selector]].concat())?;
        let start = ["rollout", "start", model, "--version", version];
        let whole = ["--wave", "100%", "--bake", "1s"];
        self.controller.ok(&[&start[..], &whole[..]].concat())?;
        self.device.wait_serving(model)?;
        let docs = self.controller.list("variants")?;
        let ours = docs
            .iter()
            .find(|d| d["model"] == model && d["version"] == version);
        let doc = ours.or(docs.last()).context("no variant was published")?;
        let planned = doc["memory_bytes"].as_f64();
        planned.with_context(|| format!("no memory_bytes in {doc}"))
    }

    /// Asks each model between the samples, so that it is the memory of ones that serve.
    pub(super) fn memory(&self, requests: &[Request]) -> Result<Memory> {
        let pid = self.pid()?;
        let mut connection = Connection::open(&self.address()?)?;
        for _ in 0..WARM_UP_REQUESTS {
            for request in requests {
                connection.ask(request)?;
            }
        }
        std::thread::sleep(SETTLE);
        let runners = children(pid)?;
        ensure!(
            runners.len() == requests.len(),
            "the agent has {} children instead of {} runners",
            runners.len(),
            requests.len()
        );
        let mut agent = Vec::new();
        let mut of = vec![Vec::new(); runners.len()];
        for _ in 0..MEMORY_SAMPLES {
            std::thread::sleep(BETWEEN_SAMPLES);
            for request in requests {
                connection.ask(request)?;
            }
            agent.push(pss_bytes(pid)? as f64);
            for (samples, runner) in of.iter_mut().zip(&runners) {
                samples.push(pss_bytes(*runner)? as f64);
            }
        }
        Ok(Memory {
            agent: median(&agent),
            runners: of.iter().map(|samples| median(samples)).collect(),
        })
    }

    /// What the agent and its runners use in so much time, asked as often as `every` says.
    pub(super) fn rest(
        &self,
        lasts: Duration,
        asked: Option<(&Request, Duration)>,
    ) -> Result<Rest> {
        let pid = self.pid()?;
        let all = [vec![pid], children(pid)?].concat();
        let used = || -> Result<Used> {
            let mut sum = Used::default();
            for pid in &all {
                sum.add(&Used::of(*pid)?);
            }
            Ok(sum)
        };
        let mut connection = match asked {
            Some(_) => Some(Connection::open(&self.address()?)?),
            None => None,
        };
        std::thread::sleep(SETTLE);
        let (before, begun) = (used()?, Instant::now());
        while begun.elapsed() < lasts {
            match (&mut connection, asked) {
                (Some(connection), Some((request, every))) => {
                    connection.ask(request)?;
                    std::thread::sleep(every);
                }
                _ => std::thread::sleep(lasts.saturating_sub(begun.elapsed())),
            }
        }
        let after = used()?;
        Ok(Rest {
            seconds: begun.elapsed().as_secs_f64(),
            cpu_s: (after.cpu_ns - before.cpu_ns) as f64 / 1e9,
            written_bytes: (after.written_bytes - before.written_bytes) as f64,
        })
    }

    /// Times of requests one after another, in microseconds.
    pub(super) fn round_trips(&self, request: &Request) -> Result<Vec<f64>> {
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
    pub(super) fn starts(&mut self, request: &Request) -> Result<Vec<f64>> {
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

    /// Installs one version after another while a local program asks without a pause.
    pub(super) fn swaps(&mut self, model: &str, variants: &[(&str, &Path)]) -> Result<Swaps> {
        let stop = Arc::new(AtomicBool::new(false));
        let (address, request) = (self.address()?, request(model, false)?);
        let seen = stop.clone();
        let program = std::thread::spawn(move || asks(&address, &request, &seen));
        for (index, (variant, file)) in variants.iter().enumerate() {
            let version = format!("swap{index}");
            self.install(model, &version, variant, file)?;
            let client = self.device.client();
            let path = format!("/v2/models/{model}/versions/{version}/ready");
            wait::until("the new version serves", PATIENCE, || {
                Ok(client.ready(&path).then_some(()))
            })?;
            // The rollout ends by inferences; the next one begins after it.
            let docs = self.controller.list("rollouts")?;
            let ours = docs.iter().find(|d| d["version"] == version.as_str());
            let name = ours.and_then(|d| d["name"].as_str());
            let name = name.context("the rollout has no name")?.to_owned();
            self.controller
                .ok(&["rollout", "status", &name, "-w", "--timeout", "120s"])?;
        }
        stop.store(true, Ordering::Relaxed);
        let done = program.join();
        done.map_err(|_| anyhow::anyhow!("the program that asked panicked"))?
    }

    /// Where the agent serves, as its configuration says.
    fn address(&self) -> Result<String> {
        let text = std::fs::read_to_string(self.device.config())?;
        let line = text.lines().find_map(|l| l.strip_prefix("listen = "));
        let quoted = line.context("the agent's configuration has no listen address")?;
        Ok(quoted.trim_matches('"').to_owned())
    }
}

/// The version that an answer names.
fn version(answer: &[u8]) -> Option<String> {
    let doc: serde_json::Value = serde_json::from_slice(answer).ok()?;
    Some(doc["model_version"].as_str()?.to_owned())
}

fn asks(address: &str, request: &Request, stop: &AtomicBool) -> Result<Swaps> {
    let mut connection = Connection::open(address)?;
    let mut swaps = Swaps::default();
    let (mut serves, mut last) = (None, Instant::now());
    while !stop.load(Ordering::Relaxed) {
        swaps.sent += 1;
        let answered = connection.ask(request).ok().and_then(|a| version(&a));
        let Some(answered) = answered else {
            swaps.failed += 1;
            connection = Connection::open(address)?;
            continue;
        };
        let gap = last.elapsed().as_secs_f64() * 1e3;
        if serves.as_ref().is_some_and(|s| *s != answered) {
            swaps.gaps_ms.push(gap);
        }
        (serves, last) = (Some(answered), Instant::now());
    }
    Ok(swaps)
}
