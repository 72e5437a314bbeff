//! What to do when something fails: try again, climb elsewhere, or go back.

use super::machine::{Reconciler, RunnerKey, Turn};
use super::state::{FailedCode, MAX_FAILED, ModelSlot};
use crate::digest::{ArtefactRef, Digest};
use crate::names::ModelName;
use crate::telemetry::{FailureKind, ModelFailure};
use std::time::Duration;

/// Deaths of a runner within [`DEATH_WINDOW`] that make its variant a failed one.
pub const MAX_DEATHS: usize = 3;
/// Time within which [`MAX_DEATHS`] are counted.
pub const DEATH_WINDOW: Duration = Duration::from_secs(60);
/// Times in a row that the agent may hang over a version before that is a failed one.
pub const MAX_HANGS: u32 = 3;
/// An agent that lived longer than this before it hung begins a new row.
pub const HANG_WINDOW: Duration = Duration::from_secs(3600);
/// Failed fetches after which a version is given up until the next assignment.
pub const MAX_FETCH_FAILURES: u32 = 5;
/// Wait before the second fetch; doubles with every failure.
pub const FETCH_RETRY: Duration = Duration::from_secs(2);

impl Reconciler {
    /// The network may heal, so a fetch is tried again; a full disk or wrong bytes do not.
    pub(super) fn fetch_failed(
        &mut self,
        turn: &mut Turn,
        artefact: ArtefactRef,
        kind: FailureKind,
        message: &str,
    ) {
        self.better_not_fetched(turn.now, artefact, kind);
        let waits = |slot: &ModelSlot| {
            let pending = slot.pending.as_ref()?;
            let missing = self.missing(pending).contains(&artefact);
            missing.then(|| pending.ladder.rungs.values().next().cloned())?
        };
        let slots = self.state.models.iter();
        let waiting: Vec<_> = slots
            .filter_map(|(model, slot)| Some((model.clone(), waits(slot)?)))
            .collect();
        for (model, variant) in waiting {
            let live = self.live.entry(model.clone()).or_default();
            if live.retry_at.is_some() {
                continue; // Another artefact of the same attempt.
            }
            live.fetch_failures += 1;
            if kind == FailureKind::Fetch && live.fetch_failures < MAX_FETCH_FAILURES {
                let wait = FETCH_RETRY.saturating_mul(1 << (live.fetch_failures - 1));
                live.retry_at = Some(turn.now.plus(wait));
                continue;
            }
            if let Some(slot) = self.state.models.get_mut(&model) {
                slot.pending = None;
                slot.failure = Some(ModelFailure {
                    variant,
                    kind,
                    message: message.to_owned(),
                });
                (turn.dirty, turn.report, turn.collect) = (true, true, true);
            }
        }
    }

    /// A runner that never was ready.
    pub(super) fn runner_failed(
        &mut self,
        turn: &mut Turn,
        model: &ModelName,
        key: RunnerKey,
        kind: FailureKind,
        message: String,
    ) {
        if let Some(code) = self.not_improved(model, &key) {
            // What serves goes on, and so does the version.
            if let Some(slot) = self.state.models.get_mut(model) {
                let failure = ModelFailure {
                    variant: key.1.clone(),
                    kind,
                    message,
                };
                remember(slot, Some(code), &key, &failure);
                (turn.dirty, turn.report, turn.collect) = (true, true, true);
            }
            return;
        }
        let known = self
            .live
            .get_mut(model)
            .is_some_and(|live| live.runners.remove(&key).is_some());
        if known {
            self.condemn(turn, model, &key, kind, message);
        }
    }

