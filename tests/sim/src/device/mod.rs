//! A device: the reconciler, the climber and the ring of the core over a disk, runners, a battery
//! and a connection that fail. It does what the agent's driver does, in the same order.
//!
//! | module | what it holds |
//! |---|---|
//! | `driver` | effects of the reconciler: persist first, then act |
//! | `runners` | runners from their start to their death, and what they serve |
//! | `session` | the connection: hello, reports, telemetry, coming back |
//! | `body` | battery, heat, and what the device is |

mod body;
mod driver;
mod runners;
mod session;

use crate::check::{Checks, broken};
use crate::dice::Dice;
use crate::disk::Disk;
use crate::event::{Conn, Down, Happening, Timer};
use crate::fault::Lie;
use crate::outside::Outside;
pub use body::Body;
use runners::Runners;
use sandpiper_core::assignment::Generation;
use sandpiper_core::backoff::FullJitter;
use sandpiper_core::digest::Digest;
use sandpiper_core::invariants;
use sandpiper_core::ladder::Climber;
use sandpiper_core::names::{DeviceName, ModelName};
use sandpiper_core::reconcile::{Backlog, DeviceEvent, DeviceState, Reconciler};
use sandpiper_core::ring::{MAX_WINDOWS, Ring};
use sandpiper_core::telemetry::Observation;
use sandpiper_core::time::Millis;
use sandpiper_core::window::{Spans, Wall};
use std::collections::BTreeSet;

/// What is lost with the power.
struct Live {
    machine: Reconciler,
    backlog: Backlog,
    ring: Ring,
    climber: Climber,
    backoff: FullJitter,
    connected_at: u64,
    conn: Option<Conn>,
    /// Last window sent on this connection.
    sent: u64,
    /// It lied, and did not hear what was acknowledged.
    ignored: bool,
    observation: Observation,
    /// What was told last on this connection.
    told: Option<Observation>,
    fetching: BTreeSet<Digest>,
    wall: Wall,
    /// What it was told the time was, and when in the world: what its windows are held against.
    heard: Vec<(u64, Millis)>,
    /// When its next look at deadlines is due.
    looks_at: u64,
    runners: Runners,
}

/// What is the matter with a device from outside.
#[derive(Debug, Default)]
pub struct Troubles {
    /// It says nothing.
    pub silent: u32,
    /// How it lies.
    pub lie: Option<Lie>,
    /// Downloads arrive damaged.
    pub damaged: u32,
    /// Nobody asks it for anything.
    pub idle: u32,
    /// It is hot.
    pub hot: u32,
}

/// A device.
pub struct Device {
    /// Its number.
    pub number: usize,
    /// Its name.
    pub name: DeviceName,
    /// Its disk.
    pub disk: Disk,
    /// What is the matter with it.
    pub troubles: Troubles,
    /// Battery, heat, and what it is.
    pub body: Body,
    /// Difference of its clock to that of the world.
    clock_ms: i64,
    boot: u64,
    /// Number of its installation, which a copy of its card shares.
    installation: u64,
    /// It is a copy that has been wiped.
    wiped: bool,
    live: Option<Live>,
    /// Off time of a power cut that is about to come.
    off_ms: u64,
    window_ms: u64,
    /// Newest generation that it has told anybody.
    told: Generation,
    /// Generation of the state on its disk.
    kept: Generation,
    /// Artefacts that have rotted.
    rotten: BTreeSet<Digest>,
    dice: Dice,
}

impl Device {
    /// A device that is off.
    pub fn new(seed: u64, number: usize, window_ms: u64) -> Self {
        let mut dice = Dice::new(seed, "device", number as u64);
        let body = Body::new(&mut dice);
        Self {
            number,
            name: crate::truth::name(format!("pi-{number:03}")),
            disk: Disk::new(Dice::new(seed, "disk", number as u64)),
            troubles: Troubles::default(),
            body,
            // Many boards wake up in 1970.
            clock_ms: match dice.chance(0.3) {
                true => -(crate::controller::EPOCH_MS as i64),
                false => dice.below(120_000) as i64 - 60_000,
            },
            boot: 0,
            installation: number as u64 + 1,
            wiped: false,
            live: None,
            off_ms: 1_000,
            window_ms,
            told: Generation::default(),
            kept: Generation::default(),
            rotten: BTreeSet::new(),
            dice,
        }
    }

