//! The connection of a device: hello, reports on change, telemetry until acknowledged, and coming
//! back with full jitter. What does not verify changes nothing.

use super::Device;
use crate::check::{Checks, broken};
use crate::disk::DiskError;
use crate::event::{Conn, Down, Timer, Up};
use crate::fault::Lie;
use crate::outside::Outside;
use crate::sign::{CONTROLLER, PUBLISHER};
use sandpiper_core::assignment::{Assignment, AssignmentBundle};
use sandpiper_core::digest::Digest;
use sandpiper_core::manifest::VersionManifest;
use sandpiper_core::reconcile::DeviceEvent;
use sandpiper_core::signed::Purpose;
use sandpiper_core::telemetry::{Hello, ModelPhase, Observation, Serving};
use std::time::Duration;

/// What a liar says that it runs.
const FAKE: &[u8] = b"code that nobody published";

/// Windows in one message.
const BATCH: usize = 64;

impl Device {
    /// Tries to connect; comes back later when nobody answers.
    pub(super) fn connect(&mut self, outside: &mut Outside) {
        let dice = self.dice.unit();
        let reaches = outside.reaches(self.number);
        let boot_id = self.boot << 16 | self.number as u64;
        let profile = self.body.profile();
        let Some(live) = &mut self.live else {
            return;
        };
        if live.conn.is_some() {
            return;
        }
        if !reaches {
            let wait = live.backoff.after_failure(dice).as_millis() as u64;
            return outside.timer(self.number, self.boot, wait.max(100), Timer::Connect);
        }
        let conn = outside.connect();
        live.conn = Some(conn);
        live.connected_at = outside.now;
        live.sent = 0;
        let observation = live.observation.clone();
        live.told = Some(observation.clone());
        let observation = self.as_told(observation);
        self.told = self.told.max(observation.generation);
        let hello = Hello {
            boot_id,
            profile,
            observation,
        };
        outside.up(self.number, conn, Up::Hello(Box::new(hello)));
        self.send_windows(outside);
    }

    /// The connection is over; the next attempt comes after a wait.
    pub(super) fn disconnected(&mut self, outside: &mut Outside) {
        let dice = self.dice.unit();
        let Some(live) = &mut self.live else {
            return;
        };
        live.conn = None;
        let held = outside.now.saturating_sub(live.connected_at);
        live.backoff.held_for(Duration::from_millis(held));
        let wait = live.backoff.after_failure(dice).as_millis() as u64;
        outside.timer(self.number, self.boot, wait.max(100), Timer::Connect);
    }

    /// It notices that a connection is dead.
    pub fn notices(&mut self, conn: Conn, outside: &mut Outside) {
        if self.live.as_ref().is_some_and(|l| l.conn == Some(conn)) {
            self.disconnected(outside);
        }
    }

    /// The present connection, if it is on and has one.
    pub fn conn(&self) -> Option<Conn> {
        self.live.as_ref()?.conn
    }

    /// What a liar makes of an observation.
    fn as_told(&self, mut observation: Observation) -> Observation {
        if self.troubles.lie == Some(Lie::FakeDigest) {
            for status in &mut observation.models {
                let variant = status.failure.as_ref().map(|f| f.variant.clone());
                let served = status.serving.as_ref().map(|s| s.variant.clone());
                let Some(variant) = variant.or(served) else {
                    continue;
                };
                status.phase = ModelPhase::Serving;
                status.failure = None;
                status.serving = Some(Serving {
                    version: status.wanted.clone(),
                    variant,
                    code: Digest::of(FAKE),
                    power_state: sandpiper_core::profile::PowerState::Mains,
                });
            }
        }
        observation
    }

    /// Tells what has changed.
    pub(super) fn report(&mut self, outside: &mut Outside) {
        let Some(live) = &mut self.live else {
            return;
        };
        live.observation.generation = live.machine.state().generation;
        live.observation.models = live.machine.statuses();
        self.tell(outside);
    }

    fn tell(&mut self, outside: &mut Outside) {
        let silent = self.troubles.silent > 0;
        let Some(live) = &mut self.live else {
            return;
        };
        let Some(conn) = live.conn.filter(|_| !silent) else {
            return;
        };
        if live.told.as_ref() == Some(&live.observation) {
            return;
        }
        let observation = live.observation.clone();
        live.told = Some(observation.clone());
        self.told = self.told.max(observation.generation);
        let observation = Box::new(self.as_told(observation));
        outside.up(self.number, conn, Up::Observation(observation));
    }

    /// A telemetry window ends: look at the battery, close, send.
    pub(super) fn window_ends(&mut self, outside: &mut Outside, checks: &mut Checks) {
        self.count(outside, checks);
        if self.close_windows(outside, checks) == Err(DiskError::PowerCut) {
            return self.power_off(self.off_ms, outside);
        }
        self.look(outside, checks);
        self.tell(outside);
        self.send_windows(outside);
    }