    /// A runner that died. One that serves is started anew within its budget; one under test has
    /// failed.
    pub(super) fn died(
        &mut self,
        turn: &mut Turn,
        model: &ModelName,
        key: RunnerKey,
        message: String,
    ) {
        let Some(live) = self.live.get_mut(model) else {
            return;
        };
        let Some(was_ready) = live.runners.remove(&key) else {
            return;
        };
        // Better code that was starting beside it starts in its place.
        live.better.starting.take_if(|(of, _)| *of == key);
        if live.spare.as_ref().is_some_and(|(spare, _)| *spare == key) {
            live.spare = None;
            if live.routed.as_ref() != Some(&key) {
                return; // Nothing depends on it, and it is not started anew.
            }
        }
        let slot = self.state.models.get(model);
        let pending = slot.and_then(|s| s.pending.as_ref());
        let tested =
            !was_ready && (live.routed.is_some() || pending.is_some_and(|p| *p.version() == key.0));
        if live.routed.as_ref() == Some(&key) {
            live.routed = None;
        }
        turn.report = true;
        live.deaths.retain(|at| turn.now.since(*at) < DEATH_WINDOW);
        live.deaths.push_back(turn.now);
        if tested || live.deaths.len() >= MAX_DEATHS {
            live.deaths.clear();
            self.condemn(turn, model, &key, FailureKind::Crash, message);
        }
    }

    /// The agent hung over a runner. The same version gets its chances, then it is given up.
    pub(super) fn hung(
        &mut self,
        turn: &mut Turn,
        model: &ModelName,
        key: &RunnerKey,
        lived: Duration,
    ) {
        if self.held(model, &key.0).is_none() {
            return;
        }
        let Some(slot) = self.state.models.get_mut(model) else {
            return;
        };
        turn.dirty = true;
        let before = match &slot.hung {
            Some((version, times)) if *version == key.0 && lived <= HANG_WINDOW => *times,
            _ => 0,
        };
        let times = before + 1;
        slot.hung = (times < MAX_HANGS).then(|| (key.0.clone(), times));
        if times >= MAX_HANGS {
            let message = format!("the agent hung {times} times in a row over it");
            self.condemn(turn, model, key, FailureKind::Crash, message);
        }
    }

    /// Marks the code of a runner as failed, never to be tried again, and falls back.
    fn condemn(
        &mut self,
        turn: &mut Turn,
        model: &ModelName,
        key: &RunnerKey,
        kind: FailureKind,
        message: String,
    ) {
        let code = self.code_run(model, key);
        let serves = self.live.get(model).is_some_and(|l| l.routed.is_some());
        let Some(slot) = self.state.models.get_mut(model) else {
            return;
        };
        (turn.dirty, turn.report) = (true, true);
        let failure = ModelFailure {
            variant: key.1.clone(),
            kind,
            message,
        };
        remember(slot, code, key, &failure);
        let slots = &self.state.models;
        let active = slots.get(model).and_then(|slot| slot.active.as_ref());
        let active = active.filter(|v| *v.version() == key.0);
        if active.is_some_and(|v| self.has_sound_code(v, &key.1)) {
            return; // Other code of the same variant is here, and starts in its place.
        }
        let Some(slot) = self.state.models.get_mut(model) else {
            return;
        };
        let pending = slot.pending.as_ref().is_some_and(|v| *v.version() == key.0);
        if pending {
            slot.pending = None;
            slot.failure = Some(failure);
            turn.collect = true;
            return;
        }
        let active = slot.active.as_ref().is_some_and(|v| *v.version() == key.0);
        // A rung that could not be climbed to leaves the device on the one that serves.
        if active && !serves {
            // The failure shown is that of the assigned version, which may be another one.
            if slot.pending.is_none() {
                slot.failure.get_or_insert(failure);
            }
            if slot.previous.is_some() {
                slot.active = slot.previous.take();
                turn.collect = true;
            }
        }
    }
}

fn remember(slot: &mut ModelSlot, code: Option<Digest>, key: &RunnerKey, failure: &ModelFailure) {
    let Some(code) = code else {
        return;
    };
    if slot.failed.iter().any(|f| f.code == code) {
        return;
    }
    if slot.failed.len() >= MAX_FAILED {
        slot.failed.remove(0);
    }
    slot.failed.push(FailedCode {
        code,
        version: key.0.clone(),
        failure: failure.clone(),
    });
}
