//! Runners from their start to their death, and what they serve meanwhile.

use super::{Device, Live};
use crate::check::Checks;
use crate::disk::DiskError;
use crate::event::{Key, Timer};
use crate::fault::Lie;
use crate::outside::Outside;
use crate::truth::Quality;
use sandpiper_core::digest::Digest;
use sandpiper_core::energy::{EnergyScope, Provenance};
use sandpiper_core::invariants::Violation;
use sandpiper_core::names::ModelName;
use sandpiper_core::outputs::OutputStats;
use sandpiper_core::reconcile::{DeviceEvent, ModelSlot, Reconciler, SlotVersion};
use sandpiper_core::sketch::LatencySketch;
use sandpiper_core::telemetry::{FailureKind, TelemetryWindow};
use std::collections::{BTreeMap, BTreeSet};

/// Latencies recorded of a window: enough for its quantiles.
const SAMPLES: u64 = 24;

#[derive(Debug)]
struct Runner {
    ticket: u64,
    ready: bool,
    test: bool,
}

/// What has been served since the window began.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    inferences: u64,
    traps: u64,
    from: u64,
}

/// Runners of a device.
#[derive(Debug, Default)]
pub(super) struct Runners {
    all: BTreeMap<Key, Runner>,
    routed: BTreeMap<ModelName, Key>,
    tickets: u64,
    tallies: BTreeMap<Key, Tally>,
    /// Until when requests were counted, and the part of one that is left.
    counted_to: u64,
    rest: f64,
}

impl Runners {
    /// Where requests of a model go, and whether that runner is ready.
    pub(super) fn routed(&self, model: &ModelName) -> Option<(&Key, bool)> {
        let key = self.routed.get(model)?;
        Some((key, self.all.get(key).is_some_and(|r| r.ready)))
    }

    /// Whether any runner of the model runs or starts.
    pub(super) fn any_of(&self, model: &ModelName) -> bool {
        self.all.keys().any(|key| key.0 == *model)
    }

    /// Whether every rung of what is active has failed here.
    pub(super) fn all_failed(&self, slot: &ModelSlot, machine: &Reconciler) -> bool {
        let Some(active) = &slot.active else {
            return true;
        };
        active.ladder.variants().into_iter().all(|variant| {
            let model = &active.manifest.model;
            let code = machine.runnable(model, active.version(), variant);
            let digest = code.and_then(|(v, t)| Some(v.native.get(&t)?.artefact.digest));
            digest.is_none_or(|d| slot.failed.iter().any(|f| f.code == d))
        })
    }
}

impl Live {
    /// Artefacts that active and previous versions need, but those that have rotted.
    pub(super) fn machine_needs(
        &self,
        slot: &ModelSlot,
        rotten: &BTreeSet<Digest>,
    ) -> BTreeSet<Digest> {
        let of = |version: &SlotVersion| {
            let variants = version.ladder.variants().into_iter();
            let needed = variants.filter_map(|variant| {
                let model = &version.manifest.model;
                let (v, target) = self.machine.runnable(model, version.version(), variant)?;
                v.artefacts_for(target)
            });
            needed.flatten().map(|a| a.digest).collect::<Vec<_>>()
        };
        let versions = [slot.active.as_ref(), slot.previous.as_ref()];
        let all = versions.into_iter().flatten().flat_map(of);
        all.filter(|digest| !rotten.contains(digest)).collect()
    }
}

impl Device {
    pub(super) fn start(
        &mut self,
        key: Key,
        test: bool,
        outside: &mut Outside,
        checks: &mut Checks,
    ) {
        let Some(live) = &mut self.live else {
            return;
        };
        let slot = live.machine.state().models.get(&key.0);
        let runnable = live.machine.runnable(&key.0, &key.1, &key.2);
        let code = runnable.and_then(|(v, t)| Some(v.native.get(&t)?.artefact.digest));
        let failed = slot
            .zip(code)
            .is_some_and(|(slot, code)| slot.failed.iter().any(|f| f.code == code));
        if failed {
            let detail = format!("{}: {} {}", self.name, key.1, key.2);
            let name = "failed-code-is-not-tried-again";
            checks.hold(outside.now, Err(Violation { name, detail }));
        }
        live.runners.tickets += 1;
        let ticket = live.runners.tickets;
        let runner = Runner {
            ticket,
            ready: false,
            test,
        };
        live.runners.all.insert(key.clone(), runner);
        let ms = self.dice.between(150, 3_000);
        outside.timer(self.number, self.boot, ms, Timer::Started(key, ticket));
    }

