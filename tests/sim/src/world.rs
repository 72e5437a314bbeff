//! The world: devices, a controller, what lies between them, and what goes wrong.

use crate::check::{Checks, Found, broken};
use crate::controller::{Controller, EPOCH_MS};
use crate::device::Device;
use crate::event::{Down, Happening, Timer};
use crate::fault::FaultKind;
use crate::link::Link;
use crate::outside::{Outside, Weather};
use crate::scenario::{Scenario, Step};
use crate::sign::{Key, PUBLISHER};
use crate::truth::{manifest, model, name};
use sandpiper_core::digest::ArtefactRef;
use sandpiper_core::fleet::{Fleet, Published, Refused};
use sandpiper_core::names::ActorName;
use sandpiper_core::policy::{Deployment, Policy, Selector};
use sandpiper_core::rollout::{DeviceRollout, Rollout, RolloutState, SteerVerb};
use sandpiper_core::signed::Purpose;
use sandpiper_core::telemetry::ModelPhase;
use sandpiper_core::time::Millis;
use std::collections::BTreeMap;

/// Wait of an operator whose controller is down.
const TRY_AGAIN_MS: u64 = 60_000;

/// What came of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The first violation.
    pub found: Option<Found>,
    /// Events that happened.
    pub events: u64,
    /// Checks that were made.
    pub checks: u64,
    /// Hours that all devices lived through.
    pub device_hours: f64,
    /// Faults that began.
    pub faults: u64,
    /// How rollouts ended.
    pub ends: BTreeMap<&'static str, u64>,
    /// Most telemetry windows that one device kept at a time.
    pub windows_most: usize,
    /// Telemetry windows that gave way to newer ones.
    pub windows_lost: u64,
    /// Digest of everything that happened: the same seed gives the same one.
    pub trace: u64,
}

struct World<'a> {
    scenario: &'a Scenario,
    outside: Outside,
    controller: Controller,
    link: Link,
    devices: Vec<Device>,
    /// Copies of cards that are under way, by the fault that made them.
    copies: BTreeMap<usize, usize>,
    checks: Checks,
    events: u64,
    faults: u64,
    trace: u64,
    windows_most: usize,
}

/// What a run has left, for tests of what it came to.
pub struct Ended {
    /// What came of it.
    pub outcome: Outcome,
    /// What the controller knows; nothing when it is down.
    pub fleet: Option<Fleet>,
    /// The devices, copies of cards at the end.
    pub devices: Vec<Device>,
    /// What devices really did, among what checks remember.
    pub checks: Checks,
    /// Controllers that were kept from writing because another one had taken over.
    pub fenced: u64,
}

/// Runs a scenario to its end or to the first violation.
pub fn run(scenario: &Scenario) -> Outcome {
    play(scenario).outcome
}

