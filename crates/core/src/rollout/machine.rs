//! The state machine: events in, effects out.

use super::pace::Move;
use super::sample::Pairs;
use super::state::{DeviceRollout, Rollout, RolloutState};
use crate::assignment::Ladder;
use crate::event::{Event, Severity};
use crate::mutants::{self, Mutant};
use crate::names::{DeviceName, VersionName};
use crate::telemetry::ModelStatus;
use crate::time::Millis;
use crate::window::Schedule;
use std::sync::Arc;
use std::time::Duration;

/// What happens to a rollout. Nearly all that happens is a report, so that a smaller event would save
/// nothing, and a box cost an allocation.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)]
pub enum RolloutEvent {
    /// An operator starts it.
    Start {
        /// Who.
        actor: String,
    },
    /// A device reports the state of the model; absent when it runs no such model.
    Reported {
        /// The device.
        device: DeviceName,
        /// Its state.
        status: Option<Box<ModelStatus>>,
        /// Inferences that it has reported for the new version's code since the rollout began.
        inferences: u64,
        /// What it measured before and after on each rung, once there is something of both.
        measured: Option<Pairs>,
    },
    /// A device left the fleet.
    Gone {
        /// The device.
        device: DeviceName,
    },
    /// An operator holds it.
    Pause {
        /// Who.
        actor: String,
    },
    /// An operator lets it go on.
    Resume {
        /// Who.
        actor: String,
    },
    /// An operator approves the wave that waits.
    Approve {
        /// Who.
        actor: String,
        /// Why, in the operator's words.
        why: Option<String>,
    },
    /// An operator lets the present wave pass whatever its gates say.
    Promote {
        /// Who.
        actor: String,
        /// All waves that are left too, at once.
        full: bool,
    },
    /// An operator takes it back.
    Abort {
        /// Who.
        actor: String,
    },
    /// A newer rollout of the deployment takes over.
    Supersede {
        /// Who.
        actor: String,
    },
    /// Time passed.
    Tick,
}

/// What the driver shall do.
#[derive(Debug, Clone, PartialEq)]
pub enum RolloutEffect {
    /// Persist the rollout's state before anything that follows is done.
    Keep,
    /// Persist where a device stands, before anything that follows is done.
    KeepDevice {
        /// The device.
        device: DeviceName,
    },
    /// Assign the new version.
    Assign {
        /// To whom.
        device: DeviceName,
        /// The version.
        version: VersionName,
        /// The ladder.
        ladder: Arc<Ladder>,
        /// When it may fetch and switch; at any time when missing.
        schedule: Option<Arc<Schedule>>,
    },
    /// Assign what the device had before.
    AssignPrevious {
        /// To whom.
        device: DeviceName,
        /// The version; `None` means no version of this model.
        version: Option<VersionName>,
    },
    /// Remember how a device moved.
    Moved {
        /// The device.
        device: DeviceName,
        /// How.
        how: Move,
    },
    /// The deployment's version is now this one.
    Promote {
        /// The version.
        version: VersionName,
    },
    /// Record an event.
    Note(Event),
}

impl Rollout {
    /// Takes in an event and says what to do: first what to persist, then the rest, all as one
    /// step. Without effects nothing has changed.
    pub fn handle(&mut self, now: Millis, event: RolloutEvent) -> Vec<RolloutEffect> {
        let mut effects = Vec::new();
        if self.state.is_final() {
            return effects;
        }
        let approved = self.approved.len();
        let before = (self.state.clone(), self.waived, self.merged_from);
        self.take(now, event, &mut effects);
        self.evaluate(now, &mut effects);
        if (&self.state, self.waived, self.merged_from) != (&before.0, before.1, before.2)
            || self.approved.len() != approved
        {
            effects.push(RolloutEffect::Keep);
        }
        let first = |e: &RolloutEffect| {
            !matches!(e, RolloutEffect::Keep | RolloutEffect::KeepDevice { .. })
        };
        effects.sort_by_key(first);
        effects
    }

    fn take(&mut self, now: Millis, event: RolloutEvent, effects: &mut Vec<RolloutEffect>) {
        match event {
            RolloutEvent::Start { actor } => {
                if self.state == RolloutState::Planned {
                    self.note(effects, now, Severity::Info, &actor, "Started", "started");
                    self.reach_wave(now, 0, effects);
                }
            }
            RolloutEvent::Reported {
                device,
                status,
                inferences,
                measured,
            } => {
                self.reported(now, &device, status.as_deref(), inferences, effects);
                self.measure(device, measured, effects);
            }
            RolloutEvent::Gone { device } => {
                self.move_on(&device, DeviceRollout::Gone, effects);
            }
            RolloutEvent::Pause { actor } => self.pause(now, actor, effects),
            RolloutEvent::Resume { actor } => self.resume(now, &actor, effects),
            RolloutEvent::Approve { actor, why } => {
                self.approve(now, &actor, why.as_deref(), effects);
            }
            RolloutEvent::Promote { actor, full: false } => self.waive(now, &actor, effects),
            RolloutEvent::Promote { actor, full: true } => self.merge(now, &actor, effects),
            RolloutEvent::Abort { actor } => {
                let why = format!("aborted by {actor}");
                self.roll_back(now, &actor, &why, effects);
            }
            RolloutEvent::Supersede { actor } => {
                self.state = RolloutState::Superseded;
                let what = "superseded by a newer rollout";
                self.note(effects, now, Severity::Info, &actor, "Superseded", what);
            }
            RolloutEvent::Tick => {}
        }
    }

