//! The fleet of the core as the small model's equal: sequences of events, and what both must agree on.

use proptest::prelude::*;
use proptest::sample::select;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};
use sandpiper_core::assignment::Generation;
use sandpiper_core::fleet::{Fleet, Outbox, StreamId};
use sandpiper_core::invariants;
use sandpiper_core::names::{ActorName, DeviceName, RolloutName};
use sandpiper_core::policy::Labels;
use sandpiper_core::rollout::{DeviceRollout, Rollout, RolloutState, SteerVerb};
use sandpiper_core::telemetry::{ModelPhase, Observation, TelemetryWindow};
use sandpiper_core::time::Millis;
use sandpiper_model::fixtures::{
    deployment, device, hello, model, name, observation, published, serving, spec, status, window,
};
use sandpiper_model::reference::{self, BAKE_S, DEADLINE_S, Event, GROUPS, Phase, Place, Verb};
use sandpiper_sim::store::Store;
use serde_json::json;
use std::collections::BTreeMap;

const DEVICES: usize = 5;
const GROUP: &str = "group";

/// Sequences of events that make sense where they happen.
pub(crate) struct Sequences;

impl ReferenceStateMachine for Sequences {
    type State = reference::Fleet;
    type Transition = Event;

    fn init_state() -> BoxedStrategy<Self::State> {
        Just(reference::Fleet::new(DEVICES)).boxed()
    }

    fn transitions(state: &Self::State) -> BoxedStrategy<Event> {
        let devices: Vec<_> = state.devices.iter().cloned().enumerate().collect();
        let known = select(devices);
        let report = (known.clone(), 0..20_u8, 0..12_u8).prop_map(said);
        let served = (known, 0..4_u64, 0..8_u8).prop_map(|((number, device), inferences, late)| {
            // Mostly of the present assignment, sometimes of one before it.
            let generation = device.generation.saturating_sub(u64::from(late == 0));
            let version = device.assigned.unwrap_or(1);
            Event::Window(number, version, generation, inferences)
        });
        let seconds = select(vec![1, BAKE_S / 2, BAKE_S, DEADLINE_S / 2, DEADLINE_S]);
        let newest = state.rollouts.len().saturating_sub(1);
        let rollout = prop_oneof![4 => Just(newest), 1 => 0..=newest];
        prop_oneof![
            2 => request().prop_map(Event::Start),
            3 => (rollout, verb()).prop_map(|(rollout, verb)| Event::Steer(rollout, verb)),
            14 => report,
            8 => served,
            1 => (0..DEVICES).prop_map(Event::Again),
            4 => seconds.prop_map(Event::Silence),
            1 => Just(Event::Restart),
        ]
        .boxed()
    }

    fn apply(mut state: Self::State, event: &Event) -> Self::State {
        state.apply(event);
        state
    }
}

fn request() -> impl Strategy<Value = reference::Spec> {
    let waves = prop_oneof![
        2 => Just(vec![]),
        2 => Just(vec![1]),
        2 => Just(vec![1, 2]),
        1 => Just(vec![2, 1, 1]),
        1 => Just(vec![4, 4]),
    ];
    let bound = || prop_oneof![3 => Just(None), 1 => Just(Some(1)), 1 => Just(Some(2))];
    let all = (waves, 0..3_usize, 0..3_u64, bound(), bound());
    all.prop_map(
        |(waves, tolerated, least, in_flight, of_group)| reference::Spec {
            waves,
            tolerated,
            least,
            in_flight,
            of_group,
        },
    )
}

fn verb() -> impl Strategy<Value = Verb> {
    let verbs = vec![
        Verb::Pause,
        Verb::Resume,
        Verb::Promote,
        Verb::PromoteAll,
        Verb::Abort,
        Verb::Retry,
        Verb::Undo,
    ];
    select(verbs)
}

/// What a device may say of what it was assigned.
fn said(((number, device), what, late): ((usize, reference::Device), u8, u8)) -> Event {
    let status = device.assigned.map(|wanted| {
        let (serves, failed) = match what {
            0..=14 => (Some(wanted), false),
            15 => (device.before, true),
            16 => (None, true),
            17 => (None, false),
            _ => (device.before, false),
        };
        reference::Status {
            wanted,
            serves,
            failed,
            genuine: late != 1 || serves.is_none(),
        }
    });
    let generation = device.generation.saturating_sub(u64::from(late == 0));
    Event::Report(number, generation, status)
}

/// The fleet of the core with what its driver knows.
pub(crate) struct Core {
    fleet: Fleet,
    store: Store,
    streams: Vec<StreamId>,
    said: Vec<Observation>,
    windows: Vec<Vec<TelemetryWindow>>,
    rollouts: Vec<RolloutName>,
    versions: u32,
    now: Millis,
}

