//! Waves: when one begins, when it is done, when it has failed.

use super::gate::{self, Reading, Verdict};
use super::machine::RolloutEffect;
use super::state::{Rollout, RolloutState};
use crate::event::Severity;
use crate::mutants::{self, Mutant};
use crate::time::Millis;
use std::time::Duration;

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
            self.fill(now, wave, effects);
            self.evaluate_wave(now, wave, since, effects);
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
            return;
        }
        self.ask_gates(now, wave, open == 0 || late, late, effects);
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
            format!("wave {}: {}", wave + 1, of.join("; "))
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
