//! The machine's core: what runs, what shall run, and the step from one to the other.

use super::clocks::Clocks;
use super::code::Better;
use super::state::{DeviceEffect, DeviceEvent, DeviceState, ModelSlot, SlotVersion};
use crate::assignment::Ladder;
use crate::digest::{ArtefactRef, Digest};
use crate::mutants::{self, Mutant};
use crate::names::{DeviceName, ModelName, VariantName, VersionName};
use crate::profile::PowerState;
use crate::target::Target;
use crate::time::Millis;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// How long the runner of the version before is kept beside that of a new one, so that it can
/// answer what the new one fails on.
pub const PROBATION: Duration = Duration::from_secs(600);

/// A runner is known by its version and variant.
pub(super) type RunnerKey = (VersionName, VariantName);

/// What is volatile of one model: runners and waiting times.
#[derive(Debug, Clone, Default)]
pub(super) struct Live {
    /// Runners by what they run; true once ready.
    pub(super) runners: BTreeMap<RunnerKey, bool>,
    /// What the code is made for that each of them runs.
    pub(super) targets: BTreeMap<RunnerKey, Target>,
    /// The runner that requests go to.
    pub(super) routed: Option<RunnerKey>,
    /// The runner of the version before, until the probation of the new one ends.
    pub(super) spare: Option<(RunnerKey, Millis)>,
    /// Deaths within the restart budget's window.
    pub(super) deaths: VecDeque<Millis>,
    /// The pending version's artefacts have been asked for.
    pub(super) fetching: bool,
    /// Failed fetches of the pending version so far, and when the next attempt is due.
    pub(super) fetch_failures: u32,
    pub(super) retry_at: Option<Millis>,
    /// Better code for what serves.
    pub(super) better: Better,
}

/// A runner that shall be there.
struct Wanted {
    key: RunnerKey,
    target: Option<Target>,
    self_test: bool,
}

/// Effects of one call.
pub(super) struct Turn {
    pub(super) now: Millis,
    /// The persisted state changed.
    pub(super) dirty: bool,
    pub(super) report: bool,
    pub(super) collect: bool,
    pub(super) effects: Vec<DeviceEffect>,
}

/// Drives one device towards its assignment.
#[derive(Debug, Clone)]
pub struct Reconciler {
    pub(super) state: DeviceState,
    pub(super) device: DeviceName,
    pub(super) targets: Vec<Target>,
    pub(super) runtime_keys: BTreeSet<String>,
    pub(super) power: PowerState,
    pub(super) live: BTreeMap<ModelName, Live>,
    /// Artefacts that are on the disk: those that were found there at the start, and those that the
    /// driver has answered for since.
    pub(super) present: BTreeSet<Digest>,
    /// The disk was looked at when the machine was made.
    pub(super) searched: bool,
    pub(super) clocks: Clocks,
}

impl Reconciler {
    /// A machine over the state that was persisted, for a device that runs these targets (best
    /// first) and can load code of these runtimes. Nothing runs yet; the first event, at the
    /// latest a [`DeviceEvent::Tick`], starts what is active.
    pub fn new(
        state: DeviceState,
        targets: Vec<Target>,
        runtime_keys: BTreeSet<String>,
        device: DeviceName,
    ) -> Self {
        Self {
            state,
            device,
            targets,
            runtime_keys,
            power: PowerState::Mains,
            live: BTreeMap::new(),
            present: BTreeSet::new(),
            searched: false,
            clocks: Clocks::default(),
        }
    }

    /// Takes an event; the effects are to be performed in order.
    pub fn handle(&mut self, now: Millis, event: DeviceEvent) -> Vec<DeviceEffect> {
        self.clocks.own = now;
        let mut turn = Turn {
            now,
            dirty: false,
            report: false,
            collect: false,
            effects: Vec::new(),
        };
        self.settle(&mut turn);
        self.take(&mut turn, event);
        self.settle(&mut turn);
        let models: Vec<ModelName> = self.state.models.keys().cloned().collect();
        for model in &models {
            self.drop_hopeless(&mut turn, model);
            self.step(&mut turn, model);
        }
        if turn.collect {
            // What the driver deletes has to be fetched again when it is next needed.
            let live = self.live_artefacts();
            self.present.retain(|digest| live.contains(digest));
        }
        turn.finish()
    }

