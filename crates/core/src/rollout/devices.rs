//! Where every device of a rollout stands, with counts that are kept along: a report of one
//! device must not walk a fleet of a million.

use super::phase::Phase;
use super::plan::RolloutPlan;
use super::spec::RolloutSpec;
use super::state::DeviceRollout;
use crate::mutants::{self, Mutant};
use crate::names::DeviceName;
use crate::time::Millis;
use std::collections::{BTreeMap, BTreeSet};

/// Stands for a window that does not open.
const NEVER: Millis = Millis(u64::MAX);

/// The devices of a rollout by name. Equal states have equal counts, whatever led to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Devices {
    places: BTreeMap<DeviceName, Place>,
    tally: Tally,
}

/// A device with its place in the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    state: DeviceRollout,
    wave: u32,
    position: u32,
    group: u32,
}

/// What is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tally {
    bounds: Bounds,
    waves: Vec<WaveTally>,
    /// Devices in flight, by number of the group.
    flying: Vec<usize>,
    flying_total: usize,
    /// Devices that serve and have served enough, by when they were first seen serving.
    baking: BTreeSet<(Millis, DeviceName)>,
    /// Devices in a phase with an end, by phase and since when.
    phases: [BTreeSet<(Millis, DeviceName)>; Phase::ALL.len()],
    /// Devices that are held, by when their window opens.
    held: BTreeSet<(Millis, DeviceName)>,
    succeeded: usize,
    going_back: usize,
}

/// What the tally must know of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bounds {
    in_flight: usize,
    in_flight_of_group: usize,
    inferences: u64,
    /// Some phase has a limit of its own.
    timed: bool,
}

/// Counts of one wave.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct WaveTally {
    /// Devices that have failed.
    pub(super) failed: usize,
    /// Devices that have neither succeeded nor failed nor left.
    pub(super) open: usize,
    waiting: BTreeMap<u32, Queue>,
    /// The first that waits of every group that has room, by position.
    ready: BTreeSet<u32>,
}

/// Devices of one wave and group that wait, by position.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Queue {
    waiting: BTreeSet<u32>,
    /// What of it stands in `ready`.
    offered: Option<u32>,
}

impl Bounds {
    fn of(spec: &RolloutSpec) -> Self {
        let most = |bound: Option<u32>| bound.map_or(usize::MAX, |n| n as usize);
        let of_group = most(spec.disruption.as_ref().map(|b| b.max_unavailable));
        Self {
            in_flight: match mutants::is(Mutant::ForgetInFlight) {
                true => usize::MAX,
                false => most(spec.max_in_flight),
            },
            in_flight_of_group: match mutants::is(Mutant::BudgetOffByOne) {
                true => of_group.saturating_add(1),
                false => of_group,
            },
            inferences: match mutants::is(Mutant::SkipInferences) {
                true => 0,
                false => spec.min_inferences,
            },
            timed: !spec.deadlines.is_derived() || spec.windows.is_some(),
        }
    }
}

impl Tally {
    fn new(plan: &RolloutPlan, groups: usize) -> Self {
        Self {
            bounds: Bounds::of(&plan.spec),
            waves: vec![WaveTally::default(); plan.waves.len()],
            flying: vec![0; groups],
            flying_total: 0,
            baking: BTreeSet::new(),
            phases: Default::default(),
            held: BTreeSet::new(),
            succeeded: 0,
            going_back: 0,
        }
    }

    fn wave(&mut self, wave: u32) -> &mut WaveTally {
        &mut self.waves[wave as usize]
    }

    /// Counts a device in (`true`) or out.
    fn count(&mut self, name: &DeviceName, place: &Place, enters: bool) {
        let step = |count: &mut usize| match enters {
            true => *count += 1,
            false => *count -= 1,
        };
        let put = |set: &mut BTreeSet<(Millis, DeviceName)>, at: Millis| {
            let key = (at, name.clone());
            match enters {
                true => set.insert(key),
                false => set.remove(&key),
            };
        };
        if let Some((phase, since)) = place.state.phase(self.bounds.inferences)
            && self.bounds.timed
        {
            put(&mut self.phases[phase as usize], since);
        }
        match &place.state {
            DeviceRollout::Held { until, .. } => {
                step(&mut self.wave(place.wave).open);
                put(&mut self.held, until.unwrap_or(NEVER));
            }
            DeviceRollout::Waiting => {
                step(&mut self.wave(place.wave).open);
                let queue = self.wave(place.wave).waiting.entry(place.group);
                let waiting = &mut queue.or_default().waiting;
                match enters {
                    true => waiting.insert(place.position),
                    false => waiting.remove(&place.position),
                };
                self.offer(place.group, place.wave);
            }
            DeviceRollout::Assigned { .. }
            | DeviceRollout::Parked { .. }
            | DeviceRollout::Switching { .. } => {
                step(&mut self.wave(place.wave).open);
                step(&mut self.flying_total);
                let flying = &mut self.flying[place.group as usize];
                let had_room = *flying < self.bounds.in_flight_of_group;
                step(flying);
                if had_room != (*flying < self.bounds.in_flight_of_group) {
                    // Bounded by the number of waves.
                    (0..self.waves.len() as u32).for_each(|wave| self.offer(place.group, wave));
                }
            }
            DeviceRollout::Serving { since, inferences } => {
                step(&mut self.wave(place.wave).open);
                if *inferences >= self.bounds.inferences {
                    put(&mut self.baking, *since);
                }
            }
            DeviceRollout::Succeeded => step(&mut self.succeeded),
            DeviceRollout::Failed { .. } => step(&mut self.wave(place.wave).failed),
            DeviceRollout::GoingBack => step(&mut self.going_back),
            DeviceRollout::Back | DeviceRollout::Gone => {}
        }
    }