    /// Moves a device on.
    pub(super) fn move_on(
        &mut self,
        device: &DeviceName,
        to: DeviceRollout,
        effects: &mut Vec<RolloutEffect>,
    ) {
        if self.devices.set(device, to) {
            let device = device.clone();
            effects.push(RolloutEffect::KeepDevice { device });
        }
    }

    /// The next time at which [`RolloutEvent::Tick`] must come, and why.
    pub fn next_deadline(&self) -> Option<(Millis, &'static str)> {
        let end = self.first_end().filter(|_| self.is_under_way());
        let end = end.filter(|_| !mutants::is(Mutant::EndlessPhase));
        let end = end.map(|(at, ..)| (at, "end of a phase"));
        end.into_iter().chain(self.wave_deadline()).min()
    }

    fn wave_deadline(&self) -> Option<(Millis, &'static str)> {
        let limit = Duration::from_secs(self.plan.spec.wave_deadline_s);
        match self.state {
            RolloutState::Running { wave, since } => {
                let bake = Duration::from_secs(self.plan.spec.bake_s);
                if mutants::is(Mutant::NoDeadline) {
                    return None;
                }
                // A device without its inferences waits for reports, not for the time.
                let first = self.devices.baking();
                let baked = first.map(|(since, _)| (since.plus(bake), "bake time over"));
                let deadline = (since.plus(self.time_of(wave)), "wave deadline");
                let opens = self.devices.held_shortest();
                let opens = opens.map(|(at, _)| (*at, "window opens"));
                baked.into_iter().chain(opens).chain([deadline]).min()
            }
            RolloutState::RollingBack { since, .. } => {
                Some((since.plus(limit), "rollback deadline"))
            }
            _ => None,
        }
    }

    pub(super) fn note(
        &self,
        effects: &mut Vec<RolloutEffect>,
        at: Millis,
        severity: Severity,
        actor: &str,
        reason: &str,
        message: &str,
    ) {
        effects.push(RolloutEffect::Note(Event {
            at,
            severity,
            subject: format!("rollout/{}", self.plan.name),
            actor: actor.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
        }));
    }

    fn pause(&mut self, now: Millis, actor: String, effects: &mut Vec<RolloutEffect>) {
        if let RolloutState::Running { wave, since } = self.state {
            self.note(effects, now, Severity::Info, &actor, "Paused", "paused");
            let ran_ms = u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX);
            self.state = RolloutState::Paused {
                by: actor,
                wave,
                ran_ms,
                why: None,
            };
        }
    }

    /// The gates of the present wave are not asked any more; a paused rollout goes on.
    fn waive(&mut self, now: Millis, actor: &str, effects: &mut Vec<RolloutEffect>) {
        if let RolloutState::Running { wave, .. } | RolloutState::Paused { wave, .. } = self.state {
            self.waived = Some(wave);
            let what = format!("the gates of wave {} are waived", wave + 1);
            self.note(effects, now, Severity::Warning, actor, "GatesWaived", &what);
            self.resume(now, actor, effects);
        }
    }

    /// All waves from the present one on move as one from now on, within the same bounds, and no
    /// gate is asked any more; a paused rollout goes on. That approves those that ask for it.
    fn merge(&mut self, now: Millis, actor: &str, effects: &mut Vec<RolloutEffect>) {
        if let RolloutState::Running { wave, .. }
        | RolloutState::Paused { wave, .. }
        | RolloutState::AwaitingApproval { wave, .. } = self.state
        {
            if self.merged_from.is_some() {
                return self.resume(now, actor, effects);
            }
            let last = self.plan.waves.len().saturating_sub(1);
            self.merged_from = Some(wave);
            self.waived = Some(last);
            let asking = (wave..=last).filter(|wave| self.lacks_approval(*wave));
            let asking: Vec<usize> = asking.collect();
            self.approved.extend(asking);
            let what = format!("{} follow at once, the gates are waived", self.called(last));
            self.note(effects, now, Severity::Warning, actor, "GatesWaived", &what);
            self.resume(now, actor, effects);
            self.state = RolloutState::Running {
                wave: last,
                since: now,
            };
        }
    }

    fn resume(&mut self, now: Millis, actor: &str, effects: &mut Vec<RolloutEffect>) {
        if let RolloutState::Paused { wave, ran_ms, .. } = self.state {
            self.note(effects, now, Severity::Info, actor, "Resumed", "resumed");
            let since = Millis(now.0.saturating_sub(ran_ms));
            self.resumed_at = Some(now);
            self.state = RolloutState::Running { wave, since };
        }
    }
}
