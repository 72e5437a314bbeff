//! Performs what the reconciler decides: persist first, then act, feed results back as events.

use crate::clock;
use crate::config::Config;
use crate::depot::Depot;
use crate::energy::Accountant;
use crate::fetch;
use crate::guest::{LaunchSpec, Launcher};
use crate::launch::self_test;
use crate::probe;
use crate::serve::routes::{Routes, Served};
use crate::tally::ServedBy;
use crate::telemetry::Ring;
use sandpiper_core::digest::ArtefactRef;
use sandpiper_core::ladder::Climber;
use sandpiper_core::names::{ModelName, VariantName, VersionName};
use sandpiper_core::reconcile::{DeviceEffect, DeviceEvent, Reconciler};
use sandpiper_core::telemetry::{FailureKind, Observation};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tonic::transport::Channel;

/// Deadline of a request without a latency objective.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(5);
/// Least deadline of a request: a small board may be busy with other things.
const LEAST_DEADLINE: Duration = Duration::from_secs(1);
/// Time between two readings of the meter while inferring, and the driver's heartbeat.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);

type Key = (ModelName, VersionName, VariantName);

/// What reaches the driver.
pub enum Input {
    /// Something happened.
    Event(DeviceEvent),
    /// A guest is loaded and tested.
    Loaded(Arc<Served>),
    /// A guest that serves died.
    Died(Arc<Served>, String),
}

/// The way to the driver.
#[derive(Clone)]
pub struct Handle {
    /// Events.
    pub inputs: mpsc::Sender<Input>,
    /// What the device reports, on every change.
    pub observation: watch::Receiver<Observation>,
}

/// Owns the reconciler and everything that it moves.
pub struct Driver {
    /// Configuration.
    pub config: Config,
    /// Decides.
    pub machine: Reconciler,
    /// Stores.
    pub depot: Depot,
    /// Loads guests.
    pub launcher: Arc<dyn Launcher>,
    /// Where requests go.
    pub routes: Arc<Routes>,
    /// Closed windows.
    pub ring: Arc<Mutex<Ring>>,
    /// Energy.
    pub accountant: Accountant,
    /// To itself.
    pub inputs: mpsc::Sender<Input>,
    /// What is reported.
    pub observation: watch::Sender<Observation>,
    /// The live channel, if any.
    pub channel: watch::Receiver<Option<Channel>>,
    /// Climbs the ladder.
    pub climber: Climber,
    /// Guests that are loaded.
    pub loaded: BTreeMap<Key, Arc<Served>>,
}

fn key_of(by: &ServedBy) -> Key {
    (by.model.clone(), by.version.clone(), by.variant.clone())
}