fn actor() -> ActorName {
    name("anna")
}

impl Core {
    fn new() -> Self {
        let mut store = Store::default();
        let mut it = Self {
            fleet: store.take_over().unwrap(),
            store,
            streams: Vec::new(),
            said: vec![observation(Generation(0), Vec::new()); DEVICES],
            windows: vec![Vec::new(); DEVICES],
            rollouts: Vec::new(),
            versions: 0,
            now: Millis(1_000_000),
        };
        it.fleet
            .apply_deployment(it.now, "anna", deployment())
            .unwrap();
        for number in 0..DEVICES {
            let group = format!("g{}", number % GROUPS);
            let labels: Labels = [(GROUP.to_owned(), group)].into();
            it.fleet.enrol(it.now, &device(number), labels).unwrap();
        }
        it.attach();
        it
    }

    fn attach(&mut self) {
        self.streams.clear();
        for number in 0..DEVICES {
            let hello = hello(7, self.said[number].clone());
            let stream = self.fleet.attach(self.now, &device(number), hello, false);
            self.streams.push(stream.unwrap());
        }
        self.commit();
    }

    fn commit(&mut self) -> Outbox {
        let outbox = self.fleet.take_outbox();
        assert!(self.store.commit(&outbox), "nobody else has taken over");
        let broken: Vec<_> = outbox
            .noted
            .iter()
            .filter(|e| e.reason == "Invariant")
            .collect();
        assert!(broken.is_empty(), "{broken:?}");
        outbox
    }

    fn remember(&mut self, started: Option<RolloutName>) {
        self.rollouts.extend(started);
    }

    fn start(&mut self, wanted: &reference::Spec) {
        self.versions += 1;
        let version = published(self.versions);
        self.fleet.publish(self.now, "anna", version).unwrap();
        let waves: Vec<_> = wanted.waves.iter().map(|n| json!({"count": n})).collect();
        let mut fields = json!({
            "waves": waves,
            "wave_deadline_s": DEADLINE_S,
            "bake_s": BAKE_S,
            "max_failures": wanted.tolerated,
            "min_inferences": wanted.least,
        });
        if let Some(bound) = wanted.in_flight {
            fields["max_in_flight"] = json!(bound);
        }
        if let Some(bound) = wanted.of_group {
            fields["disruption"] = json!({"group_by": GROUP, "max_unavailable": bound});
        }
        let spec = spec(self.versions, fields);
        let started = self.fleet.start_rollout(self.now, &actor(), spec).ok();
        self.remember(started);
    }

    fn steer(&mut self, number: usize, verb: Verb) {
        let Some(rollout) = self.rollouts.get(number).cloned() else {
            return;
        };
        let verb = match verb {
            Verb::Pause => SteerVerb::Pause,
            Verb::Resume => SteerVerb::Resume,
            Verb::Promote => SteerVerb::Promote { full: false },
            Verb::PromoteAll => SteerVerb::Promote { full: true },
            Verb::Abort => SteerVerb::Abort,
            Verb::Retry => SteerVerb::Retry,
            Verb::Undo => SteerVerb::Undo { to: None },
        };
        let before = self.fleet.rollouts().len();
        // What does not fit is refused, in the small model as well.
        let steered = self.fleet.steer_rollout(self.now, &actor(), &rollout, verb);
        if steered.is_ok() && self.fleet.rollouts().len() > before {
            let known = |name: &&RolloutName| !self.rollouts.contains(name);
            let started = self.fleet.rollouts().keys().find(known).cloned();
            self.remember(started);
        }
    }

    fn telemetry(&mut self, number: usize, window: TelemetryWindow) {
        let (device, stream) = (device(number), self.streams[number]);
        self.fleet
            .telemetry(self.now, &device, stream, vec![window])
            .unwrap();
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Start(wanted) => self.start(&wanted),
            Event::Steer(number, verb) => self.steer(number, verb),
            Event::Report(number, generation, said) => {
                let models = said.map(|said| {
                    let phase = match (said.failed, said.serves == Some(said.wanted)) {
                        (true, _) => ModelPhase::Failed,
                        (false, true) => ModelPhase::Serving,
                        (false, false) => ModelPhase::Fetching,
                    };
                    // Who serves nothing has no code to lie about.
                    let serves = said.serves.map(|v| serving(v, said.genuine));
                    status(said.wanted, phase, serves)
                });
                let said = observation(Generation(generation), models.into_iter().collect());
                self.said[number] = said.clone();
                let (device, stream) = (device(number), self.streams[number]);
                self.fleet.report(self.now, &device, stream, said).unwrap();
            }
            Event::Window(number, version, generation, inferences) => {
                let sequence = self.windows[number].len() as u64 + 1;
                let window = window(version, Generation(generation), sequence, inferences);
                self.windows[number].push(window.clone());
                self.telemetry(number, window);
            }
            Event::Again(number) => {
                if let Some(window) = self.windows[number].last().cloned() {
                    self.telemetry(number, window);
                }
            }
            Event::Silence(seconds) => {
                self.now = Millis(self.now.0 + seconds * 1_000);
                self.fleet.tick(self.now);
            }
            Event::Restart => {
                let before = std::mem::replace(&mut self.fleet, self.store.take_over().unwrap());
                invariants::nothing_forgotten(&before, &self.fleet).unwrap();
                self.attach();
            }
        }
    }
}