    pub(super) fn started(
        &mut self,
        key: &Key,
        ticket: u64,
        outside: &mut Outside,
        checks: &mut Checks,
    ) {
        let Some(live) = &mut self.live else {
            return;
        };
        let Some(runner) = live.runners.all.get(key).filter(|r| r.ticket == ticket) else {
            return; // Stopped meanwhile.
        };
        let test = runner.test;
        let runnable = live.machine.runnable(&key.0, &key.1, &key.2);
        let needed = runnable.and_then(|(v, t)| v.artefacts_for(t));
        let target = runnable.map(|(_, target)| target);
        let quality = checks.truth.quality(&key.1);
        let sound = needed.is_some_and(|all| {
            let mut all = all.iter();
            all.all(|artefact| self.disk.verify(artefact.digest))
        });
        let lies = self.troubles.lie == Some(Lie::FakeDigest);
        let failure = match quality {
            _ if !sound => Some((FailureKind::Load, "the artefact is not what its name says")),
            // A liar does not do what it says that it does.
            _ if lies => Some((FailureKind::Load, "not loaded")),
            Quality::FailsToLoadOn(bad) if Some(bad) == target => {
                Some((FailureKind::Load, "the code does not load"))
            }
            Quality::FailsSelfTest if test => {
                Some((FailureKind::SelfTest, "the golden outputs differ"))
            }
            _ => None,
        };
        let (model, version, variant) = key.clone();
        let event = match failure {
            Some((kind, message)) => {
                live.runners.all.remove(key);
                DeviceEvent::RunnerFailed {
                    model,
                    version,
                    variant,
                    kind,
                    message: message.to_owned(),
                }
            }
            None => {
                if let Some(runner) = live.runners.all.get_mut(key) {
                    runner.ready = true;
                }
                if let Quality::Dies(minutes) = quality {
                    let mean = u64::from(minutes) * 60_000;
                    let ms = self.dice.between(mean / 4, mean * 2);
                    outside.timer(self.number, self.boot, ms, Timer::Dies(key.clone(), ticket));
                }
                DeviceEvent::RunnerReady {
                    model,
                    version,
                    variant,
                }
            }
        };
        self.handle(event, outside, checks);
    }

    pub(super) fn runner_dies(
        &mut self,
        key: &Key,
        ticket: u64,
        outside: &mut Outside,
        checks: &mut Checks,
    ) {
        self.count(outside, checks);
        let Some(live) = &mut self.live else {
            return;
        };
        let runner = live.runners.all.get(key);
        if runner.is_none_or(|r| r.ticket != ticket) {
            return;
        }
        live.runners.all.remove(key);
        live.runners.tallies.entry(key.clone()).or_default().traps += 1;
        if live.runners.routed.get(&key.0) == Some(key) {
            live.runners.routed.remove(&key.0);
        }
        let (model, version, variant) = key.clone();
        let event = DeviceEvent::RunnerDied {
            model,
            version,
            variant,
            message: "killed by signal 11".to_owned(),
        };
        self.handle(event, outside, checks);
    }

    pub(super) fn switch(
        &mut self,
        key: Key,
        outside: &mut Outside,
        checks: &mut Checks,
    ) -> Result<(), DiskError> {
        self.count(outside, checks);
        if let Some(live) = &mut self.live {
            live.runners.routed.insert(key.0.clone(), key);
        }
        self.close_windows(outside, checks)
    }

    pub(super) fn stop(
        &mut self,
        key: &Key,
        outside: &mut Outside,
        checks: &mut Checks,
    ) -> Result<(), DiskError> {
        self.count(outside, checks);
        let Some(live) = &mut self.live else {
            return Ok(());
        };
        live.runners.all.remove(key);
        if live.runners.routed.get(&key.0) == Some(key) {
            live.runners.routed.remove(&key.0);
            return self.close_windows(outside, checks);
        }
        Ok(())
    }

