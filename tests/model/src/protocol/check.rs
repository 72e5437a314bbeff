//! What must hold of a step: the invariants of the core, some of which look at what really happened.

use super::{NEW, World};
use crate::fixtures::{device, version};
use sandpiper_core::assignment::{Assignment, Generation};
use sandpiper_core::fleet::{Fleet, Outbox};
use sandpiper_core::invariants::{self, Violation};
use sandpiper_core::names::DeviceName;
use sandpiper_core::rollout::{DeviceRollout, Rollout};
use std::collections::BTreeMap;

impl World {
    pub(super) fn broken(&mut self, name: &'static str, detail: String) {
        self.hold(Err(Violation { name, detail }));
    }

    fn hold(&mut self, result: Result<(), Violation>) {
        if let (None, Err(violation)) = (&self.violation, result) {
            self.violation = Some(violation);
        }
    }

    /// A controller has decided and committed.
    pub(super) fn decided(&mut self, before: &Fleet, after: &Fleet, outbox: &Outbox) {
        for event in outbox.noted.iter().filter(|e| e.reason == "Invariant") {
            let what = format!("{}: {}", event.subject, event.message);
            self.broken("production-finds-no-violation", what);
        }
        self.hold(invariants::one_open_rollout(after));
        for (name, record) in after.devices() {
            let now = record.assignment();
            let last = self.truth.committed.get(name);
            if last == Some(&now) {
                continue;
            }
            if outbox.writes.is_empty() {
                continue; // It is behind, and has written nothing.
            }
            if let Some(last) = last {
                let rises = invariants::generation_rises(last.generation, now.generation);
                self.hold(rises);
            }
            self.hold(invariants::assignment(&now, name));
            self.truth.committed.insert(name.clone(), now);
        }
        for (name, rollout) in after.rollouts() {
            let old = before.rollouts().get(name);
            if old != Some(rollout) {
                self.stepped(old, rollout, after);
            }
        }
    }

    fn stepped(&mut self, before: Option<&Rollout>, rollout: &Rollout, fleet: &Fleet) {
        self.hold(invariants::rollout(rollout));
        let places: BTreeMap<DeviceName, DeviceRollout> = match before {
            Some(before) => {
                let places = before.devices.iter();
                places.map(|(d, s)| (d.clone(), s.clone())).collect()
            }
            None => {
                let places = rollout.devices.iter();
                places
                    .map(|(d, _)| (d.clone(), DeviceRollout::Waiting))
                    .collect()
            }
        };
        if let Some(before) = before {
            let now = self.now();
            self.hold(invariants::rollout_step(
                &before.state,
                &places,
                rollout,
                now,
            ));
        }
        for (name, place) in rollout.devices.iter() {
            if places.get(name) == Some(place) {
                continue;
            }
            let key = (rollout.plan.name.clone(), name.clone());
            let record = fleet.devices().get(name);
            match place {
                DeviceRollout::Assigned { .. } => {
                    let generation = record.map(|r| r.generation).unwrap_or_default();
                    self.truth.assigned_at.entry(key).or_insert(generation);
                }
                DeviceRollout::Serving { .. } => {
                    let since = self
                        .truth
                        .assigned_at
                        .get(&key)
                        .copied()
                        .unwrap_or_default();
                    let seen = record.and_then(|r| Some(r.observation.as_ref()?.generation));
                    if seen.is_none_or(|seen| seen < since) {
                        let what = format!("{name} reported {seen:?} of {}", since.0);
                        self.broken("a-report-is-of-its-assignment", what);
                    }
                }
                DeviceRollout::Succeeded => {
                    let since = self
                        .truth
                        .assigned_at
                        .get(&key)
                        .copied()
                        .unwrap_or_default();
                    let served = self.served(name, rollout, since);
                    let least = rollout.plan.spec.min_inferences;
                    let rollout = &rollout.plan.name;
                    let served = invariants::success_was_served(rollout, name, served, least);
                    self.hold(served);
                }
                _ => {}
            }
        }
    }

    fn served(&self, name: &DeviceName, rollout: &Rollout, since: Generation) -> u64 {
        let ours = self.truth.served.iter().filter(|(number, v, generation)| {
            device(*number) == *name
                && version(*v) == rollout.plan.spec.version
                && *generation >= since
        });
        ours.count() as u64
    }

    /// A controller that is started now knows what this one had committed.
    pub(super) fn would_know(&mut self, fleet: &Fleet) {
        match self.store.load() {
            Ok(loaded) => self.hold(invariants::nothing_forgotten(fleet, &loaded)),
            Err(error) => self.broken("the-store-can-be-loaded", error.to_string()),
        }
    }

    /// What was sent is known to whoever starts.
    pub(super) fn knows_what_was_sent(&mut self, fleet: &Fleet) {
        let sent: Vec<_> = self.signed.iter().filter(|(_, s)| s.sent).collect();
        let newest: BTreeMap<usize, Generation> =
            sent.into_iter().map(|((d, g), _)| (*d, *g)).collect();
        for (number, generation) in newest {
            let has = fleet.devices().get(&device(number)).map(|d| d.generation);
            let survives = invariants::generation_survives(generation, has.unwrap_or_default());
            self.hold(survives);
        }
    }

    /// Of a generation there is one assignment.
    pub(super) fn is_the_only_one(&mut self, key: &(usize, Generation), assignment: &Assignment) {
        if let Some(signed) = self.signed.get(key).cloned() {
            let one = invariants::one_assignment_of_a_generation(&signed.assignment, assignment);
            self.hold(one);
        }
    }

    /// What must hold of a device after whatever it went through.
    pub(super) fn check_device(&mut self, number: usize) {
        let device = self.devices[number].clone();
        self.hold(invariants::device_state(device.state()));
        for has in [device.state().generation, device.kept().generation] {
            self.hold(invariants::generation_survives(device.told(), has));
        }
        let Some(accepted) = &device.state().assignment else {
            return;
        };
        let known = self.signed.get(&(number, accepted.generation));
        if known.is_none_or(|known| known.assignment != *accepted) {
            let what = format!(
                "pi-{number} runs generation {} of {}",
                accepted.generation.0, accepted.device
            );
            self.broken("only-what-was-signed-for-it", what);
        }
        // The old version serves unless the new one does.
        let serves = device
            .observation()
            .models
            .iter()
            .any(|s| s.serving.is_some());
        let wants = device
            .state()
            .models
            .values()
            .any(|slot| slot.active.is_some());
        if wants && !serves {
            let what = format!("pi-{number} serves nothing of v{NEW}");
            self.broken("never-neither", what);
        }
    }
}