    fn take(&mut self, turn: &mut Turn, event: DeviceEvent) {
        match event {
            DeviceEvent::Assigned(assignment, manifests) => {
                self.assigned(turn, assignment, manifests);
            }
            DeviceEvent::Fetched(artefact) => {
                turn.report |= self.present.insert(artefact.digest);
            }
            DeviceEvent::FetchFailed {
                artefact,
                kind,
                message,
            } => self.fetch_failed(turn, artefact, kind, &message),
            DeviceEvent::RunnerReady {
                model,
                version,
                variant,
            } => {
                let key = (version, variant);
                if !self.improved(turn, &model, &key) {
                    self.ready(turn, &model, key);
                }
            }
            DeviceEvent::RunnerFailed {
                model,
                version,
                variant,
                kind,
                message,
            } => self.runner_failed(turn, &model, (version, variant), kind, message),
            DeviceEvent::RunnerDied {
                model,
                version,
                variant,
                message,
            } => self.died(turn, &model, (version, variant), message),
            DeviceEvent::Hung {
                model,
                version,
                variant,
                lived,
            } => self.hung(turn, &model, &(version, variant), lived),
            DeviceEvent::PowerState(power) => {
                turn.report |= self.power != power;
                self.power = power;
            }
            DeviceEvent::Tick => {}
        }
    }

    /// A runner can serve. That of the pending version makes it active; that of the active
    /// version takes over if it is the rung of the moment.
    fn ready(&mut self, turn: &mut Turn, model: &ModelName, key: RunnerKey) {
        let pending = self
            .state
            .models
            .get(model)
            .and_then(|s| s.pending.as_ref());
        let complete = pending.is_some_and(|pending| {
            *pending.version() == key.0
                && pending.ladder.variants().contains(&key.1)
                && self.missing(pending).is_empty()
                && self.may_switch(pending).is_open()
        });
        let (Some(live), Some(slot)) = (self.live.get_mut(model), self.state.models.get_mut(model))
        else {
            return;
        };
        let Some(ready) = live.runners.get_mut(&key) else {
            return; // Stopped meanwhile.
        };
        *ready = true;
        if complete {
            let old = slot.active.take();
            slot.active = slot.pending.take();
            // A new ladder of the same version leaves the version before where it is.
            if old.as_ref().is_some_and(|o| *o.version() != key.0) {
                slot.previous = old;
                let until = turn.now.plus(PROBATION);
                live.spare = live.routed.clone().map(|routed| (routed, until));
            }
            live.deaths.clear();
            turn.dirty = true;
            turn.collect = true;
        }
        turn.report = true;
    }

    /// The variant that the active version shall run now: the rung of the power state unless its
    /// code failed here, then the poorer rungs, then the richer ones.
    pub(super) fn wanted_rung(
        &self,
        slot: &ModelSlot,
        version: &SlotVersion,
        power: PowerState,
    ) -> Option<VariantName> {
        let at = PowerState::ALL
            .iter()
            .position(|s| *s == power)
            .unwrap_or(0);
        let (richer, poorer) = PowerState::ALL.split_at(at);
        poorer
            .iter()
            .chain(richer.iter().rev())
            .filter_map(|state| version.ladder.rung(*state))
            .find(|name| !self.has_failed(slot, version, name))
            .cloned()
    }

    pub(super) fn has_failed(
        &self,
        slot: &ModelSlot,
        version: &SlotVersion,
        variant: &VariantName,
    ) -> bool {
        let Some((_, code)) = self.code_of(version, variant) else {
            return true; // Code that cannot be loaded is as good as failed.
        };
        let known = slot.failed.iter().any(|f| f.code == code.artefact.digest);
        known && !mutants::is(Mutant::RetryFailed)
    }

    /// A pending version of which every rung has failed meanwhile (the active version may share
    /// its code) is given up.
    fn drop_hopeless(&mut self, turn: &mut Turn, model: &ModelName) {
        let Some(slot) = self.state.models.get(model) else {
            return;
        };
        let hopeless = slot
            .pending
            .as_ref()
            .is_some_and(|p| self.wanted_rung(slot, p, self.power).is_none());
        let failure = slot.failed.last().map(|f| f.failure.clone());
        if let (true, Some(failure), Some(slot)) =
            (hopeless, failure, self.state.models.get_mut(model))
        {
            slot.pending = None;
            slot.failure = Some(failure);
            (turn.dirty, turn.report, turn.collect) = (true, true, true);
        }
    }

