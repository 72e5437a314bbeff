//! A state of the whole, and what tells it from others.

use super::device::Device;
use super::{Action, Bounds, CONTROLLERS, DEADLINE_S, DEVICES, NEW, OLD, Protocol};
use crate::fixtures::{deployment, device, hello, name, published, spec};
use sandpiper_core::assignment::{Assignment, Generation};
use sandpiper_core::digest::Digest;
use sandpiper_core::fleet::{DeviceRecord, Fleet, StreamId};
use sandpiper_core::invariants::Violation;
use sandpiper_core::manifest::VersionManifest;
use sandpiper_core::names::{ActorName, DeviceName, RolloutName};
use sandpiper_core::policy::Labels;
use sandpiper_core::rollout::RolloutState;
use sandpiper_core::telemetry::{Observation, TelemetryWindow};
use sandpiper_core::time::Millis;
use sandpiper_sim::store::Store;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// Reports of one stream that are under way at most: one may be overtaken by the next one, those
/// before are lost or were heard.
const REPORTS: usize = 2;
/// The wall clock at the beginning.
const BEGIN_MS: u64 = 1_700_000_000_000;

/// A message on its way to a controller.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Up {
    Report(Box<Observation>),
    Window(Box<TelemetryWindow>),
}

/// A message with what tells it from others.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) what: Up,
    digest: Digest,
}

/// What a controller knows, with what tells it from others.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) fleet: Fleet,
    digest: Digest,
}

impl Known {
    pub(super) fn new(fleet: Fleet) -> Arc<Self> {
        let digest = digest(&view(&fleet));
        Arc::new(Self { fleet, digest })
    }
}

/// An assignment that was signed.
#[derive(Debug, Clone)]
pub(super) struct Signed {
    pub(super) assignment: Assignment,
    pub(super) manifests: Vec<VersionManifest>,
    pub(super) digest: Digest,
    /// A controller has sent it: from then on it may arrive anywhere at any time.
    pub(super) sent: bool,
}

/// The state of everything.
#[derive(Debug, Clone)]
pub struct World {
    pub(super) store: Arc<Store>,
    pub(super) controllers: [Option<Arc<Known>>; CONTROLLERS],
    pub(super) devices: [Device; DEVICES],
    /// By number of the device, as it was sent.
    pub(super) under_way: [Vec<Arc<Message>>; DEVICES],
    pub(super) signed: BTreeMap<(usize, Generation), Arc<Signed>>,
    pub(super) deadlines: u8,
    pub(super) left: Bounds,
    pub(super) truth: Truth,
    /// Where the newest rollout stands, as far as anybody has committed it.
    pub(super) newest: Option<RolloutState>,
    /// The first violation.
    pub violation: Option<Violation>,
    /// What the last step was about.
    pub(super) happened: Happened,
    /// Digests of what the store holds, but of events and times.
    pub(super) rows: Arc<BTreeMap<Vec<u8>, Digest>>,
    /// That of all of them.
    pub(super) rows_digest: Digest,
    key: Digest,
}

impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

/// What a step was about, for what must be possible at all.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Happened {
    /// A controller was kept from writing because another one had taken over.
    pub(super) fenced: bool,
    /// A device has refused an assignment because of its generation.
    pub(super) refused: bool,
}

/// What really happened, whatever anybody reports.
#[derive(Debug, Clone, Default)]
pub(super) struct Truth {
    /// What was committed last of each device.
    pub(super) committed: BTreeMap<DeviceName, Assignment>,
    /// Device, version and generation of every inference.
    pub(super) served: BTreeSet<(usize, u32, Generation)>,
    /// Generation of each device when the rollout that runs assigned it.
    pub(super) assigned_at: BTreeMap<(RolloutName, DeviceName), Generation>,
}

impl World {
    /// Every device serves the old version, everybody is connected to the first controller, and
    /// the rollout of the new version has begun: one device, then the others.
    pub(super) fn new(protocol: &Protocol) -> Self {
        let mut store = Store::default();
        let fleet = store.take_over().expect("an empty store can be read");
        let mut world = Self {
            store: Arc::new(store),
            controllers: [Some(Known::new(fleet)), None],
            devices: std::array::from_fn(Device::new),
            under_way: std::array::from_fn(|_| Vec::new()),
            signed: BTreeMap::new(),
            deadlines: 0,
            left: protocol.bounds,
            truth: Truth::default(),
            newest: None,
            happened: Happened::default(),
            violation: None,
            rows: Arc::default(),
            rows_digest: Digest::of(b""),
            key: Digest::of(b""),
        };
        world.job(0, false, |fleet, now| {
            let begun = fleet.apply_deployment(now, "anna", deployment());
            begun.expect("the deployment applies");
            for number in 0..DEVICES {
                let joined = fleet.enrol(now, &device(number), Labels::new());
                joined.expect("the device joins");
            }
        });
        for number in 0..DEVICES {
            world.connect(number, 0);
        }
        world.roll_out(OLD, json!({}));
        world.at_peace(protocol);
        assert!(
            world.newest == Some(RolloutState::Promoted) || world.violation.is_some(),
            "the old version is everywhere: {:?}",
            world.violation
        );
        world.roll_out(NEW, json!({"waves": [{"count": 1}]}));
        world.settle();
        world
    }

