//! The controller: the fleet of the core over a store that a kill may come before or after every
//! commit of. What is left to be done is done only after the commit.

use crate::check::Checks;
use crate::event::{Conn, Down, Happening, Up};
use crate::outside::Outside;
use crate::sign::CONTROLLER;
use sandpiper_core::assignment::AssignmentBundle;
use sandpiper_core::digest::Digest;
use sandpiper_core::fleet::{Fleet, Outbox, Row, StreamId, ToDevice};
use sandpiper_core::names::DeviceName;
use sandpiper_core::signed::Purpose;
use sandpiper_core::time::Millis;
use std::collections::BTreeMap;
use std::convert::Infallible;

/// The world begins at this time of the wall clock.
pub const EPOCH_MS: u64 = 1_700_000_000_000;
/// Assignments kept to be replayed, per device.
const REPLAYED: usize = 8;

struct Kill {
    commits: u32,
    before: bool,
    off_ms: u64,
}

/// The controller.
pub struct Controller {
    fleet: Option<Fleet>,
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    streams: BTreeMap<StreamId, (usize, Conn)>,
    conns: BTreeMap<Conn, StreamId>,
    numbers: BTreeMap<DeviceName, usize>,
    names: Vec<DeviceName>,
    clock_ms: i64,
    start: u64,
    kill: Option<Kill>,
    looks_at: Option<u64>,
    /// What was sent to each device last.
    pub sent: BTreeMap<usize, Vec<AssignmentBundle>>,
}

impl Controller {
    /// A controller with an empty store, for devices of these names.
    pub fn new(names: Vec<DeviceName>) -> Self {
        let numbers = names.iter().cloned().enumerate();
        Self {
            fleet: Some(Fleet::default()),
            rows: BTreeMap::new(),
            streams: BTreeMap::new(),
            conns: BTreeMap::new(),
            numbers: numbers.map(|(number, name)| (name, number)).collect(),
            names,
            clock_ms: 0,
            start: 0,
            kill: None,
            looks_at: None,
            sent: BTreeMap::new(),
        }
    }

    /// The fleet, while the controller runs.
    pub fn fleet(&self) -> Option<&Fleet> {
        self.fleet.as_ref()
    }

    /// The time as its clock shows it.
    pub fn clock(&self, now: u64) -> Millis {
        Millis((EPOCH_MS + now).saturating_add_signed(self.clock_ms))
    }

    /// Its clock jumps.
    pub fn jump(&mut self, by_ms: i64, outside: &mut Outside) {
        self.clock_ms += by_ms;
        self.look_later(outside);
    }

    /// Its clock is right again.
    pub fn mend(&mut self, outside: &mut Outside) {
        self.clock_ms = 0;
        self.kill = None;
        self.look_later(outside);
    }

    /// It will be killed before or after one of its next commits.
    pub fn kill_at(&mut self, commits: u32, before: bool, off_ms: u64) {
        self.kill.get_or_insert(Kill {
            commits,
            before,
            off_ms,
        });
    }

    /// Does a job: decides, commits, and only then sends. Nothing while it is down.
    pub fn job<T>(
        &mut self,
        outside: &mut Outside,
        checks: &mut Checks,
        job: impl FnOnce(&mut Fleet, Millis) -> T,
    ) -> Option<T> {
        let now = self.clock(outside.now);
        let fleet = self.fleet.as_mut()?;
        let result = job(fleet, now);
        let outbox = fleet.take_outbox();
        checks.decided(outside.now, now, fleet, &outbox);
        let killed = match &mut self.kill {
            Some(kill) if !outbox.writes.is_empty() => {
                let due = kill.commits == 0;
                kill.commits = kill.commits.saturating_sub(1);
                due
            }
            _ => false,
        };
        if killed && let Some(kill) = self.kill.take() {
            if !kill.before {
                self.commit(&outbox);
                checks.restart(outside.now, self.fleet.as_ref(), self.load());
            }
            self.die(kill.off_ms, outside);
            checks.forget_fleet();
            return None;
        }
        self.commit(&outbox);
        self.deliver(outbox, outside, checks);
        self.look_later(outside);
        Some(result)
    }

