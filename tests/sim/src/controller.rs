//! The controller: the fleet of the core over a store that a kill may come before or after every
//! commit of. What is left to be done is done only after the commit. A second one may take over
//! while the first goes on: it keeps its streams, and cannot write.

use crate::check::Checks;
use crate::event::{Conn, Down, Happening, Up};
use crate::outside::Outside;
use crate::sign::CONTROLLER;
use crate::store::Store;
use sandpiper_core::assignment::AssignmentBundle;
use sandpiper_core::digest::Digest;
use sandpiper_core::fleet::{Fleet, Outbox, StreamId, ToDevice};
use sandpiper_core::names::DeviceName;
use sandpiper_core::signed::Purpose;
use sandpiper_core::time::Millis;
use std::collections::{BTreeMap, BTreeSet};

/// The world begins at this time of the wall clock.
pub const EPOCH_MS: u64 = 1_700_000_000_000;
/// Assignments kept to be replayed, per device.
const REPLAYED: usize = 8;
/// A process that was taken over from stood still, and goes on after this long at the latest: then it
/// asks the store within seconds whether it still acts, which is no time here.
const STANDS_STILL_MS: u64 = 30 * 60_000;

struct Kill {
    commits: u32,
    before: bool,
    off_ms: u64,
}

/// One process: what is lost when it is killed.
struct Process {
    fleet: Fleet,
    streams: BTreeMap<StreamId, (usize, Conn)>,
    conns: BTreeMap<Conn, StreamId>,
}

impl Process {
    fn new(fleet: Fleet) -> Self {
        Self {
            fleet,
            streams: BTreeMap::new(),
            conns: BTreeMap::new(),
        }
    }
}

/// Which process does a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    /// The one that started last.
    Newest,
    /// The one before, which does not know that it was replaced.
    Stale,
}

/// The controller.
pub struct Controller {
    newest: Option<Process>,
    stale: Option<Process>,
    store: Store,
    /// Connections that were ended: nothing that comes late on them is heard.
    ended: BTreeSet<Conn>,
    numbers: BTreeMap<DeviceName, usize>,
    names: Vec<DeviceName>,
    clock_ms: i64,
    start: u64,
    kill: Option<Kill>,
    looks_at: Option<u64>,
    /// What was sent to each device last.
    pub sent: BTreeMap<usize, Vec<AssignmentBundle>>,
    /// Processes that were kept from writing because another one had taken over.
    pub fenced: u64,
}

impl Controller {
    /// A controller with an empty store, for devices of these names.
    ///
    /// # Panics
    /// Never: an empty store can be read.
    pub fn new(names: Vec<DeviceName>) -> Self {
        let numbers = names.iter().cloned().enumerate();
        let mut store = Store::default();
        let fleet = store.take_over().expect("an empty store can be read");
        Self {
            newest: Some(Process::new(fleet)),
            stale: None,
            store,
            ended: BTreeSet::new(),
            numbers: numbers.map(|(number, name)| (name, number)).collect(),
            names,
            clock_ms: 0,
            start: 0,
            kill: None,
            looks_at: None,
            sent: BTreeMap::new(),
            fenced: 0,
        }
    }

    /// A device with the name of another one: a copy of its card.
    pub fn knows_clone(&mut self, of: usize) {
        self.names.push(self.names[of].clone());
    }

    /// The fleet, while the controller runs.
    pub fn fleet(&self) -> Option<&Fleet> {
        self.newest.as_ref().map(|process| &process.fleet)
    }

    fn process(&mut self, which: Which) -> &mut Option<Process> {
        match which {
            Which::Newest => &mut self.newest,
            Which::Stale => &mut self.stale,
        }
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
        self.job_of(Which::Newest, outside, checks, job)
    }

    fn job_of<T>(
        &mut self,
        which: Which,
        outside: &mut Outside,
        checks: &mut Checks,
        job: impl FnOnce(&mut Fleet, Millis) -> T,
    ) -> Option<T> {
        let now = self.clock(outside.now);
        let fleet = &mut self.process(which).as_mut()?.fleet;
        let result = job(fleet, now);
        let outbox = fleet.take_outbox();
        let killed = match &mut self.kill {
            Some(kill) if !outbox.writes.is_empty() && which == Which::Newest => {
                let due = kill.commits == 0;
                kill.commits = kill.commits.saturating_sub(1);
                due
            }
            _ => false,
        };
        if killed && let Some(kill) = self.kill.take() {
            if !kill.before && self.commit(which, now, &outbox, outside, checks) {
                checks.restart(outside.now, self.fleet(), self.store.load().ok());
            }
            self.end(which, outside);
            self.start += 1;
            self.looks_at = None;
            outside.after(kill.off_ms, Happening::ControllerStarts);
            return None;
        }
        if !self.commit(which, now, &outbox, outside, checks) {
            // Another one has taken over, and so it ends. Devices and operators find the other.
            self.fenced += 1;
            self.end(which, outside);
            return None;
        }
        self.deliver(which, outbox, outside, checks);
        self.look_later(outside);
        Some(result)
    }