    fn roll_out(&mut self, version: u32, mut fields: serde_json::Value) {
        fields["wave_deadline_s"] = json!(DEADLINE_S);
        self.job(0, false, |fleet, now| {
            let publishes = fleet.publish(now, "anna", published(version));
            publishes.expect("the version is new");
            let actor = name::<ActorName>("anna");
            let starts = fleet.start_rollout(now, &actor, spec(version, fields.clone()));
            starts.expect("the rollout starts");
        });
    }

    /// Delivers everything until nothing is new.
    fn at_peace(&mut self, protocol: &Protocol) {
        loop {
            let before = self.digest();
            let sent: Vec<_> = self.signed.keys().copied().collect();
            for (number, generation) in sent {
                self.step(protocol, Action::Receives(number, number, generation.0));
            }
            for number in 0..DEVICES {
                for message in 0..self.under_way[number].len() {
                    self.step(protocol, Action::Hears(number, message));
                }
            }
            if self.digest() == before {
                return;
            }
        }
    }

    pub(super) fn now(&self) -> Millis {
        Millis(BEGIN_MS + u64::from(self.deadlines) * DEADLINE_S * 1_000)
    }

    /// The controller that a device is connected to, with its stream, if both ends think so.
    pub(super) fn stream(&self, number: usize) -> Option<(usize, StreamId)> {
        let (controller, stream) = self.devices[number].stream?;
        let fleet = &self.controllers[controller].as_ref()?.fleet;
        (fleet.stream(&device(number)) == Some(stream)).then_some((controller, stream))
    }

    /// A device opens a stream: the one before is over, and so is what was said on it.
    pub(super) fn connect(&mut self, number: usize, controller: usize) {
        let observation = self.devices[number].observation();
        self.devices[number].tells(observation.generation);
        self.under_way[number].clear();
        self.devices[number].stream = None;
        let mut stream = None;
        self.job(controller, false, |fleet, now| {
            let hello = hello(1, observation.clone());
            stream = fleet.attach(now, &device(number), hello, false).ok();
        });
        if self.controllers[controller].is_some() {
            self.devices[number].stream = stream.map(|stream| (controller, stream));
            self.push(controller);
            let windows = self.devices[number].windows.clone();
            for window in windows {
                self.says(number, Up::Window(Box::new(window)));
            }
        }
    }

    /// A device says something on its stream.
    pub(super) fn says(&mut self, number: usize, message: Up) {
        let digest = match &message {
            Up::Report(said) => digest(&(said.generation, &said.models)),
            Up::Window(window) => digest(&window),
        };
        let known = self.under_way[number].iter().any(|m| m.digest == digest);
        if self.devices[number].stream.is_some() && !known {
            let what = message;
            self.under_way[number].push(Arc::new(Message { what, digest }));
            let is_report = |m: &Arc<Message>| matches!(m.what, Up::Report(_));
            let reports = self.under_way[number].iter().filter(|m| is_report(m));
            if reports.count() > REPORTS
                && let Some(oldest) = self.under_way[number].iter().position(is_report)
            {
                self.under_way[number].remove(oldest);
            }
        }
    }

    /// What could happen now.
    pub(super) fn possible(&self, actions: &mut Vec<Action>) {
        let left = &self.left;
        let runs = |c: &usize| self.controllers[*c].is_some();
        for controller in 0..CONTROLLERS {
            if !runs(&controller) {
                if left.starts > 0 {
                    actions.push(Action::Starts(controller));
                }
                continue;
            }
            if left.kills > 0 {
                actions.push(Action::Killed(controller));
                actions.push(Action::LooksAndDies(controller));
            }
            if left.aborts > 0 {
                actions.push(Action::Aborts(controller));
            }
            actions.push(Action::Looks(controller));
            for number in 0..DEVICES {
                // One that is connected opens another stream only as often as it may.
                let lost = self.stream(number).is_none();
                if lost || left.streams > 0 {
                    actions.push(Action::Connects(number, controller));
                }
            }
        }
        for number in 0..DEVICES {
            for message in 0..self.under_way[number].len() {
                actions.push(Action::Hears(number, message));
                if left.kills > 0 {
                    actions.push(Action::HearsAndDies(number, message));
                }
            }
            for ((whose, generation), signed) in &self.signed {
                if !signed.sent {
                    continue;
                }
                actions.push(Action::Receives(number, *whose, generation.0));
                if left.cuts > 0 && *whose == number {
                    for late in [false, true] {
                        let cut = Action::ReceivesAndIsCut(number, *whose, generation.0, late);
                        actions.push(cut);
                    }
                }
            }
            if left.cuts > 0 {
                actions.push(Action::Cut(number));
            }
        }
        if left.deadlines > 0 {
            actions.push(Action::Deadline);
        }
    }