    /// Looks at the battery and climbs when it says so.
    pub(super) fn look(&mut self, outside: &mut Outside, checks: &mut Checks) {
        let conditions = self.body.conditions();
        let Some(live) = &mut self.live else {
            return;
        };
        let models = live.machine.state().models.values();
        let ladders = models.filter_map(|s| s.active.as_ref()).map(|a| &a.ladder);
        let (low, critical) = ladders.fold((0, 0), |(l, c), ladder| {
            (ladder.low_percent.max(l), ladder.critical_percent.max(c))
        });
        let state = live.climber.observe(&conditions, low, critical);
        live.observation.conditions = conditions;
        if state != live.machine.power_state() {
            self.handle(DeviceEvent::PowerState(state), outside, checks);
        }
    }

    pub(super) fn send_windows(&mut self, outside: &mut Outside) {
        let replays = self.troubles.lie == Some(Lie::Replays);
        let silent = self.troubles.silent > 0;
        let Some(live) = &mut self.live else {
            return;
        };
        let Some(conn) = live.conn.filter(|_| !silent) else {
            return;
        };
        if !replays && std::mem::take(&mut live.ignored) {
            // Honest again: what it would not hear about is told once more.
            live.sent = 0;
        }
        let after = if replays { 0 } else { live.sent };
        let mut windows = live.ring.pending(after, BATCH);
        if self.troubles.lie == Some(Lie::FakeDigest) {
            let wanted = live.observation.models.first().map(|s| s.wanted.clone());
            for window in &mut windows {
                window.version = wanted.clone().unwrap_or(window.version.clone());
                window.code = Digest::of(FAKE);
                window.generation = live.observation.generation;
                window.inferences += 1_000;
            }
        }
        let Some(last) = windows.last() else {
            return;
        };
        live.sent = live.sent.max(last.sequence);
        if replays {
            outside.up(self.number, conn, Up::Telemetry(windows.clone()));
        }
        outside.up(self.number, conn, Up::Telemetry(windows));
    }

    /// A message of the controller, or of somebody who says so.
    pub(super) fn message(
        &mut self,
        conn: Option<Conn>,
        message: Down,
        outside: &mut Outside,
        checks: &mut Checks,
    ) {
        let Some(live) = &mut self.live else {
            return;
        };
        if live.conn != conn {
            return; // Of a connection that is gone.
        }
        match message {
            Down::Assignment(bundle) => self.assigned(&bundle, outside, checks),
            Down::Ack { boot, sequence } => {
                // A liar keeps its windows to send them again.
                if self.troubles.lie == Some(Lie::Replays) {
                    live.ignored = true;
                    return;
                }
                match live.ring.acknowledge(&mut self.disk, boot, sequence) {
                    Err(DiskError::PowerCut) => self.power_off(self.off_ms, outside),
                    Ok(()) | Err(DiskError::Full | DiskError::Io) => self.send_windows(outside),
                }
            }
            Down::Clock(time) => self.told_time(time, outside, checks),
            Down::Disconnect { .. } => self.disconnected(outside),
        }
    }

    fn assigned(&mut self, bundle: &AssignmentBundle, outside: &mut Outside, checks: &mut Checks) {
        self.count(outside, checks);
        // What was served so far was served under the assignment before.
        if self.close_windows(outside, checks) == Err(DiskError::PowerCut) {
            return self.power_off(self.off_ms, outside);
        }
        let Some(live) = &mut self.live else {
            return;
        };
        live.observation.refused = None;
        let Some((assignment, manifests)) = verified(bundle) else {
            live.observation.refused = Some("a signature is not genuine".to_owned());
            return self.tell(outside);
        };
        let event = DeviceEvent::Assigned(assignment, manifests);
        self.handle(event, outside, checks);
        self.is_genuine(outside, checks);
    }

    /// Whatever it has accepted was signed, and for it.
    fn is_genuine(&self, outside: &Outside, checks: &mut Checks) {
        let state = self.live.as_ref().map(|live| live.machine.state());
        let Some(accepted) = state.and_then(|s| s.assignment.as_ref()) else {
            return;
        };
        let payload = serde_json::to_vec(accepted).unwrap_or_default();
        let known = checks.genuine.contains(&Digest::of(&payload));
        if !known || accepted.device != self.name {
            let what = format!("{} runs generation {}", self.name, accepted.generation.0);
            let result = Err(broken("only-what-was-signed-for-it", what));
            checks.hold(outside.now, result);
        }
    }
}

fn verified(bundle: &AssignmentBundle) -> Option<(Assignment, Vec<VersionManifest>)> {
    let payload = CONTROLLER.verify(&bundle.assignment, Purpose::Assignment)?;
    let assignment = serde_json::from_slice(payload).ok()?;
    let manifests = bundle.versions.iter().map(|signed| {
        let payload = PUBLISHER.verify(signed, Purpose::Version)?;
        serde_json::from_slice(payload).ok()
    });
    Some((assignment, manifests.collect::<Option<_>>()?))
}
