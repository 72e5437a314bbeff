//! Who of a wave may move now: as many as the bounds on devices in flight let.

use super::devices::Devices;
use super::machine::RolloutEffect;
use super::plan::PlannedDevice;
use super::state::{DeviceRollout, Rollout};
use super::windows::Schedules;
use crate::time::Millis;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Devices that were assigned the version and have not been seen serving it since.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct InFlight<'a> {
    /// All of them.
    pub total: usize,
    /// By the label's value that the disruption budget groups by.
    pub groups: BTreeMap<Option<&'a str>, usize>,
}

impl Rollout {
    /// Devices in flight, by a walk over all: what the counts that are kept along are held
    /// against.
    pub fn in_flight(&self) -> InFlight<'_> {
        let mut all = InFlight::default();
        for planned in self.plan.waves.iter().flatten() {
            let state = self.devices.get(&planned.device);
            if state.is_some_and(DeviceRollout::is_in_flight) {
                all.total += 1;
                *all.groups.entry(planned.group.as_deref()).or_default() += 1;
            }
        }
        all
    }

    /// Assigns the version to devices of the wave, and of those that move with it, that wait, in
    /// the order of the plan, as far as the bounds let. Those whose window is shut are held.
    pub(super) fn fill(&mut self, now: Millis, wave: usize, effects: &mut Vec<RolloutEffect>) {
        self.release(now, effects);
        let mut schedules = Schedules::at(now);
        let waves = self.together(wave);
        let next = |devices: &Devices| {
            let mut waves = waves.clone();
            waves.find_map(|wave| Some((wave, devices.ready(wave)?)))
        };
        while let Some((wave, position)) = next(&self.devices) {
            let planned = &self.plan.waves[wave][position];
            let PlannedDevice { device, ladder, .. } = planned;
            let (device, ladder) = (device.clone(), Arc::clone(ladder));
            let schedule = schedules.of(self.plan.spec.windows.as_ref(), planned);
            if let Some(until) = Self::holds(schedule.as_deref(), now) {
                let held = DeviceRollout::Held { since: now, until };
                self.move_on(&device, held, effects);
                continue;
            }
            self.move_on(&device, DeviceRollout::Assigned { since: now }, effects);
            let version = self.plan.spec.version.clone();
            effects.push(RolloutEffect::Assign {
                device,
                version,
                ladder,
                schedule,
            });
        }
    }
}