    fn commit(&mut self, outbox: &Outbox) {
        for (key, value) in &outbox.writes {
            match value {
                Some(value) => self.rows.insert(key.clone(), value.clone()),
                None => self.rows.remove(key),
            };
        }
    }

    fn load(&self) -> Option<Fleet> {
        let range = |prefix: &[u8]| -> Result<Vec<Row>, Infallible> {
            let from = self.rows.range(prefix.to_vec()..);
            let rows = from.take_while(|(key, _)| key.starts_with(prefix));
            Ok(rows.map(|(k, v)| (k.clone(), v.clone())).collect())
        };
        Fleet::load(range).ok()
    }

    fn die(&mut self, off_ms: u64, outside: &mut Outside) {
        self.fleet = None;
        self.start += 1;
        self.looks_at = None;
        for (conn, stream) in std::mem::take(&mut self.conns) {
            if let Some((device, _)) = self.streams.remove(&stream) {
                outside.kill(device, conn);
            }
        }
        self.streams.clear();
        outside.after(off_ms, Happening::ControllerStarts);
    }

    /// It is started on what its store holds.
    pub fn start(&mut self, outside: &mut Outside, checks: &mut Checks) {
        if self.fleet.is_some() {
            return;
        }
        self.fleet = self.load();
        checks.loaded(outside.now, self.fleet.as_ref());
        self.job(outside, checks, |fleet, now| fleet.tick(now));
    }

    fn look_later(&mut self, outside: &mut Outside) {
        let Some(at) = self.fleet.as_ref().and_then(Fleet::next_deadline) else {
            return;
        };
        let wait = at.since(self.clock(outside.now)).as_millis();
        // As the actor: never at once, so that a deadline that stays cannot spin.
        let due = outside.now + u64::try_from(wait).unwrap_or(u64::MAX).max(1_000);
        if self
            .looks_at
            .is_none_or(|planned| planned > due || planned <= outside.now)
        {
            self.looks_at = Some(due);
            outside
                .queue
                .at(due, Happening::ControllerLooks(self.start));
        }
    }

    /// It looks at its deadlines.
    pub fn look(&mut self, start: u64, outside: &mut Outside, checks: &mut Checks) {
        if start == self.start {
            self.looks_at = None;
            self.job(outside, checks, |fleet, now| fleet.tick(now));
        }
    }

    /// A message arrives.
    pub fn take(
        &mut self,
        device: usize,
        conn: Conn,
        message: Up,
        outside: &mut Outside,
        checks: &mut Checks,
    ) {
        let name = self.names[device].clone();
        if self.fleet.is_none() {
            return outside.kill(device, conn);
        }
        let known = self.conns.get(&conn).copied();
        let denied = match (message, known) {
            (Up::Hello(hello), None) => {
                let old = self.fleet.as_ref().and_then(|fleet| fleet.stream(&name));
                let reads = old
                    .and_then(|old| self.streams.get(&old))
                    .is_some_and(|(_, conn)| outside.is_alive(*conn));
                let mut attached = None;
                let result = self.job(outside, checks, |fleet, now| {
                    let id = fleet.attach(now, &name, *hello, reads);
                    attached = id.as_ref().ok().copied();
                    id.is_err()
                });
                if let (Some(id), Some(_)) = (attached, result) {
                    self.streams.insert(id, (device, conn));
                    self.conns.insert(conn, id);
                    // What was decided while it attached waits for its stream to be known.
                    self.greet(device, &name, outside, checks);
                }
                result == Some(true)
            }
            // A second hello on one stream, or words before one, end it.
            (Up::Hello(_), Some(_)) | (_, None) => false,
            (Up::Observation(seen), Some(id)) => {
                let job = |fleet: &mut Fleet, now| fleet.report(now, &name, id, *seen).is_err();
                self.job(outside, checks, job) == Some(true)
            }
            (Up::Telemetry(windows), Some(id)) => {
                let job =
                    |fleet: &mut Fleet, now| fleet.telemetry(now, &name, id, windows).is_err();
                self.job(outside, checks, job) == Some(true)
            }
        };
        if denied {
            outside.down(device, conn, Down::Disconnect { retry: true });
            self.close(device, conn, outside, checks);
        }
    }