impl Driver {
    /// Runs until every sender of inputs is gone or `stop` resolves.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<Input>, stop: impl Future<Output = ()>) {
        tokio::pin!(stop);
        self.look();
        self.handle(DeviceEvent::Tick);
        let mut sample = tokio::time::interval(SAMPLE_EVERY);
        let mut poll = tokio::time::interval(self.config.poll);
        let mut window = tokio::time::interval(self.config.window);
        window.reset();
        loop {
            tokio::select! {
                () = &mut stop => break,
                input = inbox.recv() => match input {
                    Some(Input::Event(event)) => self.handle(event),
                    Some(Input::Loaded(served)) => self.loaded(served),
                    Some(Input::Died(served, why)) => self.died(&served, why),
                    None => break,
                },
                _ = poll.tick() => self.look(),
                _ = window.tick() => self.close_windows(),
                _ = sample.tick() => {
                    let quiet = self.routes.all().iter().all(|s| s.is_quiet());
                    self.accountant.sample(Instant::now(), quiet);
                    let due = self.machine.next_deadline().is_some_and(|(at, _)| clock::now() >= at);
                    if due {
                        self.handle(DeviceEvent::Tick);
                    }
                }
            }
        }
        self.close_windows();
    }

    /// Looks at battery, memory and temperature; climbs when that says so.
    fn look(&mut self) {
        let now = probe::conditions(&self.config);
        let models = self.machine.state().models.values();
        let ladders = models.filter_map(|s| s.active.as_ref()).map(|a| &a.ladder);
        // One power state for the device: the most careful of its deployments counts.
        let (low, critical) = ladders.fold((0, 0), |(l, c), ladder| {
            (ladder.low_percent.max(l), ladder.critical_percent.max(c))
        });
        let state = self.climber.observe(&now, low, critical);
        if state != self.machine.power_state() {
            tracing::info!(%state, "the power state changes");
            self.handle(DeviceEvent::PowerState(state));
        }
        self.observation.send_if_modified(|o| {
            let changed = o.conditions != now;
            o.conditions = now;
            changed
        });
    }

    fn handle(&mut self, event: DeviceEvent) {
        for effect in self.machine.handle(clock::now(), event) {
            if let Err(error) = self.perform(effect) {
                // What follows depends on what failed; it is tried again at the next start.
                tracing::error!("the disk fails, nothing is changed: {error}");
                break;
            }
        }
        self.report();
    }

    fn perform(&mut self, effect: DeviceEffect) -> Result<(), crate::depot::DepotError> {
        match effect {
            DeviceEffect::Persist => self.depot.save_state(self.machine.state())?,
            DeviceEffect::Fetch { artefacts, .. } => self.fetch(artefacts),
            DeviceEffect::StartRunner {
                model,
                version,
                variant,
                self_test,
            } => {
                self.start((model, version, variant), self_test);
            }
            DeviceEffect::Switch {
                model,
                version,
                variant,
            } => {
                if let Some(served) = self.loaded.get(&(model, version, variant)) {
                    tracing::info!(model = %served.by.model, version = %served.by.version,
                        variant = %served.by.variant, "serves");
                    if let Some(old) = self.routes.switch(served.clone()) {
                        self.close_window(&old);
                    }
                }
            }
            DeviceEffect::StopRunner {
                model,
                version,
                variant,
            } => {
                if let Some(old) = self.loaded.remove(&(model.clone(), version, variant)) {
                    let routed = self.routes.get(model.as_str());
                    if routed.is_some_and(|r| Arc::ptr_eq(&r, &old)) {
                        self.routes.remove(&model);
                        self.close_window(&old);
                    }
                }
            }
            DeviceEffect::Report => {}
            DeviceEffect::Collect => {
                self.depot.collect(&self.machine.live_artefacts())?;
            }
            DeviceEffect::Refuse(refusal) => tracing::error!("an assignment is refused: {refusal}"),
        }
        Ok(())
    }

    fn report(&self) {
        let state = self.machine.state();
        let models = self.machine.statuses();
        self.observation.send_if_modified(|o| {
            let changed = o.generation != state.generation || o.models != models;
            o.generation = state.generation;
            o.models = models;
            changed
        });
        let status = serde_json::to_value(&*self.observation.borrow());
        self.routes.set_status(status.unwrap_or_default());
    }

    /// Fetches one after the other; waits for a connection as long as it takes.
    fn fetch(&self, artefacts: Vec<ArtefactRef>) {
        let (depot, inputs) = (self.depot.clone(), self.inputs.clone());
        let mut channel = self.channel.clone();
        tokio::spawn(async move {
            for artefact in artefacts {
                let event = loop {
                    if depot.has(artefact) {
                        break DeviceEvent::Fetched(artefact);
                    }
                    let live = match channel.wait_for(Option::is_some).await {
                        Ok(live) => live.clone(),
                        Err(_) => return,
                    };
                    let Some(live) = live else { continue };
                    match fetch::fetch(&depot, live, artefact).await {
                        Ok(()) => break DeviceEvent::Fetched(artefact),
                        Err(error) => match error.kind() {
                            Some(kind) => {
                                let message = error.to_string();
                                break DeviceEvent::FetchFailed {
                                    artefact,
                                    kind,
                                    message,
                                };
                            }
                            None => {
                                tracing::info!("a fetch is cut and resumed: {error}");
                                tokio::time::sleep(Duration::from_millis(500)).await;
                            }
                        },
                    }
                };
                if inputs.send(Input::Event(event)).await.is_err() {
                    return;
                }
            }
        });
    }

    /// Verifies the files, loads a guest, tests it if asked, and answers.
    fn start(&self, key: Key, test: bool) {
        let (model, version, variant) = key.clone();
        let Some((held, (manifest, target))) = self
            .machine
            .held(&model, &version)
            .zip(self.machine.runnable(&model, &version, &variant))
        else {
            return;
        };
        let Some(native) = manifest.native.get(&target).map(|n| n.artefact) else {
            return;
        };
        let by = ServedBy {
            deployment: held.deployment.clone(),
            model: model.clone(),
            version: version.clone(),
            variant: variant.clone(),
            code: native.digest,
            power_state: self.machine.power_state(),
        };
        let deadline = held.latency_slo_us.map_or(DEFAULT_DEADLINE, |slo| {
            Duration::from_micros(u64::from(slo) * 10).max(LEAST_DEADLINE)
        });
        let (manifest, depot) = (manifest.clone(), self.depot.clone());
        let (launcher, inputs) = (self.launcher.clone(), self.inputs.clone());
        tokio::spawn(async move {
            let work = load(&depot, &*launcher, &manifest, native, by, deadline, test);
            let answer = match work.await {
                Ok(served) => Input::Loaded(served),
                Err((kind, message)) => {
                    tracing::error!(%model, %version, %variant, "not started: {message}");
                    Input::Event(DeviceEvent::RunnerFailed {
                        model,
                        version,
                        variant,
                        kind,
                        message,
                    })
                }
            };
            // The agent stops when nobody listens.
            let _ = inputs.send(answer).await;
        });
    }

    fn loaded(&mut self, served: Arc<Served>) {
        let (model, version, variant) = key_of(&served.by);
        self.loaded.insert(key_of(&served.by), served);
        self.handle(DeviceEvent::RunnerReady {
            model,
            version,
            variant,
        });
    }

    fn died(&mut self, served: &Arc<Served>, message: String) {
        let key = key_of(&served.by);
        if self
            .loaded
            .get(&key)
            .is_some_and(|l| Arc::ptr_eq(l, served))
        {
            self.loaded.remove(&key);
            self.close_window(served);
            self.routes.remove(&key.0);
            let (model, version, variant) = key;
            self.handle(DeviceEvent::RunnerDied {
                model,
                version,
                variant,
                message,
            });
        }
    }

    fn close_windows(&mut self) {
        let all = self.routes.all();
        self.close(&all);
    }

    fn close_window(&mut self, served: &Arc<Served>) {
        self.close(std::slice::from_ref(served));
    }

    fn close(&mut self, all: &[Arc<Served>]) {
        let tallies: Vec<_> = all.iter().map(|s| s.take_tally()).collect();
        let cpu: Vec<u64> = tallies.iter().map(crate::tally::Tally::cpu_us).collect();
        let energies = self.accountant.settle(&cpu);
        for ((served, tally), energy) in all.iter().zip(tallies).zip(energies) {
            if tally.is_empty() {
                continue;
            }
            let by = ServedBy {
                power_state: self.machine.power_state(),
                ..served.by.clone()
            };
            let window = tally.close(&by, clock::now(), energy);
            let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = ring.push(window) {
                tracing::error!("a telemetry window is lost: {error}");
            }
        }
    }
}

