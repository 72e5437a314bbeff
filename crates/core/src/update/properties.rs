//! Any orders, any programs, a power cut at any moment: the device comes back with a program that
//! works, and what failed is left alone.
#![allow(clippy::unwrap_used)]

use super::tests::{artefact, release, version};
use super::*;
use crate::digest::Digest;
use crate::names::ModelName;
use crate::target::Arch;
use crate::time::Millis;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(120);
const INSTALLED: &str = "0.1.0";
const MODEL: &str = "activity";

/// What a program does once it is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Conduct {
    Good,
    /// It lives and never attaches.
    Mute,
    /// It attaches, and its models do not serve.
    Idle,
    /// It ends at once.
    Dies,
    /// The system does not start it.
    Broken,
}

/// Releases by number of their minor version: two good ones, and one of each other kind.
const CONDUCT: [Conduct; 6] = [
    Conduct::Good,
    Conduct::Mute,
    Conduct::Good,
    Conduct::Idle,
    Conduct::Dies,
    Conduct::Broken,
];

#[derive(Debug, Clone)]
enum Step {
    /// An operator asks for this release; perhaps it raises the floor to itself.
    Order(usize, bool),
    /// An operator asks for the installed program.
    Installed,
    /// The power fails after so many effects, or at once.
    Cut(usize),
    /// Time passes, in seconds.
    Pass(u64),
    /// The disk takes no writes for as long as this says.
    Full(bool),
}

struct Device {
    now: Millis,
    /// On the disk.
    record: UpdateRecord,
    /// The assignment on the disk, of which the order is part.
    order: Option<AgentOrder>,
    ready: BTreeSet<Digest>,
    by_digest: BTreeMap<Digest, Conduct>,
    machine: Option<Updater>,
    conduct: Conduct,
    full: bool,
    backlog: VecDeque<UpdateEffect>,
    /// Effects until the power fails.
    until_cut: Option<usize>,
    /// Starts of each order's program that the system was asked for.
    attempts: BTreeMap<u64, u32>,
    numbers: u64,
    floor: Option<AgentVersion>,
}

impl Device {
    fn new() -> Self {
        let named = |(i, c): (usize, &Conduct)| (artefact(&name(i)).digest, *c);
        let mut it = Self {
            now: Millis(0),
            record: UpdateRecord::default(),
            order: None,
            ready: BTreeSet::new(),
            by_digest: CONDUCT.iter().enumerate().map(named).collect(),
            machine: None,
            conduct: Conduct::Good,
            full: false,
            backlog: VecDeque::new(),
            until_cut: None,
            attempts: BTreeMap::new(),
            numbers: 0,
            floor: None,
        };
        it.boot();
        it
    }

    /// As the agent's own start does it.
    fn boot(&mut self) {
        self.backlog.clear();
        // A service manager starts it again, at most so often.
        for _ in 0..100 {
            let mut record = self.record.clone();
            let mut choice = record.choose(INSTALLED);
            if self.full {
                choice = match (choice, &self.record.confirmed) {
                    (Start::Trial(_), Some(before)) => Start::Confirmed(before.clone()),
                    (Start::Trial(_), None) => Start::Installed,
                    (other, _) => other,
                };
            } else {
                self.record = record;
            }
            let running = match &choice {
                Start::Installed => None,
                Start::Trial(p) | Start::Confirmed(p) => Some(p.artefact.digest),
            };
            if let Start::Trial(_) = &choice {
                let order = self.record.trial.as_ref().unwrap().order;
                let starts = self.attempts.entry(order).or_default();
                *starts += 1;
                assert!(*starts <= MAX_TRIAL_STARTS, "order {order} is tried again");
            }
            let conduct = running.map_or(Conduct::Good, |d| self.by_digest[&d]);
            match conduct {
                Conduct::Broken => {
                    let mut failed = self.record.clone();
                    failed.could_not_start(&choice, "no");
                    assert!(!self.full, "what was never confirmed is not started");
                    self.record = failed;
                    continue;
                }
                Conduct::Dies => continue,
                Conduct::Good | Conduct::Mute | Conduct::Idle => {}
            }
            self.conduct = conduct;
            let machine = Updater::new(self.record.clone(), running, INSTALLED, Arch::Aarch64);
            let machine = machine.with(true, DEADLINE);
            self.machine = Some(machine.resumed(self.order.clone(), self.ready.clone()));
            self.event(UpdateEvent::Models(self.models()));
            // By then another start may have taken its place.
            self.event(UpdateEvent::Attached(self.conduct != Conduct::Mute));
            return;
        }
        panic!("it is started for ever: {:?}", self.record);
    }

    fn models(&self) -> Models {
        let model = ModelName::new(MODEL).unwrap();
        let serves = self.conduct != Conduct::Idle;
        Models {
            assigned: [model.clone()].into(),
            serving: serves.then_some(model).into_iter().collect(),
            busy: false,
        }
    }