    /// Sends the assignment to a device that has just attached and is behind.
    fn greet(
        &mut self,
        device: usize,
        name: &DeviceName,
        outside: &mut Outside,
        checks: &mut Checks,
    ) {
        let record = self.fleet.as_ref().and_then(|f| f.devices().get(name));
        let behind = record.is_some_and(|r| {
            r.observation
                .as_ref()
                .is_some_and(|o| o.generation < r.generation)
        });
        self.tell_time(device, name, outside);
        if behind {
            self.send(device, outside, checks);
        }
    }

    /// Tells the time to a device whose stream was not known yet when that was decided.
    fn tell_time(&mut self, device: usize, name: &DeviceName, outside: &mut Outside) {
        let Some(fleet) = self.fleet.as_ref().filter(|f| f.needs_time(name)) else {
            return;
        };
        let stream = fleet.stream(name).and_then(|id| self.streams.get(&id));
        if let Some((_, conn)) = stream.copied() {
            let time = self.clock(outside.now);
            outside.down(device, conn, Down::Clock(time));
        }
    }

    /// A connection is over.
    pub fn close(&mut self, device: usize, conn: Conn, outside: &mut Outside, checks: &mut Checks) {
        if let Some(id) = self.conns.remove(&conn) {
            self.streams.remove(&id);
            let name = self.names[device].clone();
            self.job(outside, checks, |fleet, now| fleet.detach(now, &name, id));
        }
    }

    fn deliver(&mut self, outbox: Outbox, outside: &mut Outside, checks: &mut Checks) {
        for (stream, message) in outbox.send {
            let Some((device, conn)) = self.streams.get(&stream).copied() else {
                continue;
            };
            let message = match message {
                ToDevice::TelemetryAck { boot, sequence } => Down::Ack { boot, sequence },
                ToDevice::Clock(time) => Down::Clock(time),
                ToDevice::Disconnect { retry, .. } => {
                    self.streams.remove(&stream);
                    self.conns.remove(&conn);
                    Down::Disconnect { retry }
                }
            };
            outside.down(device, conn, message);
        }
        for name in outbox.assigned {
            if let Some(device) = self.numbers.get(&name).copied() {
                self.send(device, outside, checks);
            }
        }
    }

    /// Sends the device its assignment as it is now.
    fn send(&mut self, device: usize, outside: &mut Outside, checks: &mut Checks) {
        let name = &self.names[device];
        let Some(fleet) = &self.fleet else {
            return;
        };
        let Some((assignment, versions)) = fleet.assignment(name) else {
            return;
        };
        let payload = serde_json::to_vec(&assignment).unwrap_or_default();
        checks.signed.insert(Digest::of(&payload));
        let sent = checks.sent.entry(name.clone()).or_default();
        *sent = (*sent).max(assignment.generation);
        let bundle = AssignmentBundle {
            assignment: CONTROLLER.sign(Purpose::Assignment, payload),
            versions: versions.into_iter().cloned().collect(),
        };
        let kept = self.sent.entry(device).or_default();
        if kept.len() == REPLAYED {
            kept.remove(0);
        }
        kept.push(bundle.clone());
        let stream = fleet.stream(name).and_then(|id| self.streams.get(&id));
        if let Some((_, conn)) = stream.copied() {
            outside.down(device, conn, Down::Assignment(Box::new(bundle)));
        }
    }
}