    /// Counts what was served since the last time.
    pub(super) fn count(&mut self, outside: &Outside, checks: &mut Checks) {
        let Some(live) = &mut self.live else {
            return;
        };
        let runners = &mut live.runners;
        let from = std::mem::replace(&mut runners.counted_to, outside.now);
        let ms = outside.now.saturating_sub(from);
        if from == 0 || ms == 0 || self.troubles.idle > 0 {
            return;
        }
        let wanted = self.body.per_hour * ms as f64 / 3_600_000.0 + runners.rest;
        runners.rest = wanted.fract();
        let served = wanted as u64;
        let generation = live.machine.state().generation;
        let deeds = checks.deeds.entry(self.name.clone()).or_default();
        let mut spent_uj = 0.0;
        for key in runners.routed.values() {
            if runners.all.get(key).is_none_or(|r| !r.ready) {
                continue;
            }
            let tally = runners.tallies.entry(key.clone()).or_default();
            if tally.inferences == 0 {
                tally.from = from;
            }
            tally.inferences += served;
            let under = (key.1.clone(), generation);
            *deeds.served.entry(under).or_default() += served;
            let cost = checks.truth.cost(&key.1, &key.2, self.body.macs_per_s());
            spent_uj += cost.energy_uj * served as f64;
        }
        let hour = outside.now / 3_600_000 % 24;
        self.body.live(ms, hour, spent_uj, self.troubles.hot > 0);
    }

    /// Closes the windows of everything that has served.
    pub(super) fn close_windows(
        &mut self,
        outside: &mut Outside,
        checks: &mut Checks,
    ) -> Result<(), DiskError> {
        let Some(live) = &mut self.live else {
            return Ok(());
        };
        for (key, tally) in std::mem::take(&mut live.runners.tallies) {
            if tally.inferences == 0 && tally.traps == 0 {
                continue;
            }
            if let Some(window) = self.window(&key, tally, outside.now, checks) {
                let deeds = checks.deeds.entry(self.name.clone()).or_default();
                *deeds.closed.entry(key).or_default() += tally.inferences;
                let Some(live) = &mut self.live else {
                    return Ok(());
                };
                match live.ring.push(&mut self.disk, window) {
                    Err(DiskError::PowerCut) => return Err(DiskError::PowerCut),
                    // A window is lost; the log says so.
                    Ok(_) | Err(DiskError::Full | DiskError::Io) => {}
                }
            }
        }
        Ok(())
    }

    fn window(
        &mut self,
        key: &Key,
        tally: Tally,
        now: u64,
        checks: &Checks,
    ) -> Option<TelemetryWindow> {
        let (from, to) = (self.clock(tally.from), self.clock(now));
        let live = self.live.as_ref()?;
        let held = live.machine.held(&key.0, &key.1)?;
        let (variant, target) = live.machine.runnable(&key.0, &key.1, &key.2)?;
        let code = variant.native.get(&target)?.artefact.digest;
        let cost = checks.truth.cost(&key.1, &key.2, self.body.macs_per_s());
        let mut latency = LatencySketch::default();
        for _ in 0..tally.inferences.min(SAMPLES) {
            let noise = 1.0 + 0.08 * self.dice.normal();
            latency.record((cost.latency_us * noise.max(0.5)) as u32);
        }
        let energy = cost.energy_uj * tally.inferences as f64 * (1.0 + 0.02 * self.dice.normal());
        Some(TelemetryWindow {
            boot: 0,
            sequence: 0,
            generation: live.machine.state().generation,
            from,
            to,
            deployment: held.deployment.clone(),
            model: key.0.clone(),
            version: key.1.clone(),
            variant: key.2.clone(),
            code,
            power_state: live.machine.rung_of(&key.0, &key.1, &key.2),
            inferences: tally.inferences,
            errors: 0,
            rejected: 0,
            traps: tally.traps,
            nonfinite: 0,
            // No request is like the one before, and no answer.
            outputs: OutputStats {
                followed: tally.inferences,
                ..OutputStats::default()
            },
            latency,
            energy_uj: energy.max(0.0) as u64,
            energy_variance_uj2: (0.02 * energy).powi(2),
            energy_provenance: Provenance::Measured,
            energy_scope: EnergyScope::Board,
        })
    }
}
