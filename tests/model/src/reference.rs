//! A rollout as one would explain it: lists that are walked over anew at every step, no counts kept
//! along, no store, no effects. What the core does must come to the same.
//!
//! Devices, versions and rollouts are numbers. Times are seconds. Planning is small because all
//! devices are alike: whoever has not failed the version moves, in the order of the numbers.

use std::collections::{BTreeMap, BTreeSet};

/// Seconds that a wave may take.
pub const DEADLINE_S: u64 = 100;
/// Seconds that a device must have served.
pub const BAKE_S: u64 = 10;
/// Groups that the disruption budget looks at: a device is of the group `number % GROUPS`.
pub const GROUPS: usize = 2;

/// What an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// Devices of the waves before the last one.
    pub waves: Vec<u32>,
    /// Failures of a wave that are tolerated.
    pub tolerated: usize,
    /// Inferences that make a success.
    pub least: u64,
    /// Most devices in flight.
    pub in_flight: Option<usize>,
    /// Most devices of one group in flight.
    pub of_group: Option<usize>,
}

/// Where a device stands in a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Its wave has not come.
    Waiting,
    /// Told to move.
    Assigned,
    /// Seen serving since then, with so many inferences.
    Serving(u64, u64),
    /// Done.
    Succeeded,
    /// It said that it cannot.
    Failed,
    /// Told to go back.
    GoingBack,
    /// Seen back.
    Back,
}

/// Where a rollout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// This wave moves since then.
    Running(usize, u64),
    /// Held in this wave, after so many seconds of it.
    Paused(usize, u64),
    /// Over, well.
    Promoted,
    /// Going back since then.
    RollingBack(u64),
    /// Over, back.
    RolledBack,
    /// A newer one took over.
    Superseded,
}

impl Phase {
    /// Whether nothing changes any more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Promoted | Self::RolledBack | Self::Superseded)
    }
}

/// A rollout.
#[derive(Debug, Clone)]
pub struct Rollout {
    /// What was asked for.
    pub spec: Spec,
    /// To this version.
    pub version: u32,
    /// From this one.
    pub previous: Option<u32>,
    /// Devices by wave.
    pub waves: Vec<Vec<usize>>,
    /// Where they stand.
    pub places: BTreeMap<usize, Place>,
    /// Where it stands.
    pub phase: Phase,
    /// The first of the waves that follow at once.
    pub merged: Option<usize>,
}

/// What a device says of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// The version that it was assigned.
    pub wanted: u32,
    /// What it serves, if anything.
    pub serves: Option<u32>,
    /// The assigned version does not work.
    pub failed: bool,
    /// Its code is the one that was published.
    pub genuine: bool,
}

/// What is known of a device.
#[derive(Debug, Clone, Default)]
pub struct Device {
    /// Generation of its assignment.
    pub generation: u64,
    /// The assigned version.
    pub assigned: Option<u32>,
    /// The one before.
    pub before: Option<u32>,
    /// Generation that brought the assigned version.
    pub since: u64,
    /// Inferences since then.
    pub served: u64,
    /// Versions that failed on it.
    pub failed: BTreeSet<u32>,
    /// What it said last: its generation, and the state of the model.
    pub said: (u64, Option<Status>),
}

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A new version is rolled out.
    Start(Spec),
    /// An operator steers a rollout.
    Steer(usize, Verb),
    /// A device says how it is.
    Report(usize, u64, Option<Status>),
    /// A device sends a new window: version, generation, inferences.
    Window(usize, u32, u64, u64),
    /// A device sends its last window again.
    Again(usize),
    /// Nobody says anything for so many seconds.
    Silence(u64),
    /// The controller is killed and started; every device comes back.
    Restart,
}

/// What operators do with a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Hold it.
    Pause,
    /// Go on.
    Resume,
    /// Do not ask gates of this wave; there are none here.
    Promote,
    /// Let all waves follow at once.
    PromoteAll,
    /// Take it back.
    Abort,
    /// Once more.
    Retry,
    /// Back to the version before it.
    Undo,
}

/// The whole fleet.
#[derive(Debug, Clone)]
pub struct Fleet {
    /// Devices by number.
    pub devices: Vec<Device>,
    /// Rollouts, oldest first.
    pub rollouts: Vec<Rollout>,
    /// Versions published so far.
    pub versions: u32,
    /// The version that the deployment stands at.
    pub stands_at: Option<u32>,
    /// Now, in seconds.
    pub now: u64,
}

impl Fleet {
    /// So many devices that run nothing.
    pub fn new(devices: usize) -> Self {
        Self {
            devices: vec![Device::default(); devices],
            rollouts: Vec::new(),
            versions: 0,
            stands_at: None,
            now: 0,
        }
    }

