//! Deployments, and the driver of the rollout machine.

use super::outbox::Outbox;
use super::record::DeploymentRecord;
use super::state::Fleet;
use super::{Refused, keys, rollout_record};
use crate::event::Severity;
use crate::invariants;
use crate::learning::LearnedMap;
use crate::mutants::{self, Mutant};
use crate::names::{ActorName, DeploymentName, DeviceName, ModelName, RolloutName, VersionName};
use crate::policy::Deployment;
use crate::rollout::{
    FleetDevice, Pair, Rollout, RolloutEffect, RolloutEvent, RolloutPlan, RolloutSpec,
    RolloutState, Sample, SteerVerb, plan,
};
use crate::selection::DeviceView;
use crate::sketch::LatencySketch;
use crate::telemetry::ModelStatus;
use crate::time::Millis;
use crate::view::Kind;

/// Finished rollouts kept per deployment; the oldest make room.
const MAX_FINISHED: usize = 50;

/// The invariants of a rollout look at all of its devices. With more than these they are checked
/// when its state changes and not at each report, which would cost more than deciding.
const CHECKED_ALWAYS: usize = 1_000;

impl Fleet {
    /// Makes or changes a deployment. Its model cannot change: that would be another one.
    ///
    /// # Errors
    /// [`Refused::Conflict`].
    pub fn apply_deployment(
        &mut self,
        now: Millis,
        actor: &str,
        deployment: Deployment,
    ) -> Result<(), Refused> {
        let name = deployment.name.clone();
        let old = self.deployments.get(&name);
        if let Some(old) = old.filter(|o| o.deployment.model != deployment.model) {
            let text = format!(
                "deployment {name} is of model {}: delete it first",
                old.deployment.model
            );
            return Err(Refused::Conflict(text));
        }
        let twin = self.deployments.values().find(|o| {
            o.deployment.name != name
                && o.deployment.model == deployment.model
                && o.deployment.selector == deployment.selector
        });
        if let Some(twin) = twin {
            let other = &twin.deployment.name;
            let text = format!("deployment {other} selects the same devices for the same model");
            return Err(Refused::Conflict(text));
        }
        let version = old.and_then(|o| o.version.clone());
        let record = DeploymentRecord {
            deployment,
            version,
        };
        self.out.keep(keys::deployment(&name), &record);
        self.out.changed(Kind::Deployments, &name);
        self.deployments.insert(name.clone(), record);
        let text = "the next rollout selects by it".to_owned();
        self.tell(
            now,
            Severity::Info,
            format!("deployment/{name}"),
            actor,
            "Applied",
            text,
        );
        Ok(())
    }

    /// Deletes a deployment and takes its model from its devices.
    ///
    /// # Errors
    /// [`Refused::NotFound`], or [`Refused::Conflict`] while a rollout runs.
    pub fn delete_deployment(
        &mut self,
        now: Millis,
        actor: &str,
        name: &DeploymentName,
    ) -> Result<(), Refused> {
        if !self.deployments.contains_key(name) {
            return Err(Refused::not_found("deployment", name));
        }
        if let Some(running) = self.active_rollout(name) {
            let text = format!("rollout {running} is under way: abort it first");
            return Err(Refused::Conflict(text));
        }
        self.deployments.remove(name);
        self.out.delete(keys::deployment(name));
        self.out.changed(Kind::Deployments, name);
        let devices: Vec<DeviceName> = self.devices.keys().cloned().collect();
        for device in devices {
            let Some(record) = self.devices.get_mut(&device) else {
                continue;
            };
            let before = record.models.len();
            record.models.retain(|_, m| m.deployment != *name);
            record.previous.retain(|_, m| m.deployment != *name);
            if record.models.len() != before {
                self.renumber(now, &device);
            }
        }
        let text = "its model was taken from its devices".to_owned();
        self.tell(
            now,
            Severity::Info,
            format!("deployment/{name}"),
            actor,
            "Deleted",
            text,
        );
        Ok(())
    }

    fn active_rollout(&self, deployment: &DeploymentName) -> Option<RolloutName> {
        let mut all = self.rollouts.values();
        let active = all.find(|r| r.plan.spec.deployment == *deployment && !r.state.is_final());
        active.map(|r| r.plan.name.clone())
    }

