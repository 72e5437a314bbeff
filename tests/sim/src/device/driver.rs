//! Performs what the reconciler decides, in order, as the agent does: persist first, then act.
//! What fails stops the rest.

use super::Device;
use crate::check::{Checks, broken};
use crate::disk::DiskError;
use crate::event::Timer;
use crate::outside::Outside;
use sandpiper_core::digest::ArtefactRef;
use sandpiper_core::reconcile::{DeviceEffect, DeviceEvent, DeviceState, SlotVersion};
use sandpiper_core::telemetry::FailureKind;
use sandpiper_core::time::Millis;
use sandpiper_core::window::Spans;

/// Longest time until deadlines are looked at: the clock may be set.
const LOOK_AGAIN_MS: u64 = 60_000;
/// Bytes that arrive in a millisecond.
const BYTES_PER_MS: u64 = 500;
/// Wait for a connection.
const NO_CONNECTION_MS: u64 = 30_000;

impl Device {
    /// Gives the reconciler an event and performs what it says.
    pub(super) fn handle(
        &mut self,
        event: DeviceEvent,
        outside: &mut Outside,
        checks: &mut Checks,
    ) {
        let now = self.clock(outside.now);
        let Some(live) = &mut self.live else {
            return;
        };
        // Nobody can set the clock that counts from the start of the machine.
        live.machine.trust(live.wall.time(Millis(outside.now)));
        let before = live.machine.state().clone();
        let effects = live.machine.handle(now, event);
        live.backlog.extend(effects.clone());
        self.in_windows(&before, &effects, outside, checks);
        self.work_off(outside, checks);
        self.wait_for_due(outside);
    }

