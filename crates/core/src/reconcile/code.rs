//! Which native code runs a variant: what is on the disk, and the way to better code.
//!
//! A card may be put into another board, and a system be replaced. Code that is on the disk serves as
//! long as this CPU may run it; better code is fetched beside it, tested in a runner of its own, and
//! takes over without a gap. Code that this CPU may not run is fetched anew, as for a new version.

use super::failure::{FETCH_RETRY, MAX_FETCH_FAILURES};
use super::machine::{Live, Reconciler, RunnerKey, Turn};
use super::state::{DeviceEffect, ModelSlot, SlotVersion};
use crate::digest::{ArtefactRef, Digest};
use crate::manifest::{NativeCode, VariantManifest};
use crate::names::{ModelName, VariantName, VersionName};
use crate::target::Target;
use crate::telemetry::FailureKind;
use crate::time::Millis;
use std::collections::BTreeSet;

/// Better code for what serves, on its way.
#[derive(Debug, Clone, Default)]
pub(super) struct Better {
    /// It has been asked for.
    asked: bool,
    /// Failed fetches so far, and when the next attempt is due.
    failures: u32,
    pub(super) retry_at: Option<Millis>,
    /// The runner that is to be replaced by one of the same variant, and the code of that one, which
    /// is starting.
    pub(super) starting: Option<(RunnerKey, Target)>,
}

impl Reconciler {
    /// Tells, before the first event, what of all that this device may run is on the disk in full.
    /// A machine that is never told takes what is active for complete.
    #[must_use]
    pub fn found(mut self, on_disk: impl Fn(ArtefactRef) -> bool) -> Self {
        let slots = self.state.models.values();
        let versions = slots.flat_map(|s| [&s.active, &s.previous, &s.pending]);
        let mut found = BTreeSet::new();
        for version in versions.flatten() {
            let names = version.ladder.variants().into_iter();
            for variant in names.filter_map(|name| version.manifest.variant(name)) {
                for (target, _) in self.loadable(variant) {
                    found.extend(variant.artefacts_for(target).unwrap_or_default());
                }
            }
        }
        found.retain(|artefact| on_disk(*artefact));
        self.present.extend(found.iter().map(|a| a.digest));
        self.searched = true;
        self
    }