    fn event(&mut self, event: UpdateEvent) {
        let Some(machine) = &mut self.machine else {
            return;
        };
        self.backlog.extend(machine.handle(self.now, event));
        while let Some(effect) = self.backlog.pop_front() {
            if let Some(left) = &mut self.until_cut {
                if *left == 0 {
                    return self.cut();
                }
                *left -= 1;
            }
            let machine = self.machine.as_mut().unwrap();
            match effect {
                // What follows waits until it can be written.
                UpdateEffect::Persist if self.full => return self.backlog.push_front(effect),
                UpdateEffect::Persist => self.record = machine.record().clone(),
                UpdateEffect::Fetch(a) => {
                    self.backlog
                        .extend(machine.handle(self.now, UpdateEvent::Fetched(a)));
                }
                UpdateEffect::Stage(a) => {
                    self.ready.insert(a.digest);
                    self.backlog
                        .extend(machine.handle(self.now, UpdateEvent::Staged(a, Ok(()))));
                }
                UpdateEffect::StopFetch(_) => {}
                UpdateEffect::Collect => {
                    machine.collected();
                    let live = machine.live();
                    self.ready.retain(|d| live.contains(d));
                }
                UpdateEffect::Restart => {
                    self.machine = None;
                    return self.boot();
                }
            }
            self.look();
        }
    }

    /// The power fails, or the process ends, and it starts anew.
    fn cut(&mut self) {
        self.until_cut = None;
        self.machine = None;
        self.boot();
    }

    fn look(&mut self) {
        assert!(self.record.floor >= self.floor, "the floor falls");
        self.floor.clone_from(&self.record.floor);
        let held = self.record.confirmed.as_ref();
        if let Some(held) = held {
            assert!(self.ready.contains(&held.artefact.digest), "deleted");
            assert!(
                Some(&held.version) >= self.floor.as_ref(),
                "below the floor"
            );
        }
        if let Some(tried) = &self.record.trial {
            assert!(self.ready.contains(&tried.program.artefact.digest));
        }
    }

    fn order(&mut self, release: Option<AgentRelease>) {
        self.numbers += 1;
        let number = self.numbers;
        // The reconciler writes the assignment before anything is done about it.
        self.order = Some(AgentOrder { number, release });
        self.event(UpdateEvent::Ordered(self.order.clone()));
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Order(index, raises) => {
                let mut release = release(&name(index));
                release.oldest = raises.then(|| release.version.clone());
                self.order(Some(release));
            }
            Step::Installed => self.order(None),
            Step::Cut(0) => self.cut(),
            Step::Cut(after) => self.until_cut = Some(after - 1),
            Step::Pass(seconds) => self.pass(seconds),
            Step::Full(full) => self.full = full,
        }
    }

    fn pass(&mut self, seconds: u64) {
        self.now = self.now.plus(Duration::from_secs(seconds));
        self.event(UpdateEvent::Tick);
    }
}

fn name(index: usize) -> String {
    format!("0.{}.0", index + 2)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..CONDUCT.len(), prop::bool::weighted(0.2)).prop_map(|(i, r)| Step::Order(i, r)),
        1 => Just(Step::Installed),
        3 => (0_usize..6).prop_map(Step::Cut),
        3 => (1_u64..400).prop_map(Step::Pass),
        1 => any::<bool>().prop_map(Step::Full),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn whatever_is_ordered_and_whenever_the_power_fails_a_program_that_works_runs(
        steps in prop::collection::vec(step(), 1..24)
    ) {
        let mut device = Device::new();
        for step in steps {
            device.step(step);
        }
        device.full = false;
        device.until_cut = None;
        for _ in 0..8 {
            device.pass(400);
        }
        prop_assert_eq!(device.conduct, Conduct::Good);
        let record = &device.record;
        prop_assert!(record.trial.is_none(), "{:?}", record);
        // Every order has come to an end, and a good one that the floor allows to its own.
        if let Some(order) = &device.order {
            let settled = record.settled.as_ref().unwrap();
            prop_assert_eq!(settled.order, order.number);
            let status = device.machine.as_ref().unwrap().status();
            if settled.outcome == Outcome::Confirmed {
                let want = order.version().map_or(INSTALLED.to_owned(), ToString::to_string);
                prop_assert_eq!(status.running, want);
            }
        }
    }
}

#[test]
fn of_two_good_releases_the_newer_runs_in_the_end() {
    let mut device = Device::new();
    for index in [0, 4, 2, 5] {
        device.step(Step::Order(index, false));
        device.pass(400);
    }
    let status = device.machine.as_ref().unwrap().status();
    assert_eq!(status.running, version("0.4.0").to_string());
    assert_eq!(status.phase, Some(UpdatePhase::FellBack));
}
