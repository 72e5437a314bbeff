//! How long a device may stay in each phase of its move, so that none is on its way for ever.

use super::machine::RolloutEffect;
use super::state::{DeviceRollout, Rollout, RolloutState};
use crate::event::Severity;
use crate::mutants::{self, Mutant};
use crate::names::DeviceName;
use crate::time::Millis;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Devices that ran out of time are noted one by one up to this many at a time; the rest are
/// counted, so that a fleet that falls silent does not push everything else out of the events.
const NOTED: usize = 20;

/// Longest stays, in seconds. What is missing is derived: where devices wait for windows, each
/// phase has the time of a wave; otherwise the deadline of the wave stands for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Deadlines {
    /// From the assignment until everything is on the device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fetch_s: Option<u64>,
    /// From there until it was seen serving.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub switch_s: Option<u64>,
    /// From there until it has served enough; the bake time included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prove_s: Option<u64>,
}

impl Deadlines {
    /// Whether nothing is said.
    pub(super) fn is_derived(&self) -> bool {
        *self == Self::default()
    }
}

/// A phase with an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Bytes are on their way.
    Fetch,
    /// They are there; the version is loaded and tested.
    Switch,
    /// It serves, and has not served enough yet.
    Prove,
    /// It was told, and waits for a window.
    Window,
}

impl Phase {
    /// All of them.
    pub(super) const ALL: [Self; 4] = [Self::Fetch, Self::Switch, Self::Prove, Self::Window];

    /// Why a device has failed that did not get through in time.
    fn missed(self, limit: Duration) -> String {
        let within = limit.as_secs();
        match self {
            Self::Fetch => format!("fetch: not everything was there within {within} s"),
            Self::Switch => format!("switch: it did not serve within {within} s of having all"),
            Self::Prove => format!("prove: it did not serve enough within {within} s"),
            Self::Window => format!("window: it was not through after waiting {within} s"),
        }
    }
}

impl DeviceRollout {
    /// The phase that a device is in with an end, and since when. Of one that has served enough
    /// the bake time decides.
    pub(super) fn phase(&self, least_inferences: u64) -> Option<(Phase, Millis)> {
        match self {
            Self::Assigned { since } => Some((Phase::Fetch, *since)),
            Self::Switching { since, .. } => Some((Phase::Switch, *since)),
            Self::Serving { since, inferences } if *inferences < least_inferences => {
                Some((Phase::Prove, *since))
            }
            Self::Parked { since, .. } => Some((Phase::Window, *since)),
            Self::Serving { .. }
            | Self::Waiting
            | Self::Held { .. }
            | Self::Succeeded
            | Self::Failed { .. }
            | Self::GoingBack
            | Self::Back
            | Self::Gone => None,
        }
    }
}

impl Rollout {
    /// How long a device may stay in a phase; as long as its wave where nothing is said.
    pub fn limit(&self, phase: Phase) -> Option<Duration> {
        let spec = &self.plan.spec;
        let stated = match phase {
            Phase::Fetch => spec.deadlines.fetch_s,
            Phase::Switch => spec.deadlines.switch_s,
            Phase::Prove => spec.deadlines.prove_s,
            Phase::Window => spec.windows.as_ref().map(|w| w.wait_s),
        };
        let derived = || {
            spec.windows.as_ref()?;
            let bake = if phase == Phase::Prove {
                spec.bake_s
            } else {
                0
            };
            Some(spec.wave_deadline_s.saturating_add(bake))
        };
        stated.or_else(derived).map(Duration::from_secs)
    }

    /// When a device that is in a phase since then must be through. The time of a rollout that is
    /// paused does not count.
    fn ends(&self, phase: Phase, since: Millis) -> Option<Millis> {
        let from = self.resumed_at.map_or(since, |resumed| since.max(resumed));
        Some(from.plus(self.limit(phase)?))
    }

    /// The device whose phase ends first, with that phase and its end.
    pub(super) fn first_end(&self) -> Option<(Millis, Phase, &DeviceName)> {
        let ends = Phase::ALL.into_iter().filter_map(|phase| {
            let (since, device) = self.devices.longest_in(phase)?;
            Some((self.ends(phase, *since)?, phase, device))
        });
        ends.min_by_key(|(at, ..)| *at)
    }

    /// A device that is still in a phase that is over, by a walk over all.
    pub fn overdue(&self, now: Millis) -> Option<&DeviceName> {
        let least = self.plan.spec.min_inferences;
        let mut all = self.devices.iter();
        let late = |state: &DeviceRollout| {
            let (phase, since) = state.phase(least)?;
            Some(self.ends(phase, since)? <= now)
        };
        all.find(|(_, state)| late(state) == Some(true))
            .map(|(device, _)| device)
    }

    /// Devices whose phase is over have failed.
    pub(super) fn expire(&mut self, now: Millis, effects: &mut Vec<RolloutEffect>) {
        if mutants::is(Mutant::EndlessPhase) {
            return;
        }
        let mut count = 0_usize;
        while let Some((end, phase, device)) = self.first_end()
            && end <= now
        {
            let device = device.clone();
            let message = phase.missed(self.limit(phase).unwrap_or_default());
            count += 1;
            if count <= NOTED {
                let text = format!("device/{device}: {message}");
                self.device_failed(now, "controller", &text, effects);
            }
            self.move_on(&device, DeviceRollout::Failed { message }, effects);
        }
        if count > NOTED {
            let text = format!("{} more devices ran out of time", count - NOTED);
            self.device_failed(now, "controller", &text, effects);
        }
    }

    pub(super) fn device_failed(
        &self,
        now: Millis,
        actor: &str,
        text: &str,
        effects: &mut Vec<RolloutEffect>,
    ) {
        self.note(effects, now, Severity::Warning, actor, "DeviceFailed", text);
    }

    /// Whether phases come to an end now.
    pub(super) fn is_under_way(&self) -> bool {
        matches!(
            self.state,
            RolloutState::Running { .. } | RolloutState::AwaitingApproval { .. }
        )
    }
}
