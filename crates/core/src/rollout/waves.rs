//! Waves: when one begins, when it is done, when it has failed.

use super::gate::{self, Reading, Verdict};
use super::machine::RolloutEffect;
use super::state::{DeviceRollout, Rollout, RolloutState};
use crate::event::Severity;
use crate::mutants::{self, Mutant};
use crate::time::Millis;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Devices that a reason names, so that it stays a line.
const NAMED: usize = 3;
/// Characters of a device's own words that are told of it.
const REASON: usize = 160;

impl Rollout {
    /// Draws the conclusions from the states of the devices and the time.
    pub(super) fn evaluate(&mut self, now: Millis, effects: &mut Vec<RolloutEffect>) {
        if let RolloutState::Paused { wave, .. } = self.state
            && mutants::is(Mutant::PauseGoesOn)
        {
            self.fill(now, wave, effects);
        }
        if let RolloutState::Running { wave, since } = self.state {
            self.bake(now, effects);
            self.expire(now, effects);
            self.fill(now, wave, effects);
            self.evaluate_wave(now, wave, since, effects);
        }
        if let RolloutState::AwaitingApproval { wave, .. } = self.state {
            self.bake(now, effects);
            self.expire(now, effects);
            self.look_back(now, wave, effects);
        }
        if let RolloutState::RollingBack { why, since } = self.state.clone() {
            self.settle(now, why, since, effects);
        }
    }

    pub(super) fn start_wave(
        &mut self,
        now: Millis,
        wave: usize,
        effects: &mut Vec<RolloutEffect>,
    ) {
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

    /// The waves that move as one with this one: itself, unless an operator let the rest follow
    /// at once.
    pub fn together(&self, wave: usize) -> RangeInclusive<usize> {
        self.merged_from.map_or(wave, |first| first.min(wave))..=wave
    }

    /// How long this wave may take: each of those that move as one adds the time of a wave. Waiting
    /// for windows is no failure, up to its own bound.
    pub(super) fn time_of(&self, wave: usize) -> Duration {
        let waves = self.together(wave).count() as u64;
        let spec = &self.plan.spec;
        let wait_s = spec.windows.as_ref().map_or(0, |windows| windows.wait_s);
        let time_s = spec.wave_deadline_s.saturating_mul(waves);
        Duration::from_secs(time_s.saturating_add(wait_s))
    }

    /// A wave in words, counted from 1.
    pub(super) fn called(&self, wave: usize) -> String {
        let waves = self.together(wave);
        match waves.start() == waves.end() {
            true => format!("wave {}", wave + 1),
            false => format!("waves {} to {}", waves.start() + 1, waves.end() + 1),
        }
    }

    /// Failed and open devices of the waves that move as one with this one.
    fn count_together(&self, wave: usize) -> (usize, usize) {
        let counts = self.together(wave).map(|wave| self.count_wave(wave));
        counts.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// Failed and open devices of a wave.
    fn count_wave(&self, wave: usize) -> (usize, usize) {
        let counts = self.devices.wave(wave);
        counts.map_or((0, 0), |w| (w.failed, w.open))
    }

    pub(super) fn evaluate_wave(
        &mut self,
        now: Millis,
        wave: usize,
        since: Millis,
        effects: &mut Vec<RolloutEffect>,
    ) {
        if self.look_back(now, *self.together(wave).start(), effects) {
            return;
        }
        let (limit, tolerated) = (self.time_of(wave), self.tolerated());
        let (failed, open) = self.count_together(wave);
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
                "{}: {failed} failed{}, {} unfinished at the deadline{}, {tolerated} tolerated",
                self.called(wave),
                self.failed(wave),
                lost - failed,
                self.unfinished(wave),
            );
            self.roll_back(now, "controller", &why, effects);
            return;
        }
        self.ask_gates(now, wave, open == 0 || late, late, effects);
    }

    /// The first few that failed, and why.
    fn failed(&self, wave: usize) -> String {
        self.named(wave, |state| match state {
            DeviceRollout::Failed { message } => Some(message.chars().take(REASON).collect()),
            _ => None,
        })
    }

    /// The first few that are unfinished, and where they stand.
    fn unfinished(&self, wave: usize) -> String {
        self.named(wave, |state| {
            let open = state.is_in_flight()
                || state.is_untouched()
                || matches!(state, DeviceRollout::Serving { .. });
            open.then(|| state.word().to_owned())
        })
    }

