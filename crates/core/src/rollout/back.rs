//! Going back.

use super::machine::RolloutEffect;
use super::state::{DeviceRollout, Rollout, RolloutState};
use crate::event::Severity;
use crate::mutants::{self, Mutant};
use crate::names::DeviceName;
use crate::time::Millis;
use std::time::Duration;

impl Rollout {
    /// Takes back every device that was touched, the newest wave first.
    pub(super) fn roll_back(
        &mut self,
        now: Millis,
        actor: &str,
        why: &str,
        effects: &mut Vec<RolloutEffect>,
    ) {
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
                Some(DeviceRollout::Held { .. }) => {
                    self.move_on(&device, DeviceRollout::Waiting, effects);
                    false
                }
                Some(_) => true,
            };
            if touched {
                self.move_on(&device, DeviceRollout::GoingBack, effects);
                let version = self.plan.previous.clone();
                effects.push(RolloutEffect::AssignPrevious { device, version });
            }
        }
    }

    /// Ends a rollback once all are back or its time is over.
    pub(super) fn settle(
        &mut self,
        now: Millis,
        why: String,
        since: Millis,
        effects: &mut Vec<RolloutEffect>,
    ) {
        let limit = Duration::from_secs(self.plan.spec.wave_deadline_s);
        let open = self.devices.going_back();
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
}