impl StateMachineTest for Core {
    type SystemUnderTest = Self;
    type Reference = Sequences;

    fn init_test(_: &reference::Fleet) -> Self {
        Self::new()
    }

    fn apply(mut core: Self, _: &reference::Fleet, event: Event) -> Self {
        let before: BTreeMap<_, _> = core.fleet.rollouts().clone();
        core.happen(event);
        core.commit();
        for (name, rollout) in core.fleet.rollouts() {
            invariants::rollout(rollout).unwrap();
            if let Some(before) = before.get(name) {
                let places = before.devices.iter().map(|(d, s)| (d.clone(), s.clone()));
                let places: BTreeMap<DeviceName, DeviceRollout> = places.collect();
                invariants::rollout_step(&before.state, &places, rollout, core.now).unwrap();
            }
        }
        invariants::one_open_rollout(&core.fleet).unwrap();
        core
    }

    fn check_invariants(core: &Self, wanted: &reference::Fleet) {
        let entry = core.fleet.deployments().values().next().unwrap();
        let stands_at = wanted.stands_at.map(sandpiper_model::fixtures::version);
        assert_eq!(entry.version, stands_at, "where the deployment stands");
        assert_eq!(core.rollouts.len(), wanted.rollouts.len(), "rollouts");
        for (name, wanted) in core.rollouts.iter().zip(&wanted.rollouts) {
            let rollout = &core.fleet.rollouts()[name];
            assert_eq!(phase(rollout), wanted.phase, "{name}");
            let places: BTreeMap<_, _> = rollout
                .devices
                .iter()
                .map(|(device, state)| (device.clone(), place(state)))
                .collect();
            let wanted = wanted.places.iter().map(|(d, p)| (device(*d), *p));
            assert_eq!(places, wanted.collect(), "{name}");
        }
        for (number, wanted) in wanted.devices.iter().enumerate() {
            let record = core.fleet.device(&device(number)).unwrap();
            let held = record.models.get(&model());
            let version = held.map(|held| held.version.clone());
            let wanted_version = wanted.assigned.map(sandpiper_model::fixtures::version);
            assert_eq!(record.generation.0, wanted.generation, "pi-{number}");
            assert_eq!(version, wanted_version, "pi-{number}");
            let served = record.served.get(&model()).copied().unwrap_or(0);
            assert_eq!(served, wanted.served, "pi-{number}");
        }
    }
}

/// Seconds since the beginning of the test.
fn seconds(at: Millis) -> u64 {
    (at.0 - 1_000_000) / 1_000
}

fn phase(rollout: &Rollout) -> Phase {
    match &rollout.state {
        RolloutState::Planned => unreachable!("what is started runs at once"),
        RolloutState::AwaitingApproval { .. } => unreachable!("no wave asks for approval"),
        RolloutState::Running { wave, since } => Phase::Running(*wave, seconds(*since)),
        RolloutState::Paused { wave, ran_ms, .. } => Phase::Paused(*wave, ran_ms / 1_000),
        RolloutState::Promoted => Phase::Promoted,
        RolloutState::RollingBack { since, .. } => Phase::RollingBack(seconds(*since)),
        RolloutState::RolledBack { .. } => Phase::RolledBack,
        RolloutState::Superseded => Phase::Superseded,
    }
}

fn place(state: &DeviceRollout) -> Place {
    match state {
        DeviceRollout::Waiting => Place::Waiting,
        // Without limits of phases it is the same to a rollout how far a device has come.
        DeviceRollout::Assigned { .. } | DeviceRollout::Switching { .. } => Place::Assigned,
        DeviceRollout::Held { .. } | DeviceRollout::Parked { .. } => {
            unreachable!("there are no windows")
        }
        DeviceRollout::Serving { since, inferences } => {
            Place::Serving(seconds(*since), *inferences)
        }
        DeviceRollout::Succeeded => Place::Succeeded,
        DeviceRollout::Failed { .. } => Place::Failed,
        DeviceRollout::GoingBack => Place::GoingBack,
        DeviceRollout::Back => Place::Back,
        DeviceRollout::Gone => unreachable!("nobody leaves"),
    }
}
