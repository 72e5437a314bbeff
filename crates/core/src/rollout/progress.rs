//! What reports say of a device, and when it has succeeded.

use super::machine::RolloutEffect;
use super::plan::PlannedDevice;
use super::sample::Pairs;
use super::state::{DeviceRollout, Rollout, Wait};
use crate::mutants::{self, Mutant};
use crate::names::DeviceName;
use crate::telemetry::{ModelPhase, ModelStatus};
use crate::time::Millis;
use std::time::Duration;

impl DeviceRollout {
    /// How long a device in flight has worked, in milliseconds, without what it waited.
    fn worked_ms(&self, now: Millis) -> u64 {
        let ms = |since: Millis| u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX);
        match self {
            Self::Assigned { since } => ms(*since),
            Self::Switching { since, worked_ms } => worked_ms.saturating_add(ms(*since)),
            Self::Parked { worked_ms, .. } => *worked_ms,
            Self::Waiting
            | Self::Held { .. }
            | Self::Serving { .. }
            | Self::Succeeded
            | Self::Failed { .. }
            | Self::GoingBack
            | Self::Back
            | Self::Gone => 0,
        }
    }
}

impl Rollout {
    /// Keeps what a device measured, of those that have moved.
    pub(super) fn measure(
        &mut self,
        device: DeviceName,
        measured: Option<Pairs>,
        effects: &mut Vec<RolloutEffect>,
    ) {
        let moved = matches!(
            self.devices.get(&device),
            Some(DeviceRollout::Serving { .. } | DeviceRollout::Succeeded)
        );
        let gated = self.plan.spec.gates.is_some();
        if let Some(pairs) = measured.filter(|_| moved && gated)
            && self.measured.insert(&device, pairs)
        {
            effects.push(RolloutEffect::KeepDevice { device });
        }
    }

    pub(super) fn reported(
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
            | DeviceRollout::Parked { .. }
            | DeviceRollout::Switching { .. }
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
            DeviceRollout::Assigned { .. }
            | DeviceRollout::Parked { .. }
            | DeviceRollout::Switching { .. }
                if serves_new =>
            {
                DeviceRollout::Serving {
                    since: now,
                    inferences,
                }
            }
            DeviceRollout::Assigned { .. }
            | DeviceRollout::Parked { .. }
            | DeviceRollout::Switching { .. } => {
                let Some(phase) = wanted_new.map(|s| s.phase) else {
                    return;
                };
                match self.on_its_way(now, device, old, phase) {
                    Some(new) => new,
                    None => return,
                }
            }
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
        if old.is_in_flight()
            && matches!(new, DeviceRollout::Serving { .. })
            && let Some(planned) = self.planned(device)
        {
            let took_ms = old.worked_ms(now);
            let (how, device) = (planned.moved(&self.plan.name, took_ms), device.clone());
            effects.push(RolloutEffect::Moved { device, how });
        }
        if let DeviceRollout::Failed { message } = &new {
            let text = format!("device/{device}: {message}");
            self.device_failed(now, device.as_str(), &text, effects);
        }
        self.move_on(device, new, effects);
    }

    /// Where a device stands that was told and does not serve yet, by the phase that it reports;
    /// nothing when that is where it stood before.
    fn on_its_way(
        &self,
        now: Millis,
        device: &DeviceName,
        old: &DeviceRollout,
        phase: ModelPhase,
    ) -> Option<DeviceRollout> {
        let wait = match phase {
            ModelPhase::AwaitingDownload => Wait::Download,
            ModelPhase::AwaitingSwitch => Wait::Switch,
            ModelPhase::AwaitingClock => Wait::Clock,
            ModelPhase::Fetching => {
                // What it worked before counts on; what it waited does not.
                let since = Millis(now.0.saturating_sub(old.worked_ms(now)));
                let fetches = matches!(old, DeviceRollout::Assigned { .. });
                return (!fetches).then_some(DeviceRollout::Assigned { since });
            }
            ModelPhase::Testing => {
                let worked_ms = old.worked_ms(now);
                let switches = matches!(old, DeviceRollout::Switching { .. });
                return (!switches).then_some(DeviceRollout::Switching {
                    since: now,
                    worked_ms,
                });
            }
            // Serving something else, or failed, which was looked at before.
            ModelPhase::Serving | ModelPhase::Failed => return None,
        };
        if matches!(old, DeviceRollout::Parked { wait: for_it, .. } if *for_it == wait) {
            return None;
        }
        let windows = self.plan.spec.windows.as_ref();
        let schedule = windows
            .zip(self.planned(device))
            .map(|(windows, planned)| windows.schedule(&planned.zone(), now));
        let spans = schedule.as_ref().and_then(|schedule| match wait {
            Wait::Download => schedule.fetch.as_ref(),
            Wait::Switch => schedule.switch.as_ref(),
            Wait::Clock => None,
        });
        Some(DeviceRollout::Parked {
            since: now,
            wait,
            until: spans.and_then(|spans| spans.opens(now)),
            worked_ms: old.worked_ms(now),
        })
    }

    fn planned(&self, device: &DeviceName) -> Option<&PlannedDevice> {
        let (wave, position) = self.devices.place(device)?;
        self.plan.waves.get(wave)?.get(position)
    }

    pub(super) fn is_back(&self, status: Option<&ModelStatus>) -> bool {
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

    /// Devices that have served enough for long enough have succeeded.
    pub(super) fn bake(&mut self, now: Millis, effects: &mut Vec<RolloutEffect>) {
        let bake = match mutants::is(Mutant::SkipBake) {
            true => Duration::ZERO,
            false => Duration::from_secs(self.plan.spec.bake_s),
        };
        while let Some((since, device)) = self.devices.baking()
            && now.since(*since) >= bake
        {
            let device = device.clone();
            self.move_on(&device, DeviceRollout::Succeeded, effects);
        }
    }
}