    /// Brings runners and routing of one model closer to its slot. Changes nothing when all is
    /// as it shall be.
    fn step(&mut self, turn: &mut Turn, model: &ModelName) {
        let Some(slot) = self.state.models.get(model) else {
            return;
        };
        let active = slot.active.as_ref().and_then(|active| {
            let rung = self.wanted_rung(slot, active, self.power)?;
            Some((active.version().clone(), rung))
        });
        let mut wanted: Vec<Wanted> = Vec::new();
        let want = |version: &SlotVersion, key: RunnerKey, self_test| Wanted {
            target: self.code_of(version, &key.1).map(|(target, _)| target),
            key,
            self_test,
        };
        let (mut fetch, mut leave) = (None, None);
        if let Some(pending) = &slot.pending {
            let missing = self.missing(pending);
            if missing.is_empty() {
                let key = self.under_test(model, slot, pending, active.as_ref());
                let key = key.filter(|_| self.may_switch(pending).is_open());
                wanted.extend(key.map(|key| want(pending, key, true)));
            } else if self.may_fetch(pending).is_open() {
                fetch = Some((pending.version().clone(), missing));
            } else {
                leave = Some(missing);
            }
        }
        // Not three runners at a time: what is tested needs the memory.
        let nothing_tested = wanted.is_empty();
        // The first start after a boot runs what was tested before; a climb tests anew.
        let boot = self.live.get(model).is_none_or(|l| l.routed.is_none());
        if let (Some(version), Some(key)) = (&slot.active, &active) {
            let test = !boot || self.perhaps_untested(slot, key);
            wanted.push(want(version, key.clone(), test));
        }
        let live = self.live.entry(model.clone()).or_default();
        // The second bound is for a clock that was set back.
        let now = turn.now;
        live.spare = live
            .spare
            .take()
            .filter(|(_, until)| nothing_tested && now < *until && *until <= now.plus(PROBATION));
        if let Some((version, artefacts)) = fetch {
            live.fetch(turn, model, version, artefacts);
        }
        if let Some(artefacts) = leave {
            live.leave(turn, artefacts);
        }
        live.run(turn, model, &wanted, active.as_ref());
        self.improve(turn, model);
        self.adopt_running(turn, model);
    }

    /// The runner that tests the pending version: the one that was started, even if the power
    /// state has changed since, or that of the present rung.
    fn under_test(
        &self,
        model: &ModelName,
        slot: &ModelSlot,
        pending: &SlotVersion,
        active: Option<&RunnerKey>,
    ) -> Option<RunnerKey> {
        let rungs = pending.ladder.variants();
        let ours = |key: &&RunnerKey| {
            key.0 == *pending.version() && rungs.contains(&key.1) && Some(*key) != active
        };
        let started = self
            .live
            .get(model)
            .and_then(|live| live.runners.keys().find(ours).cloned());
        started.or_else(|| {
            let rung = self.wanted_rung(slot, pending, self.power)?;
            Some((pending.version().clone(), rung))
        })
    }

    /// A pending version whose runner runs already (only the ladder is new) is active at once.
    fn adopt_running(&mut self, turn: &mut Turn, model: &ModelName) {
        let Some(slot) = self.state.models.get(model) else {
            return;
        };
        let Some(pending) = &slot.pending else {
            return;
        };
        let ready = self.live.get(model).and_then(|live| {
            let rung = self.wanted_rung(slot, pending, self.power)?;
            let key = (pending.version().clone(), rung);
            (live.runners.get(&key) == Some(&true)).then_some(key)
        });
        if let Some(key) = ready
            && self.missing(pending).is_empty()
            && self.may_switch(pending).is_open()
        {
            self.ready(turn, model, key);
            self.step(turn, model);
        }
    }

    /// Artefacts of the version's whole ladder that have not been answered for. All are fetched
    /// before the switch, so that the device can climb without a controller.
    pub(super) fn missing(&self, version: &SlotVersion) -> Vec<ArtefactRef> {
        let needed = self.needed(version).into_iter();
        needed
            .filter(|a| !self.present.contains(&a.digest))
            .collect()
    }

    /// Artefacts of the version's whole ladder.
    pub(super) fn needed(&self, version: &SlotVersion) -> BTreeSet<ArtefactRef> {
        let mut all = BTreeSet::new();
        for name in version.ladder.variants() {
            if let Some((variant, target)) = self.variant_of(version, name) {
                all.extend(variant.artefacts_for(target).unwrap_or_default());
            }
        }
        all
    }

    /// Whichever slot of the model holds this version.
    pub fn held(&self, model: &ModelName, version: &VersionName) -> Option<&SlotVersion> {
        let slot = self.state.models.get(model)?;
        let all = [&slot.pending, &slot.active, &slot.previous];
        let mut all = all.into_iter().flatten();
        all.find(|v| v.version() == version)
    }

    /// The state to persist.
    pub fn state(&self) -> &DeviceState {
        &self.state
    }

    /// The power state taken last.
    pub fn power_state(&self) -> PowerState {
        self.power
    }

    /// The power state whose rung a runner serves: the present one, or, while the variant of that is
    /// still on its way, the first that this variant is for.
    pub fn rung_of(
        &self,
        model: &ModelName,
        version: &VersionName,
        variant: &VariantName,
    ) -> PowerState {
        let ladder = self.held(model, version).map(|v| &v.ladder);
        let of = |ladder: &Ladder| match ladder.rung(self.power) {
            Some(present) if present == variant => None,
            _ => ladder.first_of(variant),
        };
        ladder.and_then(of).unwrap_or(self.power)
    }