async fn load(
    depot: &Depot,
    launcher: &dyn Launcher,
    manifest: &sandpiper_core::manifest::VariantManifest,
    native: ArtefactRef,
    by: ServedBy,
    deadline: Duration,
    test: bool,
) -> Result<Arc<Served>, (FailureKind, String)> {
    let failed = |kind| move |e: crate::depot::DepotError| (kind, e.to_string());
    // Native code is run as it is: only bytes that were verified just now reach the runner.
    let code = depot.verify(native).map_err(failed(FailureKind::Load))?;
    let weights = match manifest.weights {
        Some(weights) => Some(depot.verify(weights).map_err(failed(FailureKind::Load))?),
        None => None,
    };
    let spec = LaunchSpec {
        label: format!("{}/{}/{}", by.model, by.version, by.variant),
        native: code,
        weights,
        abi: manifest.abi.clone(),
        deadline,
    };
    let guest = launcher
        .launch(spec)
        .await
        .map_err(|e| (FailureKind::Load, e.to_string()))?;
    if test {
        let golden = depot
            .verify(manifest.golden.artefact)
            .map_err(failed(FailureKind::SelfTest))?;
        let golden = std::fs::read(golden).map_err(|e| (FailureKind::SelfTest, e.to_string()))?;
        self_test(&*guest, &manifest.abi, &golden, manifest.golden.tolerance)
            .await
            .map_err(|why| (FailureKind::SelfTest, why))?;
    }
    Ok(Arc::new(Served::new(by, manifest.abi.clone(), guest)))
}