    /// What this device may run of a variant, best first.
    fn loadable<'a>(
        &self,
        variant: &'a VariantManifest,
    ) -> impl Iterator<Item = (Target, &'a NativeCode)> {
        let all = self.targets.iter();
        all.filter_map(|target| Some((*target, variant.native.get(target)?)))
            .filter(|(_, code)| self.runtime_keys.contains(&code.runtime_key))
    }

    fn failed_here(&self, version: &SlotVersion, code: Digest) -> bool {
        let slot = self.state.models.get(&version.manifest.model);
        slot.is_some_and(|slot| slot.failed.iter().any(|f| f.code == code))
    }

    /// The code to run now: the best that is on the disk and has not failed here, or else the best.
    fn target_of(&self, version: &SlotVersion, variant: &VariantManifest) -> Option<Target> {
        let sound = |code: Digest| self.present.contains(&code) && !self.failed_here(version, code);
        self.loadable(variant)
            .find(|(_, code)| sound(code.artefact.digest))
            .or_else(|| self.loadable(variant).next())
            .map(|(target, _)| target)
    }

    /// The code to have: the best that has not failed here.
    fn preferred(&self, version: &SlotVersion, variant: &VariantManifest) -> Option<Target> {
        let mut all = self.loadable(variant);
        all.find(|(_, code)| !self.failed_here(version, code.artefact.digest))
            .map(|(target, _)| target)
    }

    pub(super) fn variant_of<'a>(
        &self,
        version: &'a SlotVersion,
        name: &VariantName,
    ) -> Option<(&'a VariantManifest, Target)> {
        let variant = version.manifest.variant(name)?;
        Some((variant, self.target_of(version, variant)?))
    }

    pub(super) fn code_of<'a>(
        &self,
        version: &'a SlotVersion,
        name: &VariantName,
    ) -> Option<(Target, &'a NativeCode)> {
        let (variant, target) = self.variant_of(version, name)?;
        Some((target, variant.native.get(&target)?))
    }

    /// What a runner of this variant needs: its manifest and the target whose code it loads. For one
    /// that was started, whose code that is.
    pub fn runnable(
        &self,
        model: &ModelName,
        version: &VersionName,
        variant: &VariantName,
    ) -> Option<(&VariantManifest, Target)> {
        let held = self.held(model, version)?;
        let key = (version.clone(), variant.clone());
        let live = self.live.get(model);
        let starting = live.and_then(|l| l.better.starting.as_ref());
        let started = starting
            .filter(|(of, _)| *of == key)
            .map(|(_, target)| *target)
            .or_else(|| live?.targets.get(&key).copied());
        match started {
            Some(target) => Some((held.manifest.variant(variant)?, target)),
            None => self.variant_of(held, variant),
        }
    }

    /// The code of a runner that was started.
    pub(super) fn code_run(&self, model: &ModelName, key: &RunnerKey) -> Option<Digest> {
        let held = self.held(model, &key.0)?;
        let target = self.live.get(model).and_then(|l| l.targets.get(key));
        let code = match target {
            Some(target) => held.manifest.variant(&key.1)?.native.get(target)?,
            None => self.code_of(held, &key.1)?.1,
        };
        Some(code.artefact.digest)
    }

    /// Whether there is sound code of this variant on the disk, as far as that was told.
    pub(super) fn has_sound_code(&self, version: &SlotVersion, name: &VariantName) -> bool {
        let code = self.code_of(version, name);
        let weights = version.manifest.variant(name).and_then(|v| v.weights);
        code.is_some_and(|(_, code)| {
            let digest = code.artefact.digest;
            self.present.contains(&digest)
                && !self.failed_here(version, digest)
                && weights.is_none_or(|w| self.present.contains(&w.digest))
        })
    }

    /// Whether this code has perhaps never been tested here: other code of the variant, which was
    /// replaced last or is to be, has not been deleted yet.
    pub(super) fn perhaps_untested(&self, slot: &ModelSlot, key: &RunnerKey) -> bool {
        let active = slot.active.as_ref().filter(|v| *v.version() == key.0);
        let variant = active.and_then(|v| v.manifest.variant(&key.1));
        let there =
            |(_, code): &(Target, &NativeCode)| self.present.contains(&code.artefact.digest);
        variant.is_some_and(|v| self.loadable(v).filter(there).count() > 1)
    }

    /// What is active and of which nothing that is on the disk can run here has to be fetched, like a
    /// new version; meanwhile the version before serves, if that can.
    pub(super) fn settle(&mut self, turn: &mut Turn) {
        if !self.searched {
            return;
        }
        let runs = |version: &SlotVersion| {
            let mut rungs = version.ladder.variants().into_iter();
            rungs.any(|name| self.has_sound_code(version, name))
        };
        let lost = |slot: &ModelSlot| {
            let active = slot.active.as_ref()?;
            let hopeless = self.wanted_rung(slot, active, self.power).is_none();
            (!hopeless && !runs(active)).then(|| slot.previous.as_ref().is_some_and(runs))
        };
        let slots = self.state.models.iter();
        let all: Vec<(ModelName, bool)> = slots
            .filter_map(|(model, slot)| Some((model.clone(), lost(slot)?)))
            .collect();
        for (model, goes_back) in all {
            let Some(slot) = self.state.models.get_mut(&model) else {
                continue;
            };
            let lost = slot.active.take();
            if goes_back {
                slot.active = slot.previous.take();
            }
            if slot.pending.is_none() {
                slot.pending = lost;
                slot.failure = None;
            }
            (turn.dirty, turn.report, turn.collect) = (true, true, true);
        }
    }

    /// Artefacts of better code for what is active that are not here, unless something newer is on
    /// its way.
    fn better_missing(&self, slot: &ModelSlot) -> Vec<ArtefactRef> {
        let active = slot.active.as_ref();
        let active = active.filter(|_| self.searched && slot.pending.is_none());
        let Some(active) = active else {
            return Vec::new();
        };
        let missing = self.of_preferred(active).into_iter();
        missing
            .filter(|a| !self.present.contains(&a.digest))
            .collect()
    }

    fn of_preferred(&self, version: &SlotVersion) -> BTreeSet<ArtefactRef> {
        let names = version.ladder.variants().into_iter();
        let variants = names.filter_map(|name| version.manifest.variant(name));
        let of = |v: &VariantManifest| v.artefacts_for(self.preferred(version, v)?);
        variants.filter_map(of).flatten().collect()
    }

    /// What better code needs, and what runs until it has taken over.
    pub(super) fn of_code_in_use(&self) -> BTreeSet<Digest> {
        let mut all = BTreeSet::new();
        for (model, slot) in &self.state.models {
            if let Some(active) = slot.active.as_ref().filter(|_| self.searched) {
                all.extend(self.of_preferred(active).iter().map(|a| a.digest));
            }
            let live = self.live.get(model);
            let runners = live.into_iter().flat_map(|l| l.runners.keys());
            all.extend(runners.filter_map(|key| self.code_run(model, key)));
        }
        all
    }

    /// Versions for which something is to be done once a window opens.
    pub(super) fn waiting_for_windows(&self) -> impl Iterator<Item = &SlotVersion> {
        let waits = |(model, slot): (&ModelName, &ModelSlot)| {
            let better = !self.better_missing(slot).is_empty()
                || self.live.get(model).is_some_and(|live| {
                    let mut all = live.targets.iter();
                    all.any(|(key, target)| self.improves(slot, key, *target).is_some())
                });
            better || slot.pending.is_some()
        };
        let all = self.state.models.iter().filter(move |slot| waits(*slot));
        all.filter_map(|(_, slot)| slot.pending.as_ref().or(slot.active.as_ref()))
    }

    /// Other code of the active version's variant that is to run in place of this.
    fn improves(&self, slot: &ModelSlot, key: &RunnerKey, runs: Target) -> Option<Target> {
        let active = slot.active.as_ref().filter(|v| *v.version() == key.0)?;
        let (target, _) = self.code_of(active, &key.1)?;
        (target != runs && self.has_sound_code(active, &key.1)).then_some(target)
    }

    /// Fetches better code for what serves, and starts it beside that once it is there.
    pub(super) fn improve(&mut self, turn: &mut Turn, model: &ModelName) {
        let Some(slot) = self.state.models.get(model) else {
            return;
        };
        let Some(active) = slot.active.as_ref().filter(|_| slot.pending.is_none()) else {
            return;
        };
        let missing = self.better_missing(slot);
        let (fetch, switch) = (self.may_fetch(active), self.may_switch(active));
        let version = active.version().clone();
        let routed = self.live.get(model).and_then(|live| {
            let key = live
                .routed
                .clone()
                .filter(|key| live.runners.get(key) == Some(&true))?;
            let target = self.improves(slot, &key, *live.targets.get(&key)?)?;
            Some((key, target))
        });
        let Some(live) = self.live.get_mut(model) else {
            return;
        };
        if missing.is_empty() {
            live.better.asked = false;
        } else if fetch.is_open() {
            live.ask_for_better(turn, model, version, missing);
        } else if std::mem::take(&mut live.better.asked) {
            live.better.retry_at = None;
            turn.effects
                .push(DeviceEffect::StopFetch { artefacts: missing });
        }
        if let Some((key, target)) = routed.filter(|_| switch.is_open())
            && live.better.starting.is_none()
        {
            turn.effects.push(DeviceEffect::StartRunner {
                model: model.clone(),
                version: key.0.clone(),
                variant: key.1.clone(),
                self_test: true,
            });
            live.better.starting = Some((key, target));
        }
    }

    /// Whether what got ready is better code, which takes over at once.
    pub(super) fn improved(&mut self, turn: &mut Turn, model: &ModelName, key: &RunnerKey) -> bool {
        let Some(live) = self.live.get_mut(model) else {
            return false;
        };
        let Some((key, target)) = live.better.starting.take_if(|(of, _)| of == key) else {
            return false;
        };
        live.targets.insert(key.clone(), target);
        (turn.report, turn.collect) = (true, true);
        if live.routed.as_ref() == Some(&key) {
            turn.effects.push(DeviceEffect::Switch {
                model: model.clone(),
                version: key.0,
                variant: key.1,
            });
        }
        true
    }

    /// The code of a runner that failed, if it was better code beside one that serves.
    pub(super) fn not_improved(&mut self, model: &ModelName, key: &RunnerKey) -> Option<Digest> {
        let live = self.live.get_mut(model)?;
        let (_, target) = live.better.starting.take_if(|(of, _)| of == key)?;
        let variant = self.held(model, &key.0)?.manifest.variant(&key.1)?;
        Some(variant.native.get(&target)?.artefact.digest)
    }

    /// Better code could not be fetched. What serves goes on; after some attempts it stays as it is
    /// until the agent starts again.
    pub(super) fn better_not_fetched(
        &mut self,
        now: Millis,
        artefact: ArtefactRef,
        kind: FailureKind,
    ) {
        let slots = self.state.models.iter();
        let waiting: Vec<ModelName> = slots
            .filter(|(_, slot)| self.better_missing(slot).contains(&artefact))
            .map(|(model, _)| model.clone())
            .collect();
        for model in waiting {
            let better = &mut self.live.entry(model).or_default().better;
            if better.retry_at.is_some() {
                continue; // Another artefact of the same attempt.
            }
            better.failures += 1;
            if kind == FailureKind::Fetch && better.failures < MAX_FETCH_FAILURES {
                let wait = FETCH_RETRY.saturating_mul(1 << (better.failures - 1));
                better.retry_at = Some(now.plus(wait));
            }
        }
    }
}

impl Live {
    fn ask_for_better(
        &mut self,
        turn: &mut Turn,
        model: &ModelName,
        version: VersionName,
        artefacts: Vec<ArtefactRef>,
    ) {
        let due = self.better.retry_at.is_some_and(|at| turn.now >= at);
        if self.better.asked && !due {
            return;
        }
        self.better.asked = true;
        self.better.retry_at = None;
        turn.effects.push(DeviceEffect::Fetch {
            model: model.clone(),
            version,
            artefacts,
        });
    }
}
