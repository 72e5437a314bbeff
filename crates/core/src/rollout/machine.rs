//! The state machine: events in, effects out.

use super::state::{DeviceRollout, Rollout, RolloutState};
use crate::assignment::Ladder;
use crate::event::{Event, Severity};
use crate::mutants::{self, Mutant};
use crate::names::{DeviceName, VersionName};
use crate::telemetry::{ModelPhase, ModelStatus};
use crate::time::Millis;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What an operator does with a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SteerVerb {
    /// Hold it.
    Pause,
    /// Let it go on.
    Resume,
    /// Stop it and go back.
    Abort,
    /// Go back to the version before, though it was promoted.
    Undo,
}

/// What happens to a rollout.
#[derive(Debug, Clone)]
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
        ladder: Ladder,
    },
    /// Assign what the device had before.
    AssignPrevious {
        /// To whom.
        device: DeviceName,
        /// The version; `None` means no version of this model.
        version: Option<VersionName>,
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
        let before = self.state.clone();
        self.take(now, event, &mut effects);
        self.evaluate(now, &mut effects);
        if self.state != before {
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
                    self.start_wave(now, 0, effects);
                }
            }
            RolloutEvent::Reported {
                device,
                status,
                inferences,
            } => {
                self.reported(now, &device, status.as_deref(), inferences, effects);
            }
            RolloutEvent::Gone { device } => {
                if self.devices.contains_key(&device) {
                    self.move_on(&device, DeviceRollout::Gone, effects);
                }
            }
            RolloutEvent::Pause { actor } => self.pause(now, actor, effects),
            RolloutEvent::Resume { actor } => self.resume(now, &actor, effects),
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
        if self.devices.get(device) == Some(&to) {
            return;
        }
        self.devices.insert(device.clone(), to);
        let device = device.clone();
        effects.push(RolloutEffect::KeepDevice { device });
    }

    /// The next time at which [`RolloutEvent::Tick`] must come, and why.
    pub fn next_deadline(&self) -> Option<(Millis, &'static str)> {
        let limit = Duration::from_secs(self.plan.spec.wave_deadline_s);
        match self.state {
            RolloutState::Running { since, .. } => {
                let bake = Duration::from_secs(self.plan.spec.bake_s);
                // A device without its inferences waits for reports, not for the time.
                let least = self.plan.spec.min_inferences;
                if mutants::is(Mutant::NoDeadline) {
                    return None;
                }
                let baked = self.devices.values().filter_map(|d| match d {
                    DeviceRollout::Serving { since, inferences } if *inferences >= least => {
                        Some((since.plus(bake), "bake time over"))
                    }
                    _ => None,
                });
                baked.chain([(since.plus(limit), "wave deadline")]).min()
            }
            RolloutState::RollingBack { since, .. } => {
                Some((since.plus(limit), "rollback deadline"))
            }
            _ => None,
        }
    }

    fn note(
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

    fn start_wave(&mut self, now: Millis, wave: usize, effects: &mut Vec<RolloutEffect>) {
        self.state = RolloutState::Running { wave, since: now };
        let devices = self.plan.waves.get(wave).map_or(0, Vec::len);
        let text = format!(
            "wave {} of {}: {} devices",
            wave + 1,
            self.plan.waves.len(),
            devices
        );
        self.note(
            effects,
            now,
            Severity::Info,
            "controller",
            "WaveStarted",
            &text,
        );
        self.fill(now, wave, effects);
    }

    fn reported(
        &mut self,
        now: Millis,
        device: &DeviceName,
        status: Option<&ModelStatus>,
        inferences: u64,
        effects: &mut Vec<RolloutEffect>,
    ) {
        let Some(old) = self.devices.get(device) else {
            return;
        };
        let spec = &self.plan.spec;
        let wanted_new = status.filter(|s| s.wanted == spec.version);
        let serves_new = wanted_new.is_some_and(|s| {
            s.phase == ModelPhase::Serving
                && s.serving
                    .as_ref()
                    .is_some_and(|v| v.version == spec.version)
        });
        let new = match old {
            DeviceRollout::Assigned { .. }
            | DeviceRollout::Serving { .. }
            | DeviceRollout::Succeeded
                if wanted_new.is_some_and(|s| s.phase == ModelPhase::Failed) =>
            {
                let failure = wanted_new.and_then(|s| s.failure.as_ref());
                let message = failure.map_or_else(
                    || "failed without a reason".to_owned(),
                    |f| format!("{}: {}", f.variant, f.message),
                );
                DeviceRollout::Failed { message }
            }
            DeviceRollout::Assigned { .. } if serves_new => DeviceRollout::Serving {
                since: now,
                inferences,
            },
            DeviceRollout::Serving {
                since,
                inferences: before,
            } if serves_new => DeviceRollout::Serving {
                since: *since,
                inferences: inferences.max(*before),
            },
            // It stopped serving before it had succeeded: the bake time starts anew.
            DeviceRollout::Serving { .. } if status.is_some() => {
                DeviceRollout::Assigned { since: now }
            }
            DeviceRollout::GoingBack if self.is_back(status) => DeviceRollout::Back,
            _ => return,
        };
        if let DeviceRollout::Failed { message } = &new {
            let text = format!("device/{device}: {message}");
            self.note(
                effects,
                now,
                Severity::Warning,
                device.as_str(),
                "DeviceFailed",
                &text,
            );
        }
        self.move_on(device, new, effects);
    }

    fn is_back(&self, status: Option<&ModelStatus>) -> bool {
        match (&self.plan.previous, status) {
            (None, None) => true,
            (None, Some(s)) => s
                .serving
                .as_ref()
                .is_none_or(|v| v.version != self.plan.spec.version),
            (Some(_), None) => false,
            (Some(previous), Some(s)) => {
                s.wanted == *previous && s.serving.as_ref().is_some_and(|v| v.version == *previous)
            }
        }
    }

    fn pause(&mut self, now: Millis, actor: String, effects: &mut Vec<RolloutEffect>) {
        if let RolloutState::Running { wave, since } = self.state {
            self.note(effects, now, Severity::Info, &actor, "Paused", "paused");
            let ran_ms = u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX);
            self.state = RolloutState::Paused {
                by: actor,
                wave,
                ran_ms,
            };
        }
    }

    fn resume(&mut self, now: Millis, actor: &str, effects: &mut Vec<RolloutEffect>) {
        if let RolloutState::Paused { wave, ran_ms, .. } = self.state {
            self.note(effects, now, Severity::Info, actor, "Resumed", "resumed");
            let since = Millis(now.0.saturating_sub(ran_ms));
            self.state = RolloutState::Running { wave, since };
        }
    }

    /// Takes back every device that was touched, the newest wave first.
    fn roll_back(&mut self, now: Millis, actor: &str, why: &str, effects: &mut Vec<RolloutEffect>) {
        if matches!(self.state, RolloutState::RollingBack { .. }) {
            return;
        }
        self.note(effects, now, Severity::Warning, actor, "RollingBack", why);
        self.state = RolloutState::RollingBack {
            why: why.to_owned(),
            since: now,
        };
        let reverse: Vec<DeviceName> = self
            .plan
            .waves
            .iter()
            .rev()
            .take(if mutants::is(Mutant::RollBackOneWave) {
                1
            } else {
                usize::MAX
            })
            .flatten()
            .map(|d| d.device.clone())
            .collect();
        for device in reverse {
            let touched = match self.devices.get(&device) {
                Some(DeviceRollout::Waiting | DeviceRollout::Gone) | None => false,
                Some(_) => true,
            };
            if touched {
                self.move_on(&device, DeviceRollout::GoingBack, effects);
                let version = self.plan.previous.clone();
                effects.push(RolloutEffect::AssignPrevious { device, version });
            }
        }
    }

    /// Draws the conclusions from the states of the devices and the time.
    fn evaluate(&mut self, now: Millis, effects: &mut Vec<RolloutEffect>) {
        if let RolloutState::Paused { wave, .. } = self.state
            && mutants::is(Mutant::PauseGoesOn)
        {
            self.fill(now, wave, effects);
        }
        if let RolloutState::Running { wave, since } = self.state {
            self.bake(now, effects);
            self.fill(now, wave, effects);
            self.evaluate_wave(now, wave, since, effects);
        }
        if let RolloutState::RollingBack { why, since } = self.state.clone() {
            self.settle(now, why, since, effects);
        }
    }

    /// Devices that have served enough for long enough have succeeded.
    fn bake(&mut self, now: Millis, effects: &mut Vec<RolloutEffect>) {
        let bake = Duration::from_secs(self.plan.spec.bake_s);
        let least = self.plan.spec.min_inferences;
        let done = self.devices.iter().filter(|(_, state)| match state {
            DeviceRollout::Serving { since, inferences } => {
                (*inferences >= least || mutants::is(Mutant::SkipInferences))
                    && (now.since(*since) >= bake || mutants::is(Mutant::SkipBake))
            }
            _ => false,
        });
        let done: Vec<DeviceName> = done.map(|(device, _)| device.clone()).collect();
        for device in done {
            self.move_on(&device, DeviceRollout::Succeeded, effects);
        }
    }

    /// Failed and open devices of a wave.
    fn count_wave(&self, wave: usize) -> (usize, usize) {
        let members = self.plan.waves.get(wave).map_or(&[][..], Vec::as_slice);
        let states = || members.iter().filter_map(|d| self.devices.get(&d.device));
        let failed = states().filter(|s| matches!(s, DeviceRollout::Failed { .. }));
        let open = states().filter(|s| {
            matches!(
                s,
                DeviceRollout::Waiting
                    | DeviceRollout::Assigned { .. }
                    | DeviceRollout::Serving { .. }
            )
        });
        (failed.count(), open.count())
    }

    fn evaluate_wave(
        &mut self,
        now: Millis,
        wave: usize,
        since: Millis,
        effects: &mut Vec<RolloutEffect>,
    ) {
        let limit = Duration::from_secs(self.plan.spec.wave_deadline_s);
        let tolerated = match mutants::is(Mutant::IgnoreFailures) {
            true => usize::MAX,
            false => self.plan.spec.max_failures as usize,
        };
        // A device of an earlier wave may fail after it had succeeded.
        let relapsed = (0..wave).find(|w| self.count_wave(*w).0 > tolerated);
        if let Some(earlier) = relapsed {
            let failed = self.count_wave(earlier).0;
            let why = format!(
                "wave {}: {failed} failed after the wave had passed, {tolerated} tolerated",
                earlier + 1
            );
            self.roll_back(now, "controller", &why, effects);
            return;
        }
        let (failed, open) = self.count_wave(wave);
        let late = now.since(since) >= limit && !mutants::is(Mutant::NoDeadline);
        // Silence counts against success: what is open at the deadline has failed.
        let silent = if late { open } else { 0 };
        let silent = if mutants::is(Mutant::SilenceIsSuccess) {
            0
        } else {
            silent
        };
        let lost = failed + silent;
        if lost > tolerated {
            let why = format!(
                "wave {}: {failed} failed, {} unfinished at the deadline, {tolerated} tolerated",
                wave + 1,
                lost - failed
            );
            self.roll_back(now, "controller", &why, effects);
        } else if open == 0 || late {
            self.wave_done(now, wave, effects);
        }
    }

    /// Ends a rollback once all are back or its time is over.
    fn settle(
        &mut self,
        now: Millis,
        why: String,
        since: Millis,
        effects: &mut Vec<RolloutEffect>,
    ) {
        let limit = Duration::from_secs(self.plan.spec.wave_deadline_s);
        let going = self.devices.values();
        let open = going.filter(|d| **d == DeviceRollout::GoingBack).count();
        if open > 0 && now.since(since) < limit {
            return;
        }
        self.state = RolloutState::RolledBack { why };
        let text = format!("rolled back, {open} devices not heard of yet");
        self.note(
            effects,
            now,
            Severity::Warning,
            "controller",
            "RolledBack",
            &text,
        );
    }

    fn wave_done(&mut self, now: Millis, wave: usize, effects: &mut Vec<RolloutEffect>) {
        let last = wave + 1 >= self.plan.waves.len();
        let mut states = self.devices.values();
        if last && !states.any(|s| *s == DeviceRollout::Succeeded) {
            // Everybody left, or failed within the allowance: that proves nothing.
            self.roll_back(now, "controller", "no device has succeeded", effects);
            return;
        }
        let text = format!("wave {} of {} succeeded", wave + 1, self.plan.waves.len());
        self.note(
            effects,
            now,
            Severity::Info,
            "controller",
            "WaveSucceeded",
            &text,
        );
        if !last {
            self.start_wave(now, wave + 1, effects);
        } else {
            self.state = RolloutState::Promoted;
            self.note(
                effects,
                now,
                Severity::Info,
                "controller",
                "Promoted",
                "promoted",
            );
            effects.push(RolloutEffect::Promote {
                version: self.plan.spec.version.clone(),
            });
        }
    }
}
