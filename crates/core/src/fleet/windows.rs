//! What devices may fetch how fast, and their windows after they were told of them: the time, and new
//! windows when the old ones are over.

use super::outbox::ToDevice;
use super::state::Fleet;
use crate::bandwidth::Budget;
use crate::names::{DeviceName, ModelName, VersionName};
use crate::rollout::Windows;
use crate::telemetry::ModelPhase;
use crate::time::Millis;
use crate::window::{Schedule, Zone};
use std::sync::Arc;

impl Fleet {
    /// The budgets of bandwidth that a device fetches under: those of the rollouts that move it.
    pub fn budgets(&self, device: &DeviceName) -> Vec<Budget> {
        let labels = self.devices.get(device).map(|record| &record.labels);
        let open = self.rollouts.values();
        let open = open.filter(|r| !r.state.is_final() && r.devices.contains(device));
        let budgets = open.filter_map(|rollout| {
            let bandwidth = rollout.plan.spec.bandwidth.as_ref()?;
            let key = bandwidth.per_group.as_ref().map(|per| &per.group_by);
            let group = key.and_then(|key| labels?.get(key));
            let name = format!("rollout/{}", rollout.plan.name);
            Some(bandwidth.budgets(&name, group.map(String::as_str)))
        });
        budgets.flatten().collect()
    }

    /// Whether the assignment of a device names windows, so that it must know the time.
    pub fn needs_time(&self, device: &DeviceName) -> bool {
        let record = self.devices.get(device);
        record.is_some_and(|r| r.models.values().any(|m| m.schedule.is_some()))
    }

    /// Queues what time it is for a live device that must know.
    pub(super) fn tell_time(&mut self, now: Millis, device: &DeviceName) {
        if let Some(live) = self.live.get(device)
            && self.needs_time(device)
        {
            self.out.send.push((live.id, ToDevice::Clock(now)));
        }
    }

    /// A device that waits for a window of which none is left (its rollout went on without it)
    /// gets those to come, so that it is not stuck with what it was told once.
    pub(super) fn renew_windows(&mut self, now: Millis, device: &DeviceName) {
        let Some(record) = self.devices.get(device) else {
            return;
        };
        let observation = record.observation.as_ref();
        let current = observation.filter(|o| o.generation == record.generation);
        let statuses = current.into_iter().flat_map(|o| &o.models);
        let waiting = statuses.filter(|s| {
            matches!(
                s.phase,
                ModelPhase::AwaitingDownload | ModelPhase::AwaitingSwitch
            )
        });
        let renewed: Vec<(ModelName, Arc<Schedule>)> = waiting
            .filter_map(|status| {
                let assigned = record.models.get(&status.model)?;
                let old = assigned.schedule.as_ref()?;
                let windows = self.windows_of(assigned.deployment.as_str(), &assigned.version)?;
                let reported = record.profile.as_ref().and_then(|p| p.zone.as_deref());
                let (zone, _) = Zone::of(&record.labels, reported);
                let new = windows.schedule(&zone, now);
                (!old.lasts(now) && new.lasts(now)).then(|| (status.model.clone(), new.into()))
            })
            .collect();
        if renewed.is_empty() {
            return;
        }
        if let Some(record) = self.devices.get_mut(device) {
            for (model, schedule) in renewed {
                if let Some(assigned) = record.models.get_mut(&model) {
                    assigned.schedule = Some(schedule);
                }
            }
        }
        self.renumber(now, device);
    }

    /// The windows of the newest rollout of a deployment to this version.
    fn windows_of(&self, deployment: &str, version: &VersionName) -> Option<&Windows> {
        let rollouts = self.rollouts.values().filter(|r| {
            r.plan.spec.deployment.as_str() == deployment && r.plan.spec.version == *version
        });
        let newest = rollouts.max_by_key(|r| r.created_at)?;
        newest.plan.spec.windows.as_ref()
    }
}