/// The same, with everything that is left.
pub fn play(scenario: &Scenario) -> Ended {
    let mut world = World::new(scenario);
    while let Some((at, what)) = world.outside.queue.take() {
        if at > scenario.end_at || world.checks.found.is_some() {
            break;
        }
        world.outside.now = at;
        world.events += 1;
        world.trace(at, &what);
        world.happen(what);
    }
    if world.checks.found.is_none() {
        world.outside.now = scenario.end_at;
        world.come_to_rest();
    }
    Ended {
        outcome: Outcome {
            device_hours: scenario.device_hours(),
            events: world.events,
            faults: world.faults,
            trace: world.trace,
            windows_most: world.windows_most,
            windows_lost: world.windows_lost(),
            checks: world.checks.made,
            ends: world.checks.ends.clone(),
            found: world.checks.found.clone(),
        },
        fleet: world.controller.fleet().cloned(),
        fenced: world.controller.fenced,
        devices: world.devices,
        checks: world.checks,
    }
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario) -> Self {
        let devices: Vec<Device> = (0..scenario.devices)
            .map(|number| Device::new(scenario.seed, number, scenario.window_ms))
            .collect();
        let names = devices.iter().map(|d| d.name.clone()).collect();
        let mut world = Self {
            outside: Outside::new(scenario.seed, scenario.devices),
            controller: Controller::new(names),
            link: Link::default(),
            checks: Checks::default(),
            devices,
            copies: BTreeMap::new(),
            scenario,
            events: 0,
            faults: 0,
            trace: 0xcbf2_9ce4_8422_2325,
            windows_most: 0,
        };
        for step in &scenario.steps {
            if let Step::Rollout(version, quality, _) = &step.1 {
                world.checks.truth.add(version.clone(), *quality);
            }
        }
        world.begin();
        world
    }

    fn begin(&mut self) {
        let deployment = Deployment {
            name: name("activity"),
            model: model(),
            selector: Selector::default(),
            policy: Policy::default(),
        };
        let apply = |fleet: &mut Fleet, now| fleet.apply_deployment(now, "anna", deployment);
        let applied = self.job(apply);
        assert!(
            applied.is_some_and(|a| a.is_ok()),
            "the first deployment applies"
        );
        for device in 0..self.scenario.first {
            self.join(device);
        }
        for (index, (at, _)) in self.scenario.steps.iter().enumerate() {
            self.outside.queue.at(*at, Happening::Operator(index));
        }
        for (index, fault) in self.scenario.faults.iter().enumerate() {
            self.outside.queue.at(fault.at, Happening::Fault(index));
            if let Some(ms) = fault.kind.lasts() {
                let end = Happening::FaultEnds(index);
                self.outside.queue.at(fault.at + ms, end);
            }
        }
        self.outside
            .queue
            .at(self.scenario.heal_at, Happening::Heal);
    }

    fn job<T>(&mut self, job: impl FnOnce(&mut Fleet, Millis) -> T) -> Option<T> {
        self.controller
            .job(&mut self.outside, &mut self.checks, job)
    }

    /// A device joins and gets power within ten minutes.
    fn join(&mut self, device: usize) -> bool {
        let (name, labels) = {
            let device = &self.devices[device];
            (device.name.clone(), device.body.labels())
        };
        let joined = self.job(|fleet, now| fleet.enrol(now, &name, labels));
        if joined.is_some() {
            let ms = (device as u64 * 7_919) % 600_000;
            self.outside.after(ms, Happening::Power(device));
        }
        joined.is_some()
    }

    fn windows_lost(&self) -> u64 {
        let windows = self.devices.iter().filter_map(Device::windows);
        windows.map(|(_, lost)| lost).sum()
    }

    fn trace(&mut self, at: u64, what: &Happening) {
        // FNV-1a over times and kinds: cheap, and any difference between two runs shows.
        let kind = std::mem::discriminant(what);
        let text = format!("{at}{kind:?}");
        for byte in text.bytes() {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    fn happen(&mut self, what: Happening) {
        let (outside, checks) = (&mut self.outside, &mut self.checks);
        match what {
            Happening::Fault(index) => self.fault(index, true),
            Happening::FaultEnds(index) => self.fault(index, false),
            Happening::Operator(index) => self.operate(index),
            Happening::Up(device, conn, message) => {
                self.controller.take(device, conn, message, outside, checks);
            }
            Happening::Down(device, conn, message) => {
                self.devices[device].receive(conn, message, outside, checks);
            }
            Happening::DeviceNotices(device, conn) => self.devices[device].notices(conn, outside),
            Happening::ControllerNotices(device, conn) => {
                self.controller.close(device, conn, outside, checks);
            }
            Happening::LinkLooks => self.link.look(outside, checks),
            Happening::Timer(device, boot, timer) => {
                if let Timer::Fetched(artefact) = &timer
                    && !self.has_come(device, boot, *artefact)
                {
                    return;
                }
                let (outside, checks) = (&mut self.outside, &mut self.checks);
                self.devices[device].timer(boot, timer, outside, checks);
                let (kept, _) = self.devices[device].windows().unwrap_or_default();
                self.windows_most = self.windows_most.max(kept);
            }
            Happening::Power(device) => self.devices[device].power_on(outside, checks),
            Happening::ControllerLooks(start) => self.controller.look(start, outside, checks),
            Happening::ControllerStarts => self.controller.start(outside, checks),
            Happening::Heal => self.heal(),
        }
    }

    /// Whether a download that would be over by its own link is over: the controller may send it
    /// more slowly.
    fn has_come(&mut self, number: usize, boot: u64, artefact: ArtefactRef) -> bool {
        let device = &self.devices[number];
        let fleet = self.controller.fleet();
        let (Some(fleet), Some(_)) = (fleet, device.conn()) else {
            return true; // The device finds out by itself that nobody sends.
        };
        if device.disk.has(artefact.digest) {
            return true;
        }
        let (name, budgets) = (device.name.clone(), fleet.budgets(&device.name));
        let (outside, checks) = (&mut self.outside, &mut self.checks);
        self.link
            .has_come((number, boot), &name, artefact, budgets, outside, checks)
    }

    fn fault(&mut self, index: usize, begins: bool) {
        let Some(fault) = self.scenario.faults.get(index) else {
            return;
        };
        self.faults += u64::from(begins);
        let healed = self.outside.now >= self.scenario.heal_at;
        if healed {
            return; // Everything was mended at once.
        }
        let count = |n: &mut u32| {
            *n = match begins {
                true => *n + 1,
                false => n.saturating_sub(1),
            };
        };
        match &fault.kind {
            FaultKind::Partition { devices, .. } => {
                for device in devices {
                    self.outside.cut(*device, begins);
                    self.kill_stream(*device);
                }
            }
            FaultKind::Weather { weather, .. } => {
                self.outside.weather = if begins { *weather } else { Weather::default() };
            }
            FaultKind::ControllerKilled {
                commits,
                before,
                off_ms,
            } => self.controller.kill_at(*commits, *before, *off_ms),
            FaultKind::ControllerClock { jump_ms } => {
                self.controller.jump(*jump_ms, &mut self.outside);
            }
            FaultKind::TakenOver => {
                let (outside, checks) = (&mut self.outside, &mut self.checks);
                self.controller.taken_over(outside, checks);
            }
            FaultKind::Cloned { device, .. } if begins => self.clone_card(index, *device),
            FaultKind::Cloned { .. } => {
                if let Some(copy) = self.copies.remove(&index) {
                    self.devices[copy].wipe(&mut self.outside);
                }
            }
            FaultKind::DiskFull { device, .. } => self.devices[*device].disk.full = begins,
            FaultKind::Damaged { device, .. } => count(&mut self.devices[*device].troubles.damaged),
            FaultKind::Silent { device, .. } => count(&mut self.devices[*device].troubles.silent),
            FaultKind::Idle { device, .. } => count(&mut self.devices[*device].troubles.idle),
            FaultKind::Heat { device, .. } => count(&mut self.devices[*device].troubles.hot),
            FaultKind::Hostile { device, lie, .. } => {
                self.devices[*device].troubles.lie = begins.then_some(*lie);
            }
            other => self.strike(other),
        }
    }

    /// Faults without an end.
    fn strike(&mut self, kind: &FaultKind) {
        let now = self.outside.now;
        match kind {
            FaultKind::PowerCut { device, off_ms } => {
                self.devices[*device].power_off(*off_ms, &mut self.outside);
            }
            FaultKind::CutInWrite {
                device,
                steps,
                off_ms,
            } => self.devices[*device].cut_in_write(*steps, *off_ms),
            FaultKind::DeadStream { device } => self.kill_stream(*device),
            FaultKind::DeviceClock { device, jump_ms } => {
                self.devices[*device].jump(*jump_ms, now);
            }
            FaultKind::SyncFails { device } => self.devices[*device].disk.sync_fails = true,
            FaultKind::Rot { device, place } => self.devices[*device].rot(*place),
            FaultKind::Battery { device, percent } => {
                self.devices[*device].body.discharge(*percent);
            }
            FaultKind::Replay { device, back } => {
                let sent = self.controller.sent.get(device);
                let old = sent.and_then(|s| s.iter().rev().nth(*back as usize).cloned());
                self.inject(*device, old);
            }
            FaultKind::Foreign { device, from } => {
                let sent = self.controller.sent.get(from);
                let other = sent.and_then(|s| s.last().cloned());
                self.inject(*device, other);
            }
            FaultKind::Forged { device } => {
                let sent = self.controller.sent.get(device);
                let mut forged = sent.and_then(|s| s.last().cloned());
                if let Some(bundle) = &mut forged {
                    let payload = String::from_utf8_lossy(&bundle.assignment.payload);
                    let payload = payload.replace("\"generation\":", "\"generation\":9");
                    bundle.assignment =
                        Key::of_a_stranger().sign(Purpose::Assignment, payload.into_bytes());
                }
                self.inject(*device, forged);
            }
            FaultKind::Partition { .. }
            | FaultKind::Weather { .. }
            | FaultKind::ControllerKilled { .. }
            | FaultKind::ControllerClock { .. }
            | FaultKind::TakenOver
            | FaultKind::Cloned { .. }
            | FaultKind::DiskFull { .. }
            | FaultKind::Damaged { .. }
            | FaultKind::Silent { .. }
            | FaultKind::Idle { .. }
            | FaultKind::Heat { .. }
            | FaultKind::Hostile { .. } => {}
        }
    }

    /// A copy of a card gets power in another device.
    fn clone_card(&mut self, fault: usize, device: usize) {
        let number = self.devices.len();
        let copy = self.devices[device].copy(self.scenario.seed, number);
        self.checks.cloned.insert(copy.name.clone());
        self.controller.knows_clone(device);
        self.outside.joins();
        self.devices.push(copy);
        self.copies.insert(fault, number);
        self.outside.after(1_000, Happening::Power(number));
    }

    fn inject(
        &mut self,
        device: usize,
        bundle: Option<sandpiper_core::assignment::AssignmentBundle>,
    ) {
        if let Some(bundle) = bundle {
            let message = Down::Assignment(Box::new(bundle));
            self.devices[device].inject(message, &mut self.outside, &mut self.checks);
        }
    }

    fn kill_stream(&mut self, device: usize) {
        if let Some(conn) = self.devices[device].conn() {
            self.outside.kill(device, conn);
        }
    }

    fn operate(&mut self, index: usize) {
        let Some((_, step)) = self.scenario.steps.get(index) else {
            return;
        };
        let done = match step.clone() {
            Step::Rollout(version, _, spec) => {
                let manifest = manifest(&version, Millis(EPOCH_MS));
                let payload = serde_json::to_vec(&manifest).unwrap_or_default();
                let signed = PUBLISHER.sign(Purpose::Version, payload);
                let published = Published { signed, manifest };
                let actor: ActorName = name("anna");
                let job = |fleet: &mut Fleet, now| {
                    fleet.publish(now, "anna", published)?;
                    fleet.start_rollout(now, &actor, *spec)
                };
                self.job(job).map(|result| result.err())
            }
            Step::Steer(verb) => {
                let job = |fleet: &mut Fleet, now| steer(fleet, now, verb);
                self.job(job).map(|result| result.err())
            }
            Step::Revoke(device) => {
                let name = self.devices[device].name.clone();
                let job = |fleet: &mut Fleet, now| fleet.revoke_device(now, "anna", &name);
                self.job(job).map(|result| result.err())
            }
            Step::Release => {
                let job = |fleet: &mut Fleet, now| release_all(fleet, now);
                self.job(job).map(|result| result.err())
            }
            Step::Join(device) => self.join(device).then_some(None),
        };
        match done {
            None => self.outside.after(TRY_AGAIN_MS, Happening::Operator(index)),
            // What does not fit the moment is refused; what is refused for another reason is
            // a mistake of the scenario or of the fleet.
            Some(
                None | Some(Refused::Conflict(_) | Refused::Plan(_) | Refused::NotFound { .. }),
            ) => {}
            Some(Some(refused)) => {
                let found = Err(broken("operators-are-served", refused.to_string()));
                self.checks.hold(self.outside.now, found);
            }
        }
    }

    fn heal(&mut self) {
        self.outside.heal();
        for copy in std::mem::take(&mut self.copies).into_values() {
            self.devices[copy].wipe(&mut self.outside);
        }
        let outside = &mut self.outside;
        self.controller.mend(outside);
        for device in &mut self.devices {
            device.troubles = Default::default();
            device.disk.heal();
            device.mend_clock();
        }
    }

    /// After a long calm everything is at rest, and everybody agrees.
    fn come_to_rest(&mut self) {
        let now = self.outside.now;
        let Some(fleet) = self.controller.fleet() else {
            let what = "the controller is down".to_owned();
            return self
                .checks
                .hold(now, Err(broken("everything-comes-to-rest", what)));
        };
        let clock = self.controller.clock(now);
        for (name, rollout) in fleet.rollouts() {
            let rests = rollout.state.is_final()
                || matches!(
                    rollout.state,
                    RolloutState::Paused { .. } | RolloutState::AwaitingApproval { .. }
                );
            // Windows of days to come are waited for, up to an end.
            let ends = rollout.next_deadline().is_some_and(|(at, _)| at > clock);
            let rests = rests || (rollout.plan.spec.windows.is_some() && ends);
            let result = match rests {
                true => Ok(()),
                false => Err(broken(
                    "a-rollout-ends-or-pauses",
                    format!("{name} is {}", rollout.state.word()),
                )),
            };
            self.checks.hold(now, result);
        }
        for device in self.devices.iter().filter(|d| !d.is_wiped()) {
            let Some(record) = fleet.devices().get(&device.name) else {
                continue;
            };
            if record.revoked_by.is_some() || record.quarantined.is_some() {
                continue;
            }
            let Some(machine) = device.machine() else {
                let what = format!("{} is off", device.name);
                self.checks
                    .hold(now, Err(broken("everything-comes-to-rest", what)));
                continue;
            };
            let has = machine.state().generation;
            let agrees = has == record.generation;
            // The newest windows may be on their way.
            let idle = device.windows().is_none_or(|(open, _)| open <= 4);
            let statuses = machine.statuses();
            // A rollout that waits for windows may be moving the device at this very moment.
            let moves = |r: &Rollout| {
                let waits = r.plan.spec.windows.is_some() && !r.state.is_final();
                let state = r.devices.get(&device.name);
                waits && state.is_some_and(DeviceRollout::is_in_flight)
            };
            let moving = fleet.rollouts().values().any(moves);
            let settled = moving
                || statuses.iter().all(|s| {
                    let serving = s.serving.as_ref().map(|s| &s.version);
                    let starting = device.runs_any_of(&s.model);
                    let waits = matches!(
                        s.phase,
                        ModelPhase::AwaitingDownload | ModelPhase::AwaitingSwitch
                    );
                    serving == Some(&s.wanted) || s.failure.is_some() || starting || waits
                });
            let result = match agrees && settled && idle {
                true => Ok(()),
                false => {
                    let what = format!(
                        "{} has generation {} of {}, {:?} windows, {statuses:?}",
                        device.name,
                        has.0,
                        record.generation.0,
                        device.windows()
                    );
                    Err(broken("everybody-agrees", what))
                }
            };
            self.checks.hold(now, result);
        }
    }
}

/// Every card that was copied has been wiped: whoever is in quarantine is let out.
fn release_all(fleet: &mut Fleet, now: Millis) -> Result<(), Refused> {
    let held = fleet.devices().values().filter(|d| d.quarantined.is_some());
    let held: Vec<_> = held.map(|d| d.name.clone()).collect();
    let mut held = held.iter();
    held.try_for_each(|name| fleet.release_device(now, "anna", name))
}

fn steer(fleet: &mut Fleet, now: Millis, verb: SteerVerb) -> Result<(), Refused> {
    let all = fleet.rollouts().values();
    let newest = all.max_by_key(|r| (r.created_at, r.plan.name.clone()));
    let newest = newest.map(|r| r.plan.name.clone());
    match newest {
        Some(rollout) => fleet.steer_rollout(now, &name::<ActorName>("bert"), &rollout, verb),
        None => Ok(()),
    }
}