    /// Commits, and checks what was decided: what cannot be committed never was.
    fn commit(
        &mut self,
        which: Which,
        now: Millis,
        outbox: &Outbox,
        outside: &Outside,
        checks: &mut Checks,
    ) -> bool {
        let committed = self.store.commit(outbox);
        let process = match which {
            Which::Newest => &self.newest,
            Which::Stale => &self.stale,
        };
        // One that was replaced and writes nothing knows an older state.
        let counts = which == Which::Newest || !outbox.writes.is_empty();
        if let Some(process) = process.as_ref().filter(|_| committed && counts) {
            checks.decided(outside.now, now, &process.fleet, outbox);
        }
        committed
    }

    /// A process is gone with its connections.
    fn end(&mut self, which: Which, outside: &mut Outside) {
        let Some(process) = self.process(which).take() else {
            return;
        };
        for (conn, stream) in process.conns {
            if let Some((device, _)) = process.streams.get(&stream) {
                outside.kill(*device, conn);
            }
        }
    }

    /// Another controller starts on the same store while this one goes on, and devices that come
    /// back find the new one.
    pub fn taken_over(&mut self, outside: &mut Outside, checks: &mut Checks) {
        if self.newest.is_some() {
            self.end(Which::Stale, outside);
            self.stale = self.newest.take();
            self.start += 1;
            self.looks_at = None;
            self.start(outside, checks);
            let wakes = Happening::ControllerLooks(self.start);
            outside.after(STANDS_STILL_MS, wakes);
        }
    }

    /// It is started on what its store holds.
    pub fn start(&mut self, outside: &mut Outside, checks: &mut Checks) {
        if self.newest.is_some() {
            return;
        }
        let fleet = self.store.take_over().ok();
        checks.loaded(outside.now, fleet.as_ref());
        self.newest = fleet.map(Process::new);
        self.job(outside, checks, |fleet, now| fleet.tick(now));
    }