    /// Something happens.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Start(spec) => {
                self.versions += 1;
                self.start(self.versions, spec.clone());
            }
            Event::Steer(rollout, verb) => self.steer(*rollout, *verb),
            Event::Report(device, generation, status) => {
                self.devices[*device].said = (*generation, *status);
                if let Some(status) = status.filter(|s| s.failed) {
                    self.devices[*device].failed.insert(status.wanted);
                }
                self.hear(*device);
            }
            Event::Window(number, version, generation, inferences) => {
                let device = &mut self.devices[*number];
                if device.assigned == Some(*version) && *generation >= device.since {
                    device.served += inferences;
                }
                self.hear(*number);
            }
            Event::Again(_) => {}
            Event::Silence(seconds) => {
                self.now += seconds;
                self.evaluate_all();
            }
            Event::Restart => {
                for device in 0..self.devices.len() {
                    self.hear(device);
                    self.converge(device);
                }
            }
        }
    }

    fn start(&mut self, version: u32, spec: Spec) {
        let fits = |d: &usize| !self.devices[*d].failed.contains(&version);
        let mut rest: Vec<usize> = (0..self.devices.len()).filter(fits).collect();
        if rest.is_empty() {
            return; // Refused.
        }
        let places = rest.iter().map(|d| (*d, Place::Waiting)).collect();
        let mut waves = Vec::new();
        for size in &spec.waves {
            let size = (*size as usize).min(rest.len());
            waves.push(rest.drain(..size).collect());
        }
        waves.push(rest);
        waves.retain(|wave: &Vec<usize>| !wave.is_empty());
        for old in &mut self.rollouts {
            if !old.phase.is_final() {
                old.phase = Phase::Superseded;
            }
        }
        self.rollouts.push(Rollout {
            spec,
            version,
            previous: self.stands_at,
            waves,
            places,
            phase: Phase::Running(0, self.now),
            merged: None,
        });
        let newest = self.rollouts.len() - 1;
        self.fill(newest, 0);
        self.evaluate(newest);
    }

    fn steer(&mut self, number: usize, verb: Verb) {
        let now = self.now;
        let Some(rollout) = self.rollouts.get_mut(number) else {
            return;
        };
        match (verb, rollout.phase) {
            (Verb::Pause, Phase::Running(wave, since)) => {
                rollout.phase = Phase::Paused(wave, now - since);
            }
            (Verb::Resume | Verb::Promote, Phase::Paused(wave, ran)) => {
                rollout.phase = Phase::Running(wave, now - ran);
            }
            (Verb::PromoteAll, Phase::Paused(wave, ran)) if rollout.merged.is_some() => {
                rollout.phase = Phase::Running(wave, now - ran);
            }
            (Verb::PromoteAll, Phase::Paused(wave, _) | Phase::Running(wave, _))
                if rollout.merged.is_none() =>
            {
                rollout.merged = Some(wave);
                rollout.phase = Phase::Running(rollout.waves.len() - 1, now);
            }
            (Verb::Abort, Phase::Paused(..) | Phase::Running(..)) => self.roll_back(number),
            (Verb::Retry, Phase::RolledBack | Phase::Superseded) => {
                let (version, spec) = (rollout.version, rollout.spec.clone());
                self.start(version, spec);
            }
            (Verb::Undo, Phase::Promoted) => {
                let (version, spec) = (rollout.version, rollout.spec.clone());
                if let Some(previous) = rollout.previous.filter(|p| *p != version) {
                    self.start(previous, spec);
                }
            }
            _ => return, // Refused.
        }
        self.evaluate(number);
    }

    /// What a device said last counts for the rollouts that are open, if it said it of its present
    /// assignment and serves what was published.
    fn hear(&mut self, device: usize) {
        let known = &self.devices[device];
        let (generation, status) = known.said;
        if generation != known.generation || status.is_some_and(|s| !s.genuine) {
            return;
        }
        for number in 0..self.rollouts.len() {
            let rollout = &self.rollouts[number];
            if !rollout.phase.is_final() && rollout.places.contains_key(&device) {
                self.place(number, device, status);
                self.evaluate(number);
            }
        }
    }

    fn place(&mut self, number: usize, device: usize, status: Option<Status>) {
        let (now, served) = (self.now, self.devices[device].served);
        let rollout = &mut self.rollouts[number];
        let (version, previous) = (rollout.version, rollout.previous);
        let ours = status.filter(|s| s.wanted == version);
        let fails = ours.is_some_and(|s| s.failed);
        let serves = ours.is_some_and(|s| !s.failed && s.serves == Some(version));
        let is_back = match (previous, status) {
            (None, status) => status.is_none_or(|s| s.serves != Some(version)),
            (Some(previous), status) => {
                status.is_some_and(|s| s.wanted == previous && s.serves == Some(previous))
            }
        };
        let Some(place) = rollout.places.get_mut(&device) else {
            return;
        };
        *place = match *place {
            Place::Assigned | Place::Serving(..) | Place::Succeeded if fails => Place::Failed,
            Place::Assigned if serves => Place::Serving(now, served),
            Place::Serving(since, before) if serves => Place::Serving(since, before.max(served)),
            Place::Serving(..) if status.is_some() => Place::Assigned,
            Place::GoingBack if is_back => Place::Back,
            same => same,
        };
    }

    fn evaluate_all(&mut self) {
        for number in 0..self.rollouts.len() {
            self.evaluate(number);
        }
    }

    /// Draws the conclusions of one moment: who has baked, who may move, how the wave does.
    fn evaluate(&mut self, number: usize) {
        if let Phase::Running(wave, since) = self.rollouts[number].phase {
            self.bake(number);
            self.fill(number, wave);
            self.judge(number, wave, since);
        }
        let rollout = &mut self.rollouts[number];
        if let Phase::RollingBack(since) = rollout.phase {
            let mut places = rollout.places.values();
            let open = places.any(|place| *place == Place::GoingBack);
            if !open || self.now - since >= DEADLINE_S {
                rollout.phase = Phase::RolledBack;
            }
        }
    }

    fn bake(&mut self, number: usize) {
        let (now, rollout) = (self.now, &mut self.rollouts[number]);
        for place in rollout.places.values_mut() {
            if let Place::Serving(since, served) = *place
                && now - since >= BAKE_S
                && served >= rollout.spec.least
            {
                *place = Place::Succeeded;
            }
        }
    }

    /// Waves that move as one with this one.
    fn together(rollout: &Rollout, wave: usize) -> (usize, usize) {
        (rollout.merged.unwrap_or(wave).min(wave), wave)
    }

    fn fill(&mut self, number: usize, wave: usize) {
        let rollout = &self.rollouts[number];
        let (first, last) = Self::together(rollout, wave);
        let (version, spec) = (rollout.version, rollout.spec.clone());
        let members: Vec<usize> = rollout.waves[first..=last].concat();
        for device in members {
            let places = &self.rollouts[number].places;
            let flies = |d: usize| places[&d] == Place::Assigned;
            let all = places.keys().filter(|d| flies(**d)).count();
            let same = |d: &&usize| flies(**d) && **d % GROUPS == device % GROUPS;
            let group = places.keys().filter(same).count();
            let room = all < spec.in_flight.unwrap_or(usize::MAX)
                && group < spec.of_group.unwrap_or(usize::MAX);
            if room && places[&device] == Place::Waiting {
                self.rollouts[number].places.insert(device, Place::Assigned);
                self.assign(device, version);
            }
        }
    }

    fn judge(&mut self, number: usize, wave: usize, since: u64) {
        let rollout = &self.rollouts[number];
        let count = |waves: &[Vec<usize>], is: fn(&Place) -> bool| {
            let members = waves.iter().flatten();
            members.filter(|d| is(&rollout.places[*d])).count()
        };
        let failed = |place: &Place| *place == Place::Failed;
        let open =
            |place: &Place| matches!(place, Place::Waiting | Place::Assigned | Place::Serving(..));
        let tolerated = rollout.spec.tolerated;
        let (first, last) = Self::together(rollout, wave);
        let mut earlier = rollout.waves[..first].chunks(1);
        let relapsed = earlier.any(|w| count(w, failed) + count(w, open) > tolerated);
        let now = &rollout.waves[first..=last];
        let late = self.now - since >= DEADLINE_S * (last - first + 1) as u64;
        let unfinished = count(now, open);
        // Whoever is silent until the deadline has failed.
        let lost = count(now, failed) + if late { unfinished } else { 0 };
        if relapsed || lost > tolerated {
            return self.roll_back(number);
        }
        if unfinished > 0 && !late {
            return;
        }
        if wave + 1 < rollout.waves.len() {
            self.rollouts[number].phase = Phase::Running(wave + 1, self.now);
            return self.fill(number, wave + 1);
        }
        let mut places = rollout.places.values();
        match places.any(|place| *place == Place::Succeeded) {
            true => {
                self.stands_at = Some(rollout.version);
                self.rollouts[number].phase = Phase::Promoted;
            }
            false => self.roll_back(number),
        }
    }

    fn roll_back(&mut self, number: usize) {
        self.rollouts[number].phase = Phase::RollingBack(self.now);
        let previous = self.rollouts[number].previous;
        for device in self.rollouts[number].waves.concat() {
            if self.rollouts[number].places[&device] != Place::Waiting {
                self.rollouts[number]
                    .places
                    .insert(device, Place::GoingBack);
                self.assign_previous(device, previous);
            }
        }
    }

    fn assign(&mut self, device: usize, version: u32) {
        let device = &mut self.devices[device];
        device.before = device.assigned.replace(version);
        device.generation += 1;
        (device.since, device.served) = (device.generation, 0);
    }

    fn assign_previous(&mut self, device: usize, version: Option<u32>) {
        let device = &mut self.devices[device];
        let held = |v: &u32| device.before == Some(*v) || !device.failed.contains(v);
        device.assigned = version.filter(held);
        device.before = None;
        device.generation += 1;
        (device.since, device.served) = (device.generation, 0);
    }

    /// A device that comes back with nothing gets what the deployment stands at.
    fn converge(&mut self, device: usize) {
        let Some(version) = self.stands_at else {
            return;
        };
        let mut open = self.rollouts.iter().filter(|r| !r.phase.is_final());
        let planned = open.any(|r| r.places.contains_key(&device));
        let known = &self.devices[device];
        if !planned && known.assigned.is_none() && !known.failed.contains(&version) {
            self.assign(device, version);
        }
    }
}
