//! Who of a wave may move now: as many as the bounds on devices in flight let.

use super::machine::RolloutEffect;
use super::plan::PlannedDevice;
use super::state::{DeviceRollout, Rollout};
use crate::mutants::{self, Mutant};
use crate::time::Millis;
use std::collections::BTreeMap;

/// Devices that were assigned the version and have not been seen serving it since.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct InFlight<'a> {
    /// All of them.
    pub total: usize,
    /// By the label's value that the disruption budget groups by.
    pub groups: BTreeMap<Option<&'a str>, usize>,
}

impl Rollout {
    /// Devices in flight.
    pub fn in_flight(&self) -> InFlight<'_> {
        let mut all = InFlight::default();
        for planned in self.plan.waves.iter().flatten() {
            if let Some(DeviceRollout::Assigned { .. }) = self.devices.get(&planned.device) {
                all.total += 1;
                *all.groups.entry(planned.group.as_deref()).or_default() += 1;
            }
        }
        all
    }

    /// Assigns the version to devices of the wave that wait, in the order of the plan, as far as
    /// the bounds let.
    pub(super) fn fill(&mut self, now: Millis, wave: usize, effects: &mut Vec<RolloutEffect>) {
        for PlannedDevice { device, ladder, .. } in self.movable(wave) {
            self.move_on(&device, DeviceRollout::Assigned { since: now }, effects);
            let version = self.plan.spec.version.clone();
            effects.push(RolloutEffect::Assign {
                device,
                version,
                ladder,
            });
        }
    }

    fn movable(&self, wave: usize) -> Vec<PlannedDevice> {
        let waits =
            |d: &&PlannedDevice| self.devices.get(&d.device) == Some(&DeviceRollout::Waiting);
        let members = self.plan.waves.get(wave).map_or(&[][..], Vec::as_slice);
        let mut waiting = members.iter().filter(waits).peekable();
        if waiting.peek().is_none() {
            return Vec::new();
        }
        let spec = &self.plan.spec;
        let most = |bound: Option<u32>| bound.map_or(usize::MAX, |n| n as usize);
        let most_total = match mutants::is(Mutant::ForgetInFlight) {
            true => usize::MAX,
            false => most(spec.max_in_flight),
        };
        let most_of_group = most(spec.disruption.as_ref().map(|b| b.max_unavailable));
        let most_of_group = match mutants::is(Mutant::BudgetOffByOne) {
            true => most_of_group.saturating_add(1),
            false => most_of_group,
        };
        let mut flying = self.in_flight();
        let mut chosen = Vec::new();
        for device in waiting {
            if flying.total >= most_total {
                break;
            }
            let group = flying.groups.entry(device.group.as_deref()).or_default();
            if *group < most_of_group {
                *group += 1;
                flying.total += 1;
                chosen.push(device.clone());
            }
        }
        chosen
    }
}
