//! The driver of the rollout machine.

use super::outbox::Outbox;
use super::state::Fleet;
use super::{Refused, keys, rollout_record};
use crate::event::Severity;
use crate::invariants;
use crate::mutants::{self, Mutant};
use crate::names::{ActorName, DeploymentName, DeviceName, RolloutName, VersionName};
use crate::rollout::{
    self, Move, Pairs, Rollout, RolloutEffect, RolloutEvent, RolloutSpec, SteerVerb,
};
use crate::telemetry::ModelStatus;
use crate::time::Millis;
use crate::view::Kind;

/// Finished rollouts kept per deployment; the oldest make room.
const MAX_FINISHED: usize = 50;

/// The invariants of a rollout look at all of its devices. With more than these they are checked
/// when its state changes and not at each report, which would cost more than deciding.
const CHECKED_ALWAYS: usize = 1_000;

impl Fleet {
    pub(super) fn active_rollout(&self, deployment: &DeploymentName) -> Option<RolloutName> {
        let mut all = self.rollouts.values();
        let active = all.find(|r| r.plan.spec.deployment == *deployment && !r.state.is_final());
        active.map(|r| r.plan.name.clone())
    }

    /// Plans and starts a rollout; an older one of the same deployment is superseded.
    ///
    /// # Errors
    /// As [`Fleet::plan_rollout`].
    pub fn start_rollout(
        &mut self,
        now: Millis,
        actor: &ActorName,
        spec: RolloutSpec,
    ) -> Result<RolloutName, Refused> {
        let plan = self.plan_rollout(spec)?;
        let name = plan.name.clone();
        let older = self.active_rollout(&plan.spec.deployment);
        if let Some(old) = older.filter(|_| !mutants::is(Mutant::TwoRollouts)) {
            self.drive(
                now,
                &old,
                RolloutEvent::Supersede {
                    actor: actor.to_string(),
                },
            );
        }
        self.forget_finished(&plan.spec.deployment);
        let rollout = Rollout::new(plan, actor.as_str(), now);
        rollout_record::keep_whole(&mut self.out, &rollout);
        self.rollouts.insert(name.clone(), rollout);
        self.drive(
            now,
            &name,
            RolloutEvent::Start {
                actor: actor.to_string(),
            },
        );
        Ok(name)
    }

    fn forget_finished(&mut self, deployment: &DeploymentName) {
        let of_ours = |r: &&Rollout| r.plan.spec.deployment == *deployment && r.state.is_final();
        let finished = self.rollouts.values().filter(of_ours);
        let mut finished: Vec<_> = finished
            .map(|r| (r.created_at, r.plan.name.clone()))
            .collect();
        finished.sort();
        let surplus = (finished.len() + 1).saturating_sub(MAX_FINISHED);
        for (_, name) in finished.into_iter().take(surplus) {
            if let Some(gone) = self.rollouts.remove(&name) {
                rollout_record::delete(&mut self.out, &gone);
            }
            self.out.changed(Kind::Rollouts, &name);
        }
    }

    /// Pauses, resumes, promotes, aborts, retries or undoes a rollout. Retrying starts a new one
    /// of the same kind, undoing a new one to the version before or the one that is named.
    ///
    /// # Errors
    /// [`Refused::NotFound`], or [`Refused::Conflict`] when its state does not allow it.
    pub fn steer_rollout(
        &mut self,
        now: Millis,
        actor: &ActorName,
        name: &RolloutName,
        verb: SteerVerb,
    ) -> Result<(), Refused> {
        let rollout = self.rollouts.get(name);
        let rollout = rollout.ok_or_else(|| Refused::not_found("rollout", name))?;
        let state = &rollout.state;
        verb.fits(state).map_err(|only| {
            let state = state.word();
            Refused::Conflict(format!("rollout {name} is {state}: only {only}"))
        })?;
        may_steer(rollout, actor, &verb)?;
        let by = actor.to_string();
        let event = match verb {
            SteerVerb::Pause => RolloutEvent::Pause { actor: by },
            SteerVerb::Resume => RolloutEvent::Resume { actor: by },
            SteerVerb::Approve { why } => RolloutEvent::Approve { actor: by, why },
            SteerVerb::Promote { full } => RolloutEvent::Promote { actor: by, full },
            SteerVerb::Abort => RolloutEvent::Abort { actor: by },
            SteerVerb::Retry => {
                let spec = rollout.plan.spec.clone();
                return self.start_rollout(now, actor, spec).map(|_| ());
            }
            SteerVerb::Undo { to } => {
                let mut spec = rollout.plan.spec.clone();
                let to = to.or_else(|| rollout.plan.previous.clone());
                let to = to.ok_or_else(|| {
                    Refused::Conflict(format!("before rollout {name} there was no version"))
                })?;
                if to == spec.version {
                    let text = format!("rollout {name} moved to {to}: name another version");
                    return Err(Refused::Conflict(text));
                }
                spec.version = to;
                return self.start_rollout(now, actor, spec).map(|_| ());
            }
        };
        self.drive(now, name, event);
        Ok(())
    }

