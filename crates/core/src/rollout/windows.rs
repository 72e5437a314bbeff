//! Maintenance windows of a rollout: who may be told now, and what a device is told of them.

use super::machine::RolloutEffect;
use super::plan::PlannedDevice;
use super::state::{DeviceRollout, Rollout};
use crate::mutants::{self, Mutant};
use crate::time::Millis;
use crate::window::{Opening, Schedule, Window, Zone};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Longest that a device is waited for: a quarter of a year.
pub const MAX_WAIT_S: u64 = 90 * 24 * 3600;

/// When devices may move, by the time on their own walls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Windows {
    /// When they may fetch; at any time when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub download: Vec<Window>,
    /// When they may switch to what they have fetched; at any time when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub switch: Vec<Window>,
    /// Longest that a wave waits for windows, beyond its deadline, in seconds. The default, a week
    /// and a day, holds a window of any day of the week.
    #[serde(default = "default_wait_s")]
    pub wait_s: u64,
}

fn default_wait_s() -> u64 {
    8 * 24 * 3600
}

impl Windows {
    /// Windows of these times, with the default wait.
    pub fn new(download: Vec<Window>, switch: Vec<Window>) -> Self {
        let wait_s = default_wait_s();
        Self {
            download,
            switch,
            wait_s,
        }
    }

    /// What a device in this zone is told at this moment.
    pub fn schedule(&self, zone: &Zone, now: Millis) -> Schedule {
        let until = now.plus(Duration::from_secs(self.wait_s));
        Schedule {
            fetch: Window::spans(&self.download, zone, now, until),
            switch: Window::spans(&self.switch, zone, now, until),
        }
    }
}

/// Schedules of the zones of a fleet at one moment: devices of one zone share theirs.
pub(super) struct Schedules {
    now: Millis,
    known: BTreeMap<Option<Arc<str>>, Arc<Schedule>>,
}

impl Schedules {
    pub(super) fn at(now: Millis) -> Self {
        let known = BTreeMap::new();
        Self { now, known }
    }

    /// What a device is told; nothing where there are no windows.
    pub(super) fn of(
        &mut self,
        windows: Option<&Windows>,
        device: &PlannedDevice,
    ) -> Option<Arc<Schedule>> {
        let windows = windows?;
        if let Some(known) = self.known.get(&device.zone) {
            return Some(Arc::clone(known));
        }
        let schedule = Arc::new(windows.schedule(&device.zone(), self.now));
        let kept = Arc::clone(&schedule);
        self.known.insert(device.zone.clone(), kept);
        Some(schedule)
    }
}

impl PlannedDevice {
    /// Its time zone. It was known when the plan was made.
    pub fn zone(&self) -> Zone {
        let known = self.zone.as_ref().and_then(|name| name.parse().ok());
        known.unwrap_or_else(Zone::utc)
    }
}

impl Rollout {
    /// Whether a device may be told now, by its own time.
    pub fn may_fetch(&self, device: &PlannedDevice, now: Millis) -> Opening {
        let windows = self.plan.spec.windows.as_ref();
        let schedule = windows.map(|windows| windows.schedule(&device.zone(), now));
        Opening::at(schedule.and_then(|s| s.fetch).as_ref(), now)
    }

    /// Devices whose window has opened wait for their turn like the others.
    pub(super) fn release(&mut self, now: Millis, effects: &mut Vec<RolloutEffect>) {
        while let Some((until, device)) = self.devices.held_shortest()
            && *until <= now
        {
            let device = device.clone();
            self.move_on(&device, DeviceRollout::Waiting, effects);
        }
    }

    /// Until when a device is to be held instead of told, as far as windows are concerned.
    pub(super) fn holds(schedule: Option<&Schedule>, now: Millis) -> Option<Option<Millis>> {
        let fetch = schedule.and_then(|schedule| schedule.fetch.as_ref());
        match Opening::at(fetch, now) {
            Opening::Closed(until) if !mutants::is(Mutant::TellAnytime) => Some(until),
            Opening::Closed(_) | Opening::Open(_) => None,
        }
    }
}
