//! What is checked after every event: the invariants of the core, against what really happened.

use crate::event::Key;
use crate::queue::Time;
use crate::truth::Truth;
use sandpiper_core::assignment::{Assignment, Generation};
use sandpiper_core::bandwidth::Budget;
use sandpiper_core::chunks::CHUNK_BYTES;
use sandpiper_core::digest::Digest;
use sandpiper_core::fleet::{Fleet, Outbox};
use sandpiper_core::invariants::{self, Violation};
use sandpiper_core::names::{DeviceName, RolloutName, VersionName};
use sandpiper_core::rollout::{DeviceRollout, Rollout, RolloutState};
use sandpiper_core::time::Millis;
use sandpiper_core::view::Kind;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A violation and when it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Time of the world.
    pub at: Time,
    /// What.
    pub violation: Violation,
}

fn states(rollout: &Rollout) -> BTreeMap<DeviceName, DeviceRollout> {
    let devices = rollout.devices.iter();
    devices.map(|(d, s)| (d.clone(), s.clone())).collect()
}

/// A violation of an invariant that only this world can look at.
pub(crate) fn broken(name: &'static str, detail: String) -> Violation {
    Violation { name, detail }
}

/// What a device really did.
#[derive(Debug, Default)]
pub struct Deeds {
    /// Inferences in closed windows.
    pub closed: BTreeMap<Key, u64>,
    /// Inferences served, by version and the generation they were served under.
    pub served: BTreeMap<(VersionName, Generation), u64>,
}

#[derive(Debug, Default)]
struct Seen {
    rollouts: BTreeMap<RolloutName, (RolloutState, BTreeMap<DeviceName, DeviceRollout>)>,
    assignments: BTreeMap<DeviceName, Assignment>,
}

/// Everything that checks remember.
#[derive(Debug, Default)]
pub struct Checks {
    /// The first violation.
    pub found: Option<Found>,
    /// What devices really did.
    pub deeds: BTreeMap<DeviceName, Deeds>,
    /// What is true of versions.
    pub truth: Truth,
    /// Newest generation that was sent to each device.
    pub sent: BTreeMap<DeviceName, Generation>,
    /// Digests of every assignment that was signed.
    pub signed: BTreeSet<Digest>,
    /// What every budget of bandwidth has sent that its rate has not made up for, in thousandths of
    /// a byte, and as of when.
    sent_ahead: BTreeMap<Arc<str>, (u64, Time)>,
    seen: Seen,
    /// Generation of a device when a rollout assigned it.
    assigned_at: BTreeMap<(RolloutName, DeviceName), Generation>,
    /// Rollouts by how they ended, and devices by how they did, for the report.
    pub ends: BTreeMap<&'static str, u64>,
    /// Checks made.
    pub made: u64,
}

impl Checks {
    /// Takes the result of a check. Only the first violation counts.
    pub fn hold(&mut self, at: Time, result: Result<(), Violation>) {
        self.made += 1;
        if let (None, Err(violation)) = (&self.found, result) {
            self.found = Some(Found { at, violation });
        }
    }

    /// Bytes were sent under these budgets: of each, in any time, at most its rate and a burst of a
    /// second or a piece.
    pub fn passed(&mut self, at: Time, budgets: &[Budget], bytes: u64) {
        for budget in budgets {
            let rate = budget.bytes_per_s;
            let burst = rate.max(CHUNK_BYTES as u64) * 1_000;
            let (ahead, then) = self
                .sent_ahead
                .get(&budget.name)
                .copied()
                .unwrap_or((0, at));
            let ahead = ahead.saturating_sub(rate * (at - then)) + bytes * 1_000;
            self.sent_ahead
                .insert(Arc::clone(&budget.name), (ahead, at));
            let result = match ahead <= burst {
                true => Ok(()),
                false => Err(broken(
                    "bandwidth-budget-is-kept",
                    format!(
                        "{}: {} bytes ahead of {rate} a second",
                        budget.name,
                        ahead / 1_000
                    ),
                )),
            };
            self.hold(at, result);
        }
    }

