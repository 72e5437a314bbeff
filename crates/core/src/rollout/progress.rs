//! What reports say of a device, and when it has succeeded.

use super::machine::RolloutEffect;
use super::plan::PlannedDevice;
use super::sample::Pair;
use super::state::{DeviceRollout, Rollout};
use crate::event::Severity;
use crate::mutants::{self, Mutant};
use crate::names::DeviceName;
use crate::telemetry::{ModelPhase, ModelStatus};
use crate::time::Millis;
use std::time::Duration;

impl Rollout {
    /// Keeps what a device measured, of those that have moved.
    pub(super) fn measure(
        &mut self,
        device: DeviceName,
        measured: Option<Pair>,
        effects: &mut Vec<RolloutEffect>,
    ) {
        let moved = matches!(
            self.devices.get(&device),
            Some(DeviceRollout::Serving { .. } | DeviceRollout::Succeeded)
        );
        let gated = self.plan.spec.gates.is_some();
        if let Some(pair) = measured.filter(|_| moved && gated)
            && self.measured.insert(&device, pair)
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
        if let (DeviceRollout::Assigned { since }, DeviceRollout::Serving { .. }) = (old, &new)
            && let Some(planned) = self.planned(device)
        {
            let took_ms = u64::try_from(now.since(*since).as_millis()).unwrap_or(u64::MAX);
            let (how, device) = (planned.moved(&self.plan.name, took_ms), device.clone());
            effects.push(RolloutEffect::Moved { device, how });
        }
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