    /// Another device with a copy of this one's card. It is off.
    pub fn copy(&self, seed: u64, number: usize) -> Self {
        let mut disk = self.disk.clone();
        disk.crash();
        Self {
            number,
            name: self.name.clone(),
            disk,
            body: self.body.clone(),
            rotten: self.rotten.clone(),
            installation: self.installation,
            ..Self::new(seed, number, self.window_ms)
        }
    }

    /// Its card is wiped, and it never comes back.
    pub fn wipe(&mut self, outside: &mut Outside) {
        self.power_off(0, outside);
        self.wiped = true;
    }

    /// Whether it is a copy that has been wiped.
    pub fn is_wiped(&self) -> bool {
        self.wiped
    }

    /// The time as its clock shows it.
    pub fn clock(&self, now: u64) -> Millis {
        Millis((crate::controller::EPOCH_MS + now).saturating_add_signed(self.clock_ms))
    }

    /// Its clock jumps; 0 sets it to 1970.
    pub fn jump(&mut self, by_ms: i64, now: u64) {
        self.clock_ms = match by_ms {
            0 => -i64::try_from(crate::controller::EPOCH_MS + now).unwrap_or(i64::MAX),
            by => self.clock_ms.saturating_add(by),
        };
    }

    /// Its clock is right.
    pub fn mend_clock(&mut self) {
        self.clock_ms = 0;
    }

    /// The reconciler, while the device is on.
    pub fn machine(&self) -> Option<&Reconciler> {
        self.live.as_ref().map(|live| &live.machine)
    }

    /// Whether a runner of the model runs or starts.
    pub fn runs_any_of(&self, model: &ModelName) -> bool {
        self.live
            .as_ref()
            .is_some_and(|live| live.runners.any_of(model))
    }

    /// Windows that the controller has not acknowledged, and those given up.
    pub fn windows(&self) -> Option<(usize, u64)> {
        self.live.as_ref().map(|l| (l.ring.len(), l.ring.lost()))
    }

    /// It gets power: everything is restored from the disk.
    pub fn power_on(&mut self, outside: &mut Outside, checks: &mut Checks) {
        if self.live.is_some() || self.wiped {
            return;
        }
        self.boot += 1;
        let parsed = self.disk.state().map(serde_json::from_slice::<DeviceState>);
        let state = match parsed {
            None => DeviceState::default(),
            Some(Ok(state)) => state,
            Some(Err(error)) => {
                let what = format!("{}: {error}", self.name);
                checks.hold(outside.now, Err(broken("the-state-survives", what)));
                return;
            }
        };
        self.kept = state.generation;
        checks.hold(outside.now, invariants::device_state(&state));
        let survives = invariants::generation_survives(self.told, state.generation);
        checks.hold(outside.now, survives);
        let (next, windows) = self.disk.windows();
        let profile = self.body.profile();
        self.live = Some(Live {
            ring: Ring::restored(self.installation, next, windows, 0, MAX_WINDOWS),
            observation: Observation {
                generation: state.generation,
                conditions: self.body.conditions(),
                models: Vec::new(),
                refused: None,
                agent: None,
            },
            machine: Reconciler::new(
                state,
                profile.targets,
                profile.runtime_keys,
                self.name.clone(),
            ),
            backlog: Backlog::default(),
            climber: Climber::default(),
            backoff: FullJitter::default(),
            connected_at: 0,
            conn: None,
            sent: 0,
            ignored: false,
            told: None,
            fetching: BTreeSet::new(),
            wall: Wall::default(),
            heard: Vec::new(),
            looks_at: 0,
            runners: Runners::default(),
        });
        let (first, connect) = (self.dice.below(self.window_ms), self.dice.below(20_000));
        outside.timer(self.number, self.boot, first, Timer::Window);
        outside.timer(self.number, self.boot, connect, Timer::Connect);
        self.look(outside, checks);
        self.handle(DeviceEvent::Tick, outside, checks);
    }

