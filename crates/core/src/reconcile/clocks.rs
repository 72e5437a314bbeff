//! Windows on the device: by which clock, and whether they are open.

use super::machine::Reconciler;
use super::state::SlotVersion;
use crate::mutants::{self, Mutant};
use crate::telemetry::ModelPhase;
use crate::time::Millis;
use crate::window::{Opening, Schedule, Spans};

/// The clocks of a device at its last event.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Clocks {
    /// Its own clock, which nobody may ever have set.
    pub(super) own: Millis,
    /// What time it really is, as far as anybody has told.
    wall: Option<Millis>,
}

impl Reconciler {
    /// What time it is for windows, as of the next event: what [`crate::window::Wall`] says.
    /// Without a time they are shut.
    pub fn trust(&mut self, wall: Option<Millis>) {
        self.clocks.wall = wall;
    }

    fn opening(&self, spans: Option<&Spans>) -> Opening {
        let wall = match mutants::is(Mutant::TrustAnyClock) {
            true => Some(self.clocks.own),
            false => self.clocks.wall,
        };
        match (spans, wall) {
            (None, _) => Opening::Open(None),
            (Some(_), None) => Opening::Closed(None),
            (Some(spans), Some(wall)) => Opening::at(Some(spans), wall),
        }
    }

    /// Whether a version may be fetched now.
    pub(super) fn may_fetch(&self, version: &SlotVersion) -> Opening {
        let schedule = version.schedule.as_deref();
        let schedule = schedule.filter(|_| !mutants::is(Mutant::FetchAnytime));
        self.opening(schedule.and_then(|s| s.fetch.as_ref()))
    }

    /// Whether it may be switched to now.
    pub(super) fn may_switch(&self, version: &SlotVersion) -> Opening {
        let schedule = version.schedule.as_deref();
        let schedule = schedule.filter(|_| !mutants::is(Mutant::SwitchAnytime));
        self.opening(schedule.and_then(|s| s.switch.as_ref()))
    }

    /// What a pending version waits for, if its window is shut.
    pub(super) fn waits(&self, pending: &SlotVersion, misses: bool) -> Option<ModelPhase> {
        let (opening, waits) = match misses {
            true => (self.may_fetch(pending), ModelPhase::AwaitingDownload),
            false => (self.may_switch(pending), ModelPhase::AwaitingSwitch),
        };
        let known = self.clocks.wall.is_some();
        let waits = if known {
            waits
        } else {
            ModelPhase::AwaitingClock
        };
        (!opening.is_open()).then_some(waits)
    }

    /// When a window of a version with something pending opens or shuts, by the device's own clock.
    pub(super) fn next_window(&self) -> Option<Millis> {
        let wall = self.clocks.wall?;
        let schedules = self
            .waiting_for_windows()
            .filter_map(|version| version.schedule.as_deref());
        let both = |schedule: &Schedule| {
            let spans = [&schedule.fetch, &schedule.switch].into_iter().flatten();
            let changes = spans.filter_map(|spans| Opening::at(Some(spans), wall).changes());
            changes.min()
        };
        let next = schedules.filter_map(both).min()?;
        Some(self.clocks.own.plus(next.since(wall)))
    }
}