    /// Whatever it begins to fetch, and whatever it switches to, has its window open.
    fn in_windows(
        &self,
        before: &DeviceState,
        effects: &[DeviceEffect],
        outside: &Outside,
        checks: &mut Checks,
    ) {
        let Some(live) = &self.live else {
            return;
        };
        let after = live.machine.state();
        let shut = |name: &'static str, version: &SlotVersion, spans: Option<&Spans>| {
            let open = self.is_open(spans, outside);
            let what = || format!("{} {}", self.name, version.version());
            if open {
                Ok(())
            } else {
                Err(broken(name, what()))
            }
        };
        for effect in effects {
            let DeviceEffect::Fetch { model, .. } = effect else {
                continue;
            };
            let slot = after.models.get(model);
            if let Some(pending) = slot.and_then(|slot| slot.pending.as_ref()) {
                let spans = pending.schedule.as_ref().and_then(|s| s.fetch.as_ref());
                let held = shut("fetches-in-its-window", pending, spans);
                checks.hold(outside.now, held);
            }
        }
        for (model, slot) in &after.models {
            let old = before.models.get(model);
            let was = old.and_then(|old| old.active.as_ref()).map(|v| v.version());
            let wanted = old
                .and_then(|old| old.pending.as_ref())
                .map(|v| v.version());
            if let Some(active) = &slot.active
                && was != Some(active.version())
                && wanted == Some(active.version())
            {
                let spans = active.schedule.as_ref().and_then(|s| s.switch.as_ref());
                checks.hold(outside.now, shut("switches-in-its-window", active, spans));
            }
        }
    }

    /// It was told what time it is.
    pub(super) fn told_time(&mut self, time: Millis, outside: &mut Outside, checks: &mut Checks) {
        if let Some(live) = &mut self.live {
            live.wall.told(Millis(outside.now), time);
            live.heard.push((outside.now, time));
        }
        self.handle(DeviceEvent::Tick, outside, checks);
    }

    /// Performs what is to be done, and tells of it once all of it is done.
    fn work_off(&mut self, outside: &mut Outside, checks: &mut Checks) {
        let now = self.clock(outside.now);
        while let Some(effect) = self.live.as_mut().and_then(|l| l.backlog.take(now)) {
            match self.perform(effect.clone(), outside, checks) {
                Ok(()) => {}
                Err(DiskError::PowerCut) => return self.power_off(self.off_ms, outside),
                Err(DiskError::Full | DiskError::Io) => {
                    if let Some(live) = &mut self.live {
                        live.backlog.failed(now, effect);
                    }
                }
            }
        }
        if self.live.as_ref().is_some_and(|l| l.backlog.is_empty()) {
            self.report(outside);
        }
        self.send_windows(outside);
    }

    fn perform(
        &mut self,
        effect: DeviceEffect,
        outside: &mut Outside,
        checks: &mut Checks,
    ) -> Result<(), DiskError> {
        let Some(live) = &mut self.live else {
            return Ok(());
        };
        match effect {
            DeviceEffect::Persist => {
                let state = serde_json::to_vec(live.machine.state()).unwrap_or_default();
                let generation = live.machine.state().generation;
                self.disk.save_state(state)?;
                self.kept = generation;
            }
            DeviceEffect::Fetch { artefacts, .. } => {
                for artefact in artefacts {
                    if live.fetching.insert(artefact.digest) {
                        let ms = match self.disk.has(artefact.digest) {
                            true => 1,
                            false => 50 + artefact.size_bytes / BYTES_PER_MS,
                        };
                        outside.timer(self.number, self.boot, ms, Timer::Fetched(artefact));
                    }
                }
            }
            DeviceEffect::StopFetch { artefacts } => {
                for artefact in artefacts {
                    live.fetching.remove(&artefact.digest);
                }
            }
            DeviceEffect::StartRunner {
                model,
                version,
                variant,
                self_test,
            } => self.start((model, version, variant), self_test, outside, checks),
            DeviceEffect::Switch {
                model,
                version,
                variant,
            } => self.switch((model, version, variant), outside, checks)?,
            DeviceEffect::StopRunner {
                model,
                version,
                variant,
            } => self.stop(&(model, version, variant), outside, checks)?,
            DeviceEffect::Collect => {
                let keep = live.machine.live_artefacts();
                live.fetching.retain(|digest| keep.contains(digest));
                self.disk.collect(|digest| keep.contains(digest))?;
            }
            DeviceEffect::Refuse(refusal) => {
                live.observation.refused = Some(refusal.to_string());
            }
            DeviceEffect::Report => {}
        }
        Ok(())
    }

    fn wait_for_due(&mut self, outside: &mut Outside) {
        let now = self.clock(outside.now);
        let due = self.live.as_ref().and_then(|live| {
            let due = live.machine.next_deadline().map(|(at, _)| at);
            due.into_iter().chain(live.backlog.next_deadline()).min()
        });
        if let Some(at) = due {
            let wait = u64::try_from(at.since(now).as_millis()).unwrap_or(u64::MAX);
            let wait = wait.clamp(1_000, LOOK_AGAIN_MS);
            let planned = self.live.as_ref().map_or(0, |live| live.looks_at);
            if planned > outside.now && planned <= outside.now + wait {
                return;
            }
            if let Some(live) = &mut self.live {
                live.looks_at = outside.now + wait;
            }
            outside.timer(self.number, self.boot, wait, Timer::Due);
        }
    }

    /// A deadline of the reconciler may be due.
    pub(super) fn due(&mut self, outside: &mut Outside, checks: &mut Checks) {
        let now = self.clock(outside.now);
        let due = self.live.as_ref().and_then(|l| l.machine.next_deadline());
        if due.is_some_and(|(at, _)| now >= at) {
            return self.handle(DeviceEvent::Tick, outside, checks);
        }
        self.work_off(outside, checks);
        self.wait_for_due(outside);
    }

    /// A download has ended, or waits for a connection.
    pub(super) fn fetched(
        &mut self,
        artefact: ArtefactRef,
        outside: &mut Outside,
        checks: &mut Checks,
    ) {
        let Some(live) = &mut self.live else {
            return;
        };
        if !live.fetching.contains(&artefact.digest) {
            return; // Not wanted any more.
        }
        let here = self.disk.has(artefact.digest);
        if !here && (live.conn.is_none() || !outside.reaches(self.number)) {
            let again = Timer::Fetched(artefact);
            return outside.timer(self.number, self.boot, NO_CONNECTION_MS, again);
        }
        live.fetching.remove(&artefact.digest);
        let failed = |kind, message: &str| DeviceEvent::FetchFailed {
            artefact,
            kind,
            message: message.to_owned(),
        };
        let event = if here {
            DeviceEvent::Fetched(artefact)
        } else if self.troubles.damaged > 0 {
            failed(FailureKind::Fetch, "chunks arrive damaged")
        } else {
            match self.disk.commit(artefact.digest) {
                Ok(()) => {
                    // Written anew; one that was there already may have rotted since.
                    self.rotten.remove(&artefact.digest);
                    DeviceEvent::Fetched(artefact)
                }
                Err(DiskError::PowerCut) => return self.power_off(self.off_ms, outside),
                Err(DiskError::Full) => failed(FailureKind::Disk, "the disk is full"),
                Err(DiskError::Io) => failed(FailureKind::Disk, "the disk does not sync"),
            }
        };
        self.handle(event, outside, checks);
    }
}