    /// The power goes.
    pub fn power_off(&mut self, off_ms: u64, outside: &mut Outside) {
        let Some(live) = self.live.take() else {
            return;
        };
        if let Some(conn) = live.conn {
            outside.kill(self.number, conn);
        }
        self.disk.crash();
        outside.after(off_ms, Happening::Power(self.number));
    }

    /// The power will go in the middle of one of the next writes.
    pub fn cut_in_write(&mut self, steps: u32, off_ms: u64) {
        self.disk.cut_after(steps);
        self.off_ms = off_ms;
    }

    /// An artefact rots.
    pub fn rot(&mut self, place: u64) {
        self.rotten.extend(self.disk.rot(place));
    }

    /// A timer of this device is due.
    pub fn timer(&mut self, boot: u64, timer: Timer, outside: &mut Outside, checks: &mut Checks) {
        if boot != self.boot || self.live.is_none() {
            return;
        }
        match timer {
            Timer::Connect => self.connect(outside),
            Timer::Window => {
                self.window_ends(outside, checks);
                outside.timer(self.number, boot, self.window_ms, Timer::Window);
            }
            Timer::Due => self.due(outside, checks),
            Timer::Fetched(artefact) => self.fetched(artefact, outside, checks),
            Timer::Started(key, ticket) => self.started(&key, ticket, outside, checks),
            Timer::Dies(key, ticket) => self.runner_dies(&key, ticket, outside, checks),
        }
        self.check(outside, checks);
    }

    /// A message arrives.
    pub fn receive(
        &mut self,
        conn: Conn,
        message: Down,
        outside: &mut Outside,
        checks: &mut Checks,
    ) {
        self.message(Some(conn), message, outside, checks);
        self.check(outside, checks);
    }

    /// Somebody puts a message onto its present connection.
    pub fn inject(&mut self, message: Down, outside: &mut Outside, checks: &mut Checks) {
        let conn = self.live.as_ref().and_then(|live| live.conn);
        if conn.is_some() {
            self.message(conn, message, outside, checks);
            self.check(outside, checks);
        }
    }

    /// Whether one of the times that it was told lies in these windows now.
    fn is_open(&self, spans: Option<&Spans>, outside: &Outside) -> bool {
        let heard = self.live.as_ref().map_or(&[][..], |live| &live.heard);
        let mut times = heard
            .iter()
            .map(|(then, time)| Millis(time.0 + (outside.now - then)));
        spans.is_none_or(|spans| times.any(|time| spans.open_until(time).is_some()))
    }

    /// What must hold of a device after every event that it has part in.
    fn check(&mut self, outside: &Outside, checks: &mut Checks) {
        let Some(live) = &self.live else {
            return;
        };
        let (now, state) = (outside.now, live.machine.state());
        checks.hold(now, invariants::device_state(state));
        let survives = invariants::generation_survives(self.told, state.generation);
        checks.hold(now, survives);
        // What is told would be known after a power cut at this moment.
        let survives = invariants::generation_survives(self.told, self.kept);
        checks.hold(now, survives);
        for (model, slot) in &state.models {
            let routed = live.runners.routed(model);
            let version = routed.map(|(key, _)| &key.1);
            let ready = routed.is_some_and(|(_, ready)| ready);
            let starting =
                live.runners.any_of(model) || live.runners.all_failed(slot, &live.machine);
            let (active, previous) = (slot.active.as_ref(), slot.previous.as_ref());
            let serves = invariants::serves_old_or_new(active, previous, version, ready, starting);
            checks.hold(now, serves);
            let needed = live.machine_needs(slot, &self.rotten);
            let has = |digest: &Digest| self.disk.has(*digest);
            let complete = invariants::nothing_live_is_missing(&self.name, &needed, has);
            checks.hold(now, complete);
        }
    }
}