    /// Plans a rollout without doing anything.
    ///
    /// # Errors
    /// [`Refused::NotFound`] or [`Refused::Plan`].
    pub fn plan_rollout(&self, spec: RolloutSpec) -> Result<RolloutPlan, Refused> {
        let entry = self.deployments.get(&spec.deployment);
        let entry = entry.ok_or_else(|| Refused::not_found("deployment", &spec.deployment))?;
        let key = (entry.deployment.model.clone(), spec.version.clone());
        let published = self.versions.get(&key).ok_or_else(|| {
            Refused::not_found("version", format_args!("{} of model {}", key.1, key.0))
        })?;
        let nothing = LearnedMap::new();
        let reported: Vec<_> = self
            .devices
            .values()
            .filter(|d| d.revoked_by.is_none())
            .filter_map(|d| {
                Some((
                    d,
                    d.profile.as_ref()?,
                    d.observation.as_ref()?,
                    d.failed_variants(),
                ))
            })
            .collect();
        let devices: Vec<FleetDevice<'_>> = reported
            .iter()
            .map(|(record, profile, observation, failed)| FleetDevice {
                view: DeviceView {
                    name: &record.name,
                    profile,
                    conditions: &observation.conditions,
                    learned: self.learned.get(&record.name).unwrap_or(&nothing),
                    failed,
                    // A ladder of another version means nothing for this one.
                    current: record
                        .models
                        .get(&key.0)
                        .filter(|m| m.version == key.1)
                        .map(|m| &m.ladder),
                },
                labels: &record.labels,
            })
            .collect();
        let name = self.next_rollout_name(&spec.deployment)?;
        let previous = entry.version.clone();
        Ok(plan(
            name,
            spec,
            &entry.deployment,
            &published.manifest,
            previous,
            &devices,
        )?)
    }

    fn next_rollout_name(&self, deployment: &DeploymentName) -> Result<RolloutName, Refused> {
        let prefix = format!("{deployment}-");
        let numbers = self
            .rollouts
            .keys()
            .filter_map(|name| name.as_str().strip_prefix(&prefix)?.parse::<u64>().ok());
        let next = numbers.max().unwrap_or(0) + 1;
        RolloutName::new(format!("{prefix}{next}")).map_err(|e| Refused::Invalid(e.to_string()))
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
    /// of the same kind, undoing a new one to the version before.
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
        let fits = match verb {
            SteerVerb::Pause => matches!(state, RolloutState::Running { .. }),
            SteerVerb::Resume => matches!(state, RolloutState::Paused { .. }),
            SteerVerb::Promote => matches!(
                state,
                RolloutState::Running { .. } | RolloutState::Paused { .. }
            ),
            SteerVerb::Retry => matches!(
                state,
                RolloutState::RolledBack { .. } | RolloutState::Superseded
            ),
            SteerVerb::Abort => matches!(
                state,
                RolloutState::Planned | RolloutState::Running { .. } | RolloutState::Paused { .. }
            ),
            SteerVerb::Undo => matches!(state, RolloutState::Promoted),
        };
        if !fits {
            let text = format!(
                "rollout {name} is {}: it cannot be steered so",
                state.word()
            );
            return Err(Refused::Conflict(text));
        }
        let by = actor.to_string();
        let event = match verb {
            SteerVerb::Pause => RolloutEvent::Pause { actor: by },
            SteerVerb::Resume => RolloutEvent::Resume { actor: by },
            SteerVerb::Promote => RolloutEvent::Promote { actor: by },
            SteerVerb::Abort => RolloutEvent::Abort { actor: by },
            SteerVerb::Retry => {
                let spec = rollout.plan.spec.clone();
                return self.start_rollout(now, actor, spec).map(|_| ());
            }
            SteerVerb::Undo => {
                let mut spec = rollout.plan.spec.clone();
                spec.version = rollout.plan.previous.clone().ok_or_else(|| {
                    Refused::Conflict(format!("before rollout {name} there was no version"))
                })?;
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
                } => {
                    self.assign(now, &device, &deployment, version, ladder);
                }
                RolloutEffect::AssignPrevious { device, version } => {
                    self.assign_previous(now, &device, &deployment, &model, version);
                }
                RolloutEffect::Promote { version } => self.promote(&deployment, version),
                RolloutEffect::Note(event) => self.note(event),
            }
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
        let open = open.filter(|r| !r.state.is_final() && r.devices.contains_key(device));
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
                    measured: self.pair(device, rollout),
                };
                Some((rollout.plan.name.clone(), event))
            })
            .collect();
        for (name, event) in events {
            self.drive(now, &name, event);
        }
    }

    /// What a device measured under the version before and under the rollout's.
    fn pair(&self, device: &DeviceName, rollout: &Rollout) -> Option<Pair> {
        rollout.plan.spec.gates.as_ref()?;
        let learned = self.learned.get(device)?;
        let of = |version: &VersionName| sample(learned, &rollout.plan.model, version);
        Some(Pair {
            before: of(rollout.plan.previous.as_ref()?)?,
            after: of(&rollout.plan.spec.version)?,
        })
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

/// Figures of all variants of a version together.
fn sample(learned: &LearnedMap, model: &ModelName, version: &VersionName) -> Option<Sample> {
    let of_version = learned
        .iter()
        .filter(|((m, v, _), _)| m == model && v == version);
    let mut all = Sample::default();
    let (mut recent, mut energy_uj, mut metered) = (LatencySketch::default(), 0.0, 0);
    for (_, one) in of_version {
        all.inferences = all.inferences.saturating_add(one.inferences);
        all.errors = all.errors.saturating_add(one.errors);
        all.traps = all.traps.saturating_add(one.traps);
        recent.merge(&one.recent);
        energy_uj += one.energy_uj as f64;
        metered += one.energy_inferences;
    }
    all.latency_us_p95 = recent.quantile(0.95);
    all.energy_nj = (metered > 0).then(|| (energy_uj * 1e3 / metered as f64) as u64);
    (all.inferences > 0).then_some(all)
}