    /// The controller has decided something, by its clock at `clock`.
    pub fn decided(&mut self, at: Time, clock: Millis, fleet: &Fleet, outbox: &Outbox) {
        for event in outbox.noted.iter().filter(|e| e.reason == "Invariant") {
            let what = format!("{}: {}", event.subject, event.message);
            self.hold(at, Err(broken("production-finds-no-violation", what)));
        }
        self.hold(at, invariants::one_open_rollout(fleet));
        let mut rollouts = false;
        for changed in &outbox.changed {
            match changed.kind {
                Kind::Rollouts => rollouts = true,
                Kind::Devices => self.device_changed(at, fleet, &changed.name),
                _ => {}
            }
        }
        if rollouts {
            for rollout in fleet.rollouts().values() {
                self.stepped(at, clock, fleet, rollout);
            }
        }
    }

    fn device_changed(&mut self, at: Time, fleet: &Fleet, name: &str) {
        let Some((name, record)) = DeviceName::new(name)
            .ok()
            .and_then(|name| fleet.devices().get_key_value(&name))
        else {
            return;
        };
        let now = record.assignment();
        let before = self.seen.assignments.get(name);
        if before.is_none_or(|b| b.models != now.models || b.generation != now.generation) {
            if let Some(before) = before {
                let rises = invariants::generation_rises(before.generation, now.generation);
                self.hold(at, rises);
            }
            self.hold(at, invariants::assignment(&now, name));
            self.seen.assignments.insert(name.clone(), now);
        }
        let learned = fleet.learned().get(name);
        let deeds = self.deeds.get(name);
        let mut over = Ok(());
        for (key, learned) in learned.into_iter().flatten() {
            let really = deeds.and_then(|d| d.closed.get(key)).copied().unwrap_or(0);
            over = over.and(invariants::counted_once(name, learned.inferences, really));
        }
        self.hold(at, over);
    }

    fn stepped(&mut self, at: Time, clock: Millis, fleet: &Fleet, rollout: &Rollout) {
        let name = &rollout.plan.name;
        let before = self.seen.rollouts.get(name);
        if before
            .is_some_and(|(state, devices)| *state == rollout.state && rollout.devices == *devices)
        {
            return;
        }
        let waiting = || {
            let devices = rollout.devices.iter();
            devices.map(|(d, _)| (d.clone(), DeviceRollout::Waiting))
        };
        let (state, devices) = match before {
            Some((state, devices)) => (state.clone(), devices.clone()),
            None => (RolloutState::Planned, waiting().collect()),
        };
        self.hold(at, invariants::rollout(rollout));
        let step = invariants::rollout_step(&state, &devices, rollout, clock);
        self.hold(at, step);
        for (device, to) in rollout.devices.iter() {
            if devices.get(device) == Some(to) {
                continue;
            }
            let key = (name.clone(), device.clone());
            let generation = fleet.devices().get(device).map(|d| d.generation);
            match to {
                DeviceRollout::Assigned { .. }
                    if devices.get(device).is_some_and(DeviceRollout::is_untouched) =>
                {
                    self.assigned_at.insert(key, generation.unwrap_or_default());
                }
                DeviceRollout::Serving { .. } => {
                    // What was reported before the assignment arrived proves nothing about it.
                    let since = self.assigned_at.get(&key).copied().unwrap_or_default();
                    let record = fleet.devices().get(device);
                    let seen = record.and_then(|r| Some(r.observation.as_ref()?.generation));
                    let result = match seen.is_some_and(|seen| seen >= since) {
                        true => Ok(()),
                        false => Err(broken(
                            "a-report-is-of-its-assignment",
                            format!("{name}: {device} reported {seen:?} of {}", since.0),
                        )),
                    };
                    self.hold(at, result);
                }
                DeviceRollout::Succeeded => {
                    let since = self.assigned_at.get(&key).copied().unwrap_or_default();
                    let served = self.served(device, &rollout.plan.spec.version, since);
                    let least = rollout.plan.spec.min_inferences;
                    let served = invariants::success_was_served(name, device, served, least);
                    self.hold(at, served);
                }
                _ => {}
            }
        }
        self.blast(at, rollout);
        self.gated(at, rollout);
        if rollout.state.is_final() && !state.is_final() {
            *self.ends.entry(rollout.state.word()).or_default() += 1;
        }
        let seen = (rollout.state.clone(), states(rollout));
        self.seen.rollouts.insert(name.clone(), seen);
    }