    /// Something happens.
    pub(super) fn step(&mut self, protocol: &Protocol, action: Action) {
        match action {
            Action::Starts(controller) => {
                self.left.starts -= 1;
                self.start(controller);
            }
            Action::Killed(controller) => {
                self.left.kills -= 1;
                self.kill(controller);
            }
            Action::Connects(number, controller) => {
                if self.stream(number).is_some() {
                    self.left.streams -= 1;
                }
                self.connect(number, controller);
            }
            Action::Hears(number, message) => self.hear(number, message, false),
            Action::HearsAndDies(number, message) => {
                self.left.kills -= 1;
                self.hear(number, message, true);
            }
            Action::Receives(number, whose, generation) => {
                self.receive(protocol, number, (whose, Generation(generation)), None);
            }
            Action::ReceivesAndIsCut(number, whose, generation, late) => {
                self.left.cuts -= 1;
                let cut = Some(usize::from(late));
                self.receive(protocol, number, (whose, Generation(generation)), cut);
            }
            Action::Cut(number) => {
                self.left.cuts -= 1;
                self.cut(protocol, number);
            }
            Action::Deadline => {
                self.left.deadlines -= 1;
                self.deadlines += 1;
            }
            Action::Looks(controller) => self.look(controller, false),
            Action::LooksAndDies(controller) => {
                self.left.kills -= 1;
                self.look(controller, true);
            }
            Action::Aborts(controller) => {
                self.left.aborts -= 1;
                self.abort(controller);
            }
        }
    }

    /// What tells this state from others.
    pub(super) fn key(&self) -> &Digest {
        &self.key
    }

    /// Forgets what nobody will hear any more, and works out what tells the state from others.
    pub(super) fn settle(&mut self) {
        for number in 0..DEVICES {
            if self.stream(number).is_none() {
                self.under_way[number].clear();
            }
        }
        self.key = self.digest();
    }

    fn digest(&self) -> Digest {
        let mut bytes = Vec::with_capacity(2048);
        let mut feed = |digest: &Digest| bytes.extend_from_slice(digest.as_bytes());
        feed(&self.rows_digest);
        let nothing = Digest::of(b"");
        for known in &self.controllers {
            feed(known.as_ref().map_or(&nothing, |known| &known.digest));
        }
        for number in 0..DEVICES {
            let mut messages: Vec<_> = self.under_way[number].iter().map(|m| m.digest).collect();
            messages.sort_unstable();
            messages.iter().for_each(&mut feed);
            feed(self.devices[number].digest());
        }
        for signed in self.signed.values() {
            feed(&signed.digest);
        }
        let streams = (0..DEVICES).map(|number| self.stream(number));
        let left = &self.left;
        let rest = (
            streams.map(|s| s.map(|(c, _)| c)).collect::<Vec<_>>(),
            self.signed.values().map(|s| s.sent).collect::<Vec<_>>(),
            self.under_way.each_ref().map(Vec::len),
            (left.starts, left.kills, left.cuts),
            (left.deadlines, left.aborts, left.streams),
            self.violation.is_some(),
        );
        feed(&digest(&rest));
        Digest::of(&bytes)
    }
}

/// What tells a value from others.
pub(super) fn digest(value: &impl serde::Serialize) -> Digest {
    let bytes = serde_json::to_vec(value).expect("writing to memory cannot fail");
    Digest::of(&bytes)
}

/// What of a device's record decides what comes; not when it last spoke, nor how it moved.
pub(super) fn record_view(record: &DeviceRecord) -> impl serde::Serialize + use<'_> {
    let seen = record.observation.as_ref();
    (
        (record.generation, &record.models, &record.previous),
        (&record.since, &record.served, &record.failed),
        (
            seen.map(|o| (o.generation, &o.models)),
            &record.acknowledged,
        ),
    )
}

/// What a controller knows.
fn view(fleet: &Fleet) -> impl serde::Serialize + use<'_> {
    let devices: Vec<_> = fleet.devices().values().map(record_view).collect();
    let rollouts = fleet.rollouts().values();
    let rollouts: Vec<_> = rollouts
        .map(|r| {
            (
                &r.state,
                r.merged_from,
                r.devices.iter().collect::<Vec<_>>(),
            )
        })
        .collect();
    let versions = fleet.deployments().values();
    (
        devices,
        rollouts,
        versions.map(|d| &d.version).collect::<Vec<_>>(),
    )
}