    /// Hands an event to a rollout, and queues the machine and its effects together, so that
    /// after a crash either both are there or neither.
    pub(super) fn drive(&mut self, now: Millis, name: &RolloutName, event: RolloutEvent) {
        let Some(rollout) = self.rollouts.get_mut(name) else {
            return;
        };
        let effects = rollout.handle(now, event);
        if effects.is_empty() {
            return;
        }
        let small = rollout.devices.len() <= CHECKED_ALWAYS;
        let checked = small || effects.contains(&RolloutEffect::Keep);
        let violation = checked
            .then(|| invariants::rollout(rollout).err())
            .flatten();
        let deployment = rollout.plan.spec.deployment.clone();
        let model = rollout.plan.model.clone();
        self.out.changed(Kind::Rollouts, name);
        if let Some(violation) = violation {
            let (subject, text) = (format!("rollout/{name}"), violation.to_string());
            self.tell(
                now,
                Severity::Warning,
                subject,
                "controller",
                "Invariant",
                text,
            );
        }
        for effect in effects {
            match effect {
                RolloutEffect::Keep => self.keep_rollout(name, rollout_record::keep_head),
                RolloutEffect::KeepDevice { .. } if mutants::is(Mutant::ForgetProgress) => {}
                RolloutEffect::KeepDevice { device } => {
                    let keep = |out: &mut _, r: &_| rollout_record::keep_device(out, r, &device);
                    self.keep_rollout(name, keep);
                }
                RolloutEffect::Assign {
                    device,
                    version,
                    ladder,
                    schedule,
                } => {
                    self.assign(now, &device, &deployment, version, ladder, schedule);
                }
                RolloutEffect::AssignPrevious { device, version } => {
                    self.assign_previous(now, &device, &deployment, &model, version);
                }
                RolloutEffect::Moved { device, how } => self.moved(&device, how),
                RolloutEffect::Promote { version } => self.promote(&deployment, version),
                RolloutEffect::Note(event) => self.note(event),
            }
        }
    }

    /// Of one rollout the first move counts: one that stopped serving and began again fetched
    /// nothing.
    fn moved(&mut self, device: &DeviceName, how: Move) {
        if let Some(record) = self.devices.get_mut(device)
            && record
                .moved
                .as_ref()
                .is_none_or(|old| old.rollout != how.rollout)
        {
            record.moved = Some(how);
            self.keep_device(device);
        }
    }

    fn keep_rollout(&mut self, name: &RolloutName, keep: impl FnOnce(&mut Outbox, &Rollout)) {
        if let Some(rollout) = self.rollouts.get(name) {
            keep(&mut self.out, rollout);
        }
    }

    fn promote(&mut self, deployment: &DeploymentName, version: VersionName) {
        if let Some(entry) = self.deployments.get_mut(deployment) {
            entry.version = Some(version);
            self.out.keep(keys::deployment(deployment), entry);
            self.out.changed(Kind::Deployments, deployment);
        }
    }

    pub(super) fn tell_rollouts(&mut self, now: Millis, event: &RolloutEvent) {
        let open = self.rollouts.values().filter(|r| !r.state.is_final());
        let names: Vec<_> = open.map(|r| r.plan.name.clone()).collect();
        for name in names {
            self.drive(now, &name, event.clone());
        }
    }

    /// Tells open rollouts what a live device says now. A report of an older generation was
    /// made before our assignment arrived, and proves nothing about it.
    pub(super) fn report_to_rollouts(&mut self, now: Millis, device: &DeviceName) {
        let Some(record) = self.devices.get(device) else {
            return;
        };
        let Some(observation) = &record.observation else {
            return;
        };
        let stale = observation.generation != record.generation;
        if stale && !mutants::is(Mutant::CountStaleReports) {
            return;
        }
        let profile = record.profile.as_ref();
        let genuine = |status: &&ModelStatus| {
            status.serving.as_ref().is_none_or(|s| {
                self.is_code_of(profile, &status.model, &s.version, &s.variant, s.code)
            })
        };
        let open = self.rollouts.values();
        let open = open.filter(|r| !r.state.is_final() && r.devices.contains(device));
        let events: Vec<(RolloutName, RolloutEvent)> = open
            .filter_map(|rollout| {
                let model = &rollout.plan.model;
                let status = observation.models.iter().find(|s| s.model == *model);
                // A device that says it serves code that nobody published for it has not said
                // anything about the rollout.
                if status.is_some_and(|s| !genuine(&s)) {
                    return None;
                }
                let event = RolloutEvent::Reported {
                    device: device.clone(),
                    status: status.cloned().map(Box::new),
                    inferences: record.served.get(model).copied().unwrap_or(0),
                    measured: self.pairs(device, rollout),
                };
                Some((rollout.plan.name.clone(), event))
            })
            .collect();
        for (name, event) in events {
            self.drive(now, &name, event);
        }
    }

    /// What a device measured under the version before and under the rollout's.
    fn pairs(&self, device: &DeviceName, rollout: &Rollout) -> Option<Pairs> {
        let plan = &rollout.plan;
        plan.spec.gates.as_ref()?;
        let versions = [plan.previous.as_ref()?, &plan.spec.version];
        rollout::pairs(self.rungs.get(device)?, &plan.model, versions)
    }

    /// When something happens without an event.
    pub fn next_deadline(&self) -> Option<Millis> {
        self.rollouts
            .values()
            .filter_map(|r| Some(r.next_deadline()?.0))
            .min()
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Millis) {
        self.tell_rollouts(now, &RolloutEvent::Tick);
    }
}

/// Who may approve is a matter of the rollout; letting all waves follow at once approves them.
fn may_steer(rollout: &Rollout, actor: &ActorName, verb: &SteerVerb) -> Result<(), Refused> {
    let approves = match verb {
        SteerVerb::Approve { .. } => true,
        SteerVerb::Promote { full: true } => {
            (0..rollout.plan.waves.len()).any(|wave| rollout.lacks_approval(wave))
        }
        _ => false,
    };
    match &rollout.plan.spec.approval {
        Some(approval) if approves && !approval.may(actor) => {
            let (name, who) = (&rollout.plan.name, approval.who());
            Err(Refused::Denied(format!(
                "waves of rollout {name} are approved by {who}, not by {actor}"
            )))
        }
        _ => Ok(()),
    }
}