    /// Artefacts that must not be deleted: everything of active, previous and pending versions.
    pub fn live_artefacts(&self) -> BTreeSet<Digest> {
        let slots = self.state.models.values();
        let versions = slots.flat_map(|s| {
            let active = s.active.as_ref();
            let active = active.filter(|_| !mutants::is(Mutant::CollectActive));
            [active, s.previous.as_ref(), s.pending.as_ref()]
        });
        let needed = versions.flatten().flat_map(|v| self.needed(v));
        let mut all: BTreeSet<Digest> = needed.map(|a| a.digest).collect();
        all.extend(self.of_code_in_use());
        all
    }

    /// The next time at which something is to be done without an event, and what.
    pub fn next_deadline(&self) -> Option<(Millis, &'static str)> {
        let retries = self.live.values().filter_map(|l| l.retry_at);
        let retries = retries.map(|at| (at, "the next attempt to fetch"));
        let better = self.live.values().filter_map(|l| l.better.retry_at);
        let better = better.map(|at| (at, "the next attempt to fetch better code"));
        let spares = self.live.values().filter_map(|l| l.spare.as_ref());
        let spares = spares.map(|(_, until)| (*until, "the end of a probation"));
        let windows = self.next_window().map(|at| (at, "a window"));
        retries
            .chain(better)
            .chain(spares)
            .chain(windows)
            .min_by_key(|(at, _)| *at)
    }
}

impl Live {
    /// Asks for artefacts once, and again when a retry is due.
    fn fetch(
        &mut self,
        turn: &mut Turn,
        model: &ModelName,
        version: VersionName,
        artefacts: Vec<ArtefactRef>,
    ) {
        let due = self.retry_at.is_some_and(|at| turn.now >= at);
        if self.fetching && !due {
            return;
        }
        self.fetching = true;
        self.retry_at = None;
        turn.effects.push(DeviceEffect::Fetch {
            model: model.clone(),
            version,
            artefacts,
        });
    }

    /// Lets a download under way end: its window is shut.
    fn leave(&mut self, turn: &mut Turn, artefacts: Vec<ArtefactRef>) {
        if std::mem::take(&mut self.fetching) {
            self.retry_at = None;
            turn.report = true;
            turn.effects.push(DeviceEffect::StopFetch { artefacts });
        }
    }

    /// Starts what is wanted and not there, routes to the active rung once it is ready, and
    /// stops the rest but the spare. What requests go to is stopped only after the switch.
    fn run(
        &mut self,
        turn: &mut Turn,
        model: &ModelName,
        wanted: &[Wanted],
        active: Option<&RunnerKey>,
    ) {
        for Wanted {
            key,
            target,
            self_test,
        } in wanted
        {
            if !self.runners.contains_key(key) {
                self.runners.insert(key.clone(), false);
                self.targets.remove(key);
                self.targets.extend(target.map(|t| (key.clone(), t)));
                turn.effects.push(DeviceEffect::StartRunner {
                    model: model.clone(),
                    version: key.0.clone(),
                    variant: key.1.clone(),
                    self_test: *self_test,
                });
            }
        }
        if let Some(key) = active
            && (self.runners.get(key) == Some(&true) || mutants::is(Mutant::RouteEarly))
            && self.routed.as_ref() != Some(key)
        {
            self.routed = Some(key.clone());
            turn.report = true;
            turn.effects.push(DeviceEffect::Switch {
                model: model.clone(),
                version: key.0.clone(),
                variant: key.1.clone(),
            });
        }
        let spare = self.spare.as_ref().map(|(key, _)| key);
        let keep = |k: &RunnerKey| {
            wanted.iter().any(|w| w.key == *k)
                || self.routed.as_ref() == Some(k)
                || spare == Some(k)
        };
        let stop: Vec<RunnerKey> = self.runners.keys().filter(|k| !keep(k)).cloned().collect();
        for key in stop {
            self.runners.remove(&key);
            turn.stop(model, key);
        }
        self.targets.retain(|k, _| self.runners.contains_key(k));
        let starting = self.better.starting.take();
        self.better.starting = starting.filter(|(k, _)| self.runners.get(k) == Some(&true));
    }
}

impl Turn {
    pub(super) fn stop(&mut self, model: &ModelName, (version, variant): RunnerKey) {
        self.effects.push(DeviceEffect::StopRunner {
            model: model.clone(),
            version,
            variant,
        });
    }

    fn finish(self) -> Vec<DeviceEffect> {
        let mut all = Vec::with_capacity(self.effects.len() + 3);
        let persist = self.dirty && !mutants::is(Mutant::SkipPersist);
        all.extend(persist.then_some(DeviceEffect::Persist));
        all.extend(self.effects);
        all.extend(self.collect.then_some(DeviceEffect::Collect));
        all.extend(self.report.then_some(DeviceEffect::Report));
        all
    }
}