    fn look_later(&mut self, outside: &mut Outside) {
        let Some(at) = self.fleet().and_then(Fleet::next_deadline) else {
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
        // One that was replaced looks as well, and does not know better. Then it asks the store.
        self.job_of(Which::Stale, outside, checks, |fleet, now| fleet.tick(now));
        let asks = self
            .stale
            .as_mut()
            .map(|process| process.fleet.take_outbox());
        if asks.is_some_and(|asks| !self.store.admits(&asks)) {
            self.fenced += 1;
            self.end(Which::Stale, outside);
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
        if self.ended.contains(&conn) {
            return;
        }
        let of = |process: &Option<Process>| Some(*process.as_ref()?.conns.get(&conn)?);
        let (which, known) = match (of(&self.newest), of(&self.stale)) {
            (None, Some(id)) => (Which::Stale, Some(id)),
            (known, _) => (Which::Newest, known),
        };
        let Some(process) = self.process(which) else {
            return outside.kill(device, conn);
        };
        let denied = match (message, known) {
            (Up::Hello(hello), None) => {
                let old = process.fleet.stream(&name);
                let reads = old
                    .and_then(|old| process.streams.get(&old))
                    .is_some_and(|(_, conn)| outside.is_alive(*conn));
                let mut attached = None;
                let boot_id = hello.boot_id;
                let result = self.job(outside, checks, |fleet, now| {
                    let id = fleet.attach(now, &name, *hello, reads);
                    attached = id.as_ref().ok().copied();
                    id.is_err()
                });
                if let (Some(id), Some(_)) = (attached, result)
                    && let Some(process) = &mut self.newest
                {
                    process.streams.insert(id, (device, conn));
                    process.conns.insert(conn, id);
                    checks.attached(outside.now, &name, boot_id);
                    // What was decided while it attached waits for its stream to be known.
                    self.greet(&name, outside, checks);
                }
                if result.is_none() {
                    // It died over it, and the connection with it.
                    outside.kill(device, conn);
                }
                result == Some(true)
            }
            // Of a process that is gone.
            (Up::Observation(_) | Up::Telemetry(_), None) => {
                outside.kill(device, conn);
                false
            }
            // A second hello on one stream.
            (Up::Hello(_), Some(_)) => false,
            (Up::Observation(seen), Some(id)) => {
                let job = |fleet: &mut Fleet, now| fleet.report(now, &name, id, *seen).is_err();
                self.job_of(which, outside, checks, job) == Some(true)
            }
            (Up::Telemetry(windows), Some(id)) => {
                let job =
                    |fleet: &mut Fleet, now| fleet.telemetry(now, &name, id, windows).is_err();
                self.job_of(which, outside, checks, job) == Some(true)
            }
        };
        if denied {
            outside.down(device, conn, Down::Disconnect { retry: true });
            self.close(device, conn, outside, checks);
        }
    }

    /// Sends the assignment to a device that has just attached and is behind.
    fn greet(&mut self, name: &DeviceName, outside: &mut Outside, checks: &mut Checks) {
        let record = self.fleet().and_then(|f| f.devices().get(name));
        let behind = record.is_some_and(|r| {
            r.observation
                .as_ref()
                .is_some_and(|o| o.generation < r.generation)
        });
        self.tell_time(name, outside);
        if behind {
            self.send(Which::Newest, name, outside, checks);
        }
    }

    /// Tells the time to a device whose stream was not known yet when that was decided.
    fn tell_time(&mut self, name: &DeviceName, outside: &mut Outside) {
        let process = self.newest.as_ref();
        let Some(process) = process.filter(|p| p.fleet.needs_time(name)) else {
            return;
        };
        let stream = process.fleet.stream(name);
        if let Some((device, conn)) = stream.and_then(|id| process.streams.get(&id)).copied() {
            let time = self.clock(outside.now);
            outside.down(device, conn, Down::Clock(time));
        }
    }

    /// A connection is over.
    pub fn close(&mut self, device: usize, conn: Conn, outside: &mut Outside, checks: &mut Checks) {
        self.ended.insert(conn);
        for which in [Which::Newest, Which::Stale] {
            let Some(process) = self.process(which) else {
                continue;
            };
            if let Some(id) = process.conns.remove(&conn) {
                process.streams.remove(&id);
                let name = self.names[device].clone();
                let job = |fleet: &mut Fleet, now| fleet.detach(now, &name, id);
                self.job_of(which, outside, checks, job);
            }
        }
    }

    fn deliver(
        &mut self,
        which: Which,
        outbox: Outbox,
        outside: &mut Outside,
        checks: &mut Checks,
    ) {
        for (stream, message) in outbox.send {
            let Some(process) = self.process(which) else {
                return;
            };
            let Some((device, conn)) = process.streams.get(&stream).copied() else {
                continue;
            };
            let message = match message {
                ToDevice::TelemetryAck { boot, sequence } => Down::Ack { boot, sequence },
                ToDevice::Clock(time) => Down::Clock(time),
                ToDevice::Disconnect { retry, .. } => {
                    process.streams.remove(&stream);
                    process.conns.remove(&conn);
                    self.ended.insert(conn);
                    Down::Disconnect { retry }
                }
            };
            outside.down(device, conn, message);
        }
        for name in outbox.assigned {
            self.send(which, &name, outside, checks);
        }
    }

    /// Sends the device its assignment as it is now.
    fn send(
        &mut self,
        which: Which,
        name: &DeviceName,
        outside: &mut Outside,
        checks: &mut Checks,
    ) {
        let Some(process) = self.process(which) else {
            return;
        };
        let Some((assignment, versions)) = process.fleet.assignment(name) else {
            return;
        };
        let versions = versions.into_iter().cloned().collect();
        let stream = process.fleet.stream(name);
        let stream = stream.and_then(|id| process.streams.get(&id)).copied();
        let payload = serde_json::to_vec(&assignment).unwrap_or_default();
        checks.signed(outside.now, &assignment, Digest::of(&payload));
        let bundle = AssignmentBundle {
            assignment: CONTROLLER.sign(Purpose::Assignment, payload),
            versions,
            agent: None,
        };
        if let Some(number) = self.numbers.get(name) {
            let kept = self.sent.entry(*number).or_default();
            if kept.len() == REPLAYED {
                kept.remove(0);
            }
            kept.push(bundle.clone());
        }
        if let Some((device, conn)) = stream {
            outside.down(device, conn, Down::Assignment(Box::new(bundle)));
        }
    }
}