    /// Brings what a group offers to a wave up to date.
    fn offer(&mut self, group: u32, wave: u32) {
        let has_room = self.flying[group as usize] < self.bounds.in_flight_of_group;
        let wave = &mut self.waves[wave as usize];
        let Some(queue) = wave.waiting.get_mut(&group) else {
            return;
        };
        let first = queue.waiting.first().copied().filter(|_| has_room);
        if queue.offered != first {
            if let Some(old) = queue.offered {
                wave.ready.remove(&old);
            }
            wave.ready.extend(first);
            queue.offered = first;
        }
        if queue.waiting.is_empty() {
            wave.waiting.remove(&group);
        }
    }
}

impl Devices {
    /// All devices of a plan, waiting.
    pub(super) fn new(plan: &RolloutPlan) -> Self {
        Self::walk(plan, |_| DeviceRollout::Waiting)
    }

    /// All devices of a plan as they stood; those that nothing is known of wait.
    pub fn restored(plan: &RolloutPlan, states: &BTreeMap<DeviceName, DeviceRollout>) -> Self {
        Self::walk(plan, |device| {
            let state = states.get(device).cloned();
            state.unwrap_or(DeviceRollout::Waiting)
        })
    }

    /// All devices of a plan, counted one by one.
    fn walk(plan: &RolloutPlan, state: impl Fn(&DeviceName) -> DeviceRollout) -> Self {
        let mut groups = BTreeMap::new();
        for planned in plan.waves.iter().flatten() {
            let next = groups.len() as u32;
            groups.entry(planned.group.as_deref()).or_insert(next);
        }
        let mut tally = Tally::new(plan, groups.len());
        let mut places = BTreeMap::new();
        for (wave, members) in (0..).zip(&plan.waves) {
            for (position, planned) in (0..).zip(members) {
                let device = &planned.device;
                let place = Place {
                    state: state(device),
                    wave,
                    position,
                    group: groups[&planned.group.as_deref()],
                };
                tally.count(device, &place, true);
                places.insert(device.clone(), place);
            }
        }
        Self { places, tally }
    }

    /// Brings a device to a state; `false` when it is there already or not of the rollout.
    pub(super) fn set(&mut self, device: &DeviceName, state: DeviceRollout) -> bool {
        let Some(place) = self.places.get_mut(device) else {
            return false;
        };
        if place.state == state {
            return false;
        }
        let uncounted = |p: &Place| {
            mutants::is(Mutant::ForgetCount) && matches!(p.state, DeviceRollout::Failed { .. })
        };
        if !uncounted(place) {
            self.tally.count(device, place, false);
        }
        place.state = state;
        if !uncounted(place) {
            self.tally.count(device, place, true);
        }
        true
    }

    /// Where a device stands.
    pub fn get(&self, device: &DeviceName) -> Option<&DeviceRollout> {
        self.places.get(device).map(|place| &place.state)
    }

    /// Wave and position in it, counted from 0.
    pub fn place(&self, device: &DeviceName) -> Option<(usize, usize)> {
        let place = self.places.get(device)?;
        Some((place.wave as usize, place.position as usize))
    }

    /// Whether the rollout moves this device.
    pub fn contains(&self, device: &DeviceName) -> bool {
        self.places.contains_key(device)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none. A plan has always one.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Every device with its state, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&DeviceName, &DeviceRollout)> {
        self.places.iter().map(|(name, place)| (name, &place.state))
    }

    /// All states, by name of the device.
    pub fn states(&self) -> impl Iterator<Item = &DeviceRollout> {
        self.places.values().map(|place| &place.state)
    }

    /// How many have succeeded.
    pub fn succeeded(&self) -> usize {
        self.tally.succeeded
    }

    /// How many have failed.
    pub fn failed(&self) -> usize {
        self.tally.waves.iter().map(|wave| wave.failed).sum()
    }

    /// How many go back and have not been seen back.
    pub(super) fn going_back(&self) -> usize {
        self.tally.going_back
    }

    /// The counts of a wave.
    pub(super) fn wave(&self, wave: usize) -> Option<&WaveTally> {
        self.tally.waves.get(wave)
    }

    /// Position in its wave of the next device that may be sent off.
    pub(super) fn ready(&self, wave: usize) -> Option<usize> {
        let room = self.tally.flying_total < self.tally.bounds.in_flight;
        let first = self.wave(wave).filter(|_| room)?.ready.first();
        first.map(|position| *position as usize)
    }

    /// The device that serves for longest of those that have served enough, and since when.
    pub(super) fn baking(&self) -> Option<&(Millis, DeviceName)> {
        self.tally.baking.first()
    }

    /// The device that is in a phase for longest, and since when.
    pub(super) fn longest_in(&self, phase: Phase) -> Option<&(Millis, DeviceName)> {
        self.tally.phases[phase as usize].first()
    }

    /// The device that is held and whose window opens first, and when.
    pub(super) fn held_shortest(&self) -> Option<&(Millis, DeviceName)> {
        self.tally.held.first().filter(|(until, _)| *until < NEVER)
    }

    /// Whether the counts that were kept along are those that a walk over all devices gives.
    pub fn counts_hold(&self, plan: &RolloutPlan) -> bool {
        let state = |device: &DeviceName| self.get(device).cloned();
        let walked = Self::walk(plan, |d| state(d).unwrap_or(DeviceRollout::Waiting));
        *self == walked
    }
}

impl PartialEq<BTreeMap<DeviceName, DeviceRollout>> for Devices {
    fn eq(&self, other: &BTreeMap<DeviceName, DeviceRollout>) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}