    fn served(&self, device: &DeviceName, version: &VersionName, since: Generation) -> u64 {
        let deeds = self.deeds.get(device);
        let all = deeds.into_iter().flat_map(|d| &d.served);
        let ours = all.filter(|((v, g), _)| v == version && *g >= since);
        ours.map(|(_, count)| count).sum()
    }

    /// A version that no device can serve moves no device beyond the first wave.
    fn blast(&mut self, at: Time, rollout: &Rollout) {
        // Unless an operator let all waves follow before the first was over.
        if rollout.merged_from == Some(0)
            || !self.truth.quality(&rollout.plan.spec.version).is_hopeless()
        {
            return;
        }
        let tolerated = rollout.plan.spec.max_failures as usize;
        let later = rollout.plan.waves.iter().skip(1).flatten();
        let moved = later.filter(|d| {
            rollout
                .devices
                .get(&d.device)
                .is_some_and(|s| !s.is_untouched() && *s != DeviceRollout::Gone)
        });
        // A first wave that is no larger than what may fail proves nothing.
        let first = rollout.plan.waves.first().map_or(0, Vec::len);
        if first > tolerated && moved.count() > 0 {
            let what = rollout.plan.name.to_string();
            self.hold(
                at,
                Err(broken("a-bad-version-stops-in-its-first-wave", what)),
            );
        }
    }

    /// A version that is far slower or hungrier than the one before, and that no operator has let
    /// pass, does not get past gates that look at it. Figures of few devices may deceive.
    fn gated(&mut self, at: Time, rollout: &Rollout) {
        let spec = &rollout.plan.spec;
        let (Some(_), Some(previous)) = (&spec.gates, &rollout.plan.previous) else {
            return;
        };
        let (was, is) = (
            self.truth.excess(previous),
            self.truth.excess(&spec.version),
        );
        let worse = is.0 >= was.0 * 1.3 || is.1 >= was.1 * 1.3;
        let promoted = rollout.state == RolloutState::Promoted;
        let waived = rollout.waived.is_some() || rollout.measured.len() < 8;
        if promoted && worse && !waived {
            let readings = rollout.readings();
            let what = format!("{}: {} {readings:?}", rollout.plan.name, spec.version);
            self.hold(at, Err(broken("a-gate-stops-what-it-measures", what)));
        }
    }

    /// The controller was killed after a commit: what would it know if it started now?
    pub fn restart(&mut self, at: Time, before: Option<&Fleet>, after: Option<Fleet>) {
        let result = match (before, &after) {
            (Some(before), Some(after)) => invariants::nothing_forgotten(before, after),
            _ => Err(broken(
                "the-store-can-be-loaded",
                "a record is damaged".to_owned(),
            )),
        };
        self.hold(at, result);
    }

    /// What was decided and not committed never was.
    pub fn forget_fleet(&mut self) {
        self.seen = Seen::default();
    }

    /// The controller was started on its store.
    pub fn loaded(&mut self, at: Time, fleet: Option<&Fleet>) {
        let Some(fleet) = fleet else {
            let what = "a record is damaged".to_owned();
            return self.hold(at, Err(broken("the-store-can-be-loaded", what)));
        };
        let sent = std::mem::take(&mut self.sent);
        for (name, generation) in &sent {
            let has = fleet.devices().get(name).map(|d| d.generation);
            let survives = invariants::generation_survives(*generation, has.unwrap_or_default());
            self.hold(at, survives);
        }
        self.sent = sent;
        for (name, rollout) in fleet.rollouts() {
            let seen = (rollout.state.clone(), states(rollout));
            self.seen.rollouts.insert(name.clone(), seen);
        }
        for (name, record) in fleet.devices() {
            let assignment = record.assignment();
            self.seen.assignments.insert(name.clone(), assignment);
        }
    }
}
