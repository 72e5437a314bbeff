//! The rollout and assignment protocol of a small fleet, of which every reachable state is visited:
//! two controllers over one store, three devices, and a network that may lose, double, delay and
//! reorder everything.
//!
//! The transitions are those of production: [`Fleet`] decides for a controller, [`Reconciler`] for a
//! device, and what lies between (commit, send, perform) is as in their drivers. A message that was
//! sent once may arrive at any later time, any number of times, or never; an assignment may even
//! reach another device. Power, controllers and the clock fail as often as the [`Bounds`] let.
//! A step checks the invariants of the core.
//!
//! | module | what it holds |
//! |---|---|
//! | `world` | a state, and what tells it from others |
//! | `controller` | jobs: decide, commit, send |
//! | `device` | messages, effects, power cuts |
//! | `check` | invariants of a step |
//!
//! [`Fleet`]: sandpiper_core::fleet::Fleet
//! [`Reconciler`]: sandpiper_core::reconcile::Reconciler

mod check;
mod controller;
mod device;
mod world;

pub use world::World;

use sandpiper_core::invariants::Violation;
use sandpiper_core::rollout::RolloutState;
use stateright::{Checker, HasDiscoveries, Model, Property};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Controllers.
pub const CONTROLLERS: usize = 2;
/// Devices.
pub const DEVICES: usize = 3;
/// Seconds that a wave may take: the clock goes in such steps.
pub const DEADLINE_S: u64 = 60;
/// The version that every device serves at the beginning.
pub const OLD: u32 = 1;
/// The version that is rolled out.
pub const NEW: u32 = 2;

/// How often things happen that could happen for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bounds {
    /// Starts of a controller, beside another one or after it was killed.
    pub starts: u8,
    /// Deaths of a controller, between any two jobs or after a commit, before anything is sent.
    pub kills: u8,
    /// Power cuts of devices.
    pub cuts: u8,
    /// Times that the deadline of a wave passes.
    pub deadlines: u8,
    /// Rollouts that an operator takes back.
    pub aborts: u8,
    /// Streams that devices open anew.
    pub streams: u8,
}

/// What is checked.
#[derive(Debug, Clone)]
pub struct Protocol {
    /// How often things happen.
    pub bounds: Bounds,
    /// Devices on which the new version fails.
    pub bad: [bool; DEVICES],
    seen: Arc<Seen>,
}

/// What has come about on some way. It is no part of a state, which would double them.
#[derive(Debug, Default)]
struct Seen {
    /// A controller was kept from writing because another one had taken over.
    fenced: AtomicBool,
    /// A device has refused an assignment because of its generation.
    refused: AtomicBool,
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A controller starts on the store, whether another one runs or not.
    Starts(usize),
    /// A controller is killed.
    Killed(usize),
    /// A device opens a stream to a controller.
    Connects(usize, usize),
    /// A message of a device reaches its controller: by its number among those that are under way.
    Hears(usize, usize),
    /// The same, and the controller is killed once it has committed what it decided.
    HearsAndDies(usize, usize),
    /// An assignment reaches a device: number of the device, then whose it is and its generation.
    Receives(usize, usize, u64),
    /// The same, and the power goes before the first effect is performed (`false`) or after it.
    ReceivesAndIsCut(usize, usize, u64, bool),
    /// The power of a device goes and comes.
    Cut(usize),
    /// The deadline of a wave passes.
    Deadline,
    /// A controller looks at its deadlines.
    Looks(usize),
    /// The same, and it is killed once it has committed what it decided.
    LooksAndDies(usize),
    /// An operator takes the rollout back, at this controller.
    Aborts(usize),
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.violation.is_none() {
            world.possible(actions);
        }
    }

    fn next_state(&self, before: &World, action: Action) -> Option<World> {
        let mut world = before.clone();
        world.happened = Default::default();
        world.step(self, action);
        self.seen
            .fenced
            .fetch_or(world.happened.fenced, Ordering::Relaxed);
        self.seen
            .refused
            .fetch_or(world.happened.refused, Ordering::Relaxed);
        world.settle();
        (world.key() != before.key()).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(INVARIANTS, |_, world: &World| world.violation.is_none()),
            Property::sometimes("a rollout is promoted", |_, world: &World| {
                world.newest == Some(RolloutState::Promoted)
            }),
            Property::sometimes("a rollout is taken back", |_, world: &World| {
                matches!(world.newest, Some(RolloutState::RolledBack { .. }))
            }),
            Property::sometimes("a stale controller is fenced", |it, _| {
                it.seen.fenced.load(Ordering::Relaxed)
            }),
            Property::sometimes("an old assignment is refused", |it, _| {
                it.seen.refused.load(Ordering::Relaxed)
            }),
        ]
    }
}

const INVARIANTS: &str = "the invariants of the core hold";

/// What a check found.
#[derive(Debug)]
pub struct Report {
    /// Different states that were visited.
    pub states: usize,
    /// Steps between them that were taken.
    pub steps: usize,
    /// Steps of the longest way.
    pub depth: usize,
    /// Whether no state was left out.
    pub complete: bool,
    /// What never came about though it should be possible.
    pub never: Vec<&'static str>,
    /// The broken invariant, and the shortest way to it.
    pub broken: Option<(Violation, Vec<Action>)>,
}

impl Protocol {
    /// A check.
    pub fn new(bounds: Bounds, bad: [bool; DEVICES]) -> Self {
        Self {
            bounds,
            bad,
            seen: Arc::default(),
        }
    }

    /// Visits every state, or those up to the first violation, but hardly more than `most`.
    pub fn check(self, threads: usize, most: usize) -> Report {
        let names: Vec<_> = self.properties().iter().map(|p| p.name).collect();
        let checker = self.checker().threads(threads).target_state_count(most);
        // Otherwise it would go on to look for what must be possible.
        let checker = checker.finish_when(HasDiscoveries::AnyFailures);
        let checker = checker.spawn_bfs().join();
        let broken = checker.discovery(INVARIANTS).and_then(|path| {
            let violation = path.last_state().violation.clone()?;
            Some((violation, path.into_actions()))
        });
        let seen = checker.discoveries();
        let never = names.into_iter();
        let never = never.filter(|name| *name != INVARIANTS && !seen.contains_key(name));
        Report {
            states: checker.unique_state_count(),
            steps: checker.state_count(),
            depth: checker.max_depth(),
            complete: checker.state_count() < most,
            never: never.collect(),
            broken,
        }
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (states, steps, depth) = (self.states, self.steps, self.depth);
        write!(
            f,
            "{states} states visited by {steps} steps, at most {depth} deep"
        )?;
        if let Some((violation, way)) = &self.broken {
            write!(f, "\n{violation}")?;
            for action in way {
                write!(f, "\n  {action:?}")?;
            }
        }
        Ok(())
    }
}