    /// The first few devices of which there is something to say, in brackets.
    fn named(&self, wave: usize, say: impl Fn(&DeviceRollout) -> Option<String>) -> String {
        let waves = self
            .together(wave)
            .filter_map(|wave| self.plan.waves.get(wave));
        let said = waves.flatten().filter_map(|planned| {
            let said = say(self.devices.get(&planned.device)?)?;
            Some(format!("{} {said}", planned.device))
        });
        let named: Vec<String> = said.take(NAMED).collect();
        match named.is_empty() {
            true => String::new(),
            false => format!(" ({})", named.join(", ")),
        }
    }

    /// Failures that a wave may have.
    fn tolerated(&self) -> usize {
        match mutants::is(Mutant::IgnoreFailures) {
            true => usize::MAX,
            false => self.plan.spec.max_failures as usize,
        }
    }

    /// Whether a wave before this one has lost too many by now, so that all go back: a device may
    /// fail after it had succeeded. What was unfinished at the deadline of its wave counts against
    /// it now as it did then.
    fn look_back(&mut self, now: Millis, wave: usize, effects: &mut Vec<RolloutEffect>) -> bool {
        let tolerated = self.tolerated();
        let lost = |wave: &usize| {
            let (failed, open) = self.count_wave(*wave);
            failed + open > tolerated
        };
        let Some(earlier) = (0..wave).find(lost) else {
            return false;
        };
        let (failed, open) = self.count_wave(earlier);
        let why = format!(
            "wave {}: {failed} failed after the wave had passed, {open} unfinished, {tolerated} tolerated",
            earlier + 1
        );
        self.roll_back(now, "controller", &why, effects);
        true
    }

    /// What the gates say of everything that has moved; nothing when there are none.
    pub fn readings(&self) -> Vec<Reading> {
        let gates = self.plan.spec.gates.as_ref();
        // Without a version before there is nothing to compare with.
        let gates = gates.filter(|_| self.plan.previous.is_some());
        gates
            .map(|g| g.read(self.measured.sums()))
            .unwrap_or_default()
    }

    /// A wave that is over goes on when its gates pass, waits while they are inconclusive, and is
    /// paused when its time is over by then. One that fails goes back, over or not.
    fn ask_gates(
        &mut self,
        now: Millis,
        wave: usize,
        over: bool,
        late: bool,
        effects: &mut Vec<RolloutEffect>,
    ) {
        let waived = self.waived == Some(wave);
        let readings = if waived { Vec::new() } else { self.readings() };
        let say = |verdict: Verdict| {
            let of = readings.iter().filter(|r| r.verdict == verdict);
            let of: Vec<String> = of.map(ToString::to_string).collect();
            format!("{}: {}", self.called(wave), of.join("; "))
        };
        match gate::overall(&readings) {
            Verdict::Fail => {
                let why = say(Verdict::Fail);
                self.roll_back(now, "controller", &why, effects);
            }
            Verdict::Pass if over => {
                if !readings.is_empty() {
                    let text = say(Verdict::Pass);
                    self.note(
                        effects,
                        now,
                        Severity::Info,
                        "controller",
                        "GatesPassed",
                        &text,
                    );
                }
                self.wave_done(now, wave, effects);
            }
            Verdict::Inconclusive if late => {
                let why = say(Verdict::Inconclusive);
                self.note(
                    effects,
                    now,
                    Severity::Warning,
                    "controller",
                    "Paused",
                    &why,
                );
                // Resumed, it has the time of a wave once more to measure.
                self.state = RolloutState::Paused {
                    by: "gates".to_owned(),
                    wave,
                    ran_ms: 0,
                    why: Some(why),
                };
            }
            Verdict::Pass | Verdict::Inconclusive => {}
        }
    }

    pub(super) fn wave_done(&mut self, now: Millis, wave: usize, effects: &mut Vec<RolloutEffect>) {
        let last = wave + 1 >= self.plan.waves.len();
        if last && self.devices.succeeded() == 0 {
            // Everybody left, or failed within the allowance: that proves nothing.
            self.roll_back(now, "controller", "no device has succeeded", effects);
            return;
        }
        let text = format!(
            "{} of {} succeeded",
            self.called(wave),
            self.plan.waves.len()
        );
        self.note(
            effects,
            now,
            Severity::Info,
            "controller",
            "WaveSucceeded",
            &text,
        );
        if !last {
            self.reach_wave(now, wave + 1, effects);
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
