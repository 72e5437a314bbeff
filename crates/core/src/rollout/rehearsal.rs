//! The rollout machine driven through a plan under a clock of its own.

use super::course::course;
use super::forecast::Times;
use super::machine::{RolloutEffect, RolloutEvent};
use super::plan::RolloutPlan;
use super::state::{Rollout, RolloutState};
use crate::bandwidth::Budget;
use crate::digest::Digest;
use crate::names::{DeploymentName, DeviceName};
use crate::profile::PowerState;
use crate::telemetry::{ModelPhase, ModelStatus, Serving};
use crate::time::Millis;
use crate::window::Schedule;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

/// Steps of the machine per device that a forecast may take: a device is held, is assigned, waits for
/// windows, serves, has proved itself and has baked. A download may be cut by many windows.
const STEPS: usize = 64;

/// What a device has to do.
struct Work {
    ms: u64,
    bytes: u64,
    budgets: Vec<Budget>,
}

/// What a device reports. Of one moment, what was queued first comes first.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Word {
    at: Millis,
    number: u64,
    device: DeviceName,
    phase: ModelPhase,
    inferences: u64,
}

impl Ord for Word {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl PartialOrd for Word {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// The machine on its way through the plan.
pub(super) struct Rehearsal {
    rollout: Rollout,
    now: Millis,
    prove_ms: u64,
    takes: BTreeMap<DeviceName, Work>,
    /// When each budget of bandwidth has sent all that was asked of it so far.
    links: BTreeMap<Arc<str>, Millis>,
    /// When a device reports, in order of time.
    due: BinaryHeap<Reverse<Word>>,
    said: u64,
    pub(super) times: Times,
}

impl Rehearsal {
    /// Devices that serve have served enough after so many milliseconds.
    pub(super) fn new(plan: &RolloutPlan, now: Millis, prove_ms: u64) -> Self {
        let mut plan = plan.clone();
        plan.spec.gates = None;
        let all = plan.waves.iter().flatten();
        let takes = all.map(|d| {
            let bandwidth = plan.spec.bandwidth.as_ref();
            let budgets = bandwidth.map(|b| b.budgets("", d.link.as_deref()));
            let work = Work {
                ms: d.work_ms(),
                bytes: d.download_bytes,
                budgets: budgets.unwrap_or_default(),
            };
            (d.device.clone(), work)
        });
        let takes: BTreeMap<_, _> = takes.collect();
        Self {
            takes,
            links: BTreeMap::new(),
            rollout: Rollout::new(plan, "forecast", now),
            now,
            prove_ms,
            due: BinaryHeap::new(),
            said: 0,
            times: Times::new(),
        }
    }

    /// Says why it did not get through.
    pub(super) fn through(&mut self) -> Option<String> {
        let actor = "forecast".to_owned();
        self.handle(RolloutEvent::Start { actor });
        let devices = self.rollout.devices.len();
        let most = devices.saturating_add(64).saturating_mul(STEPS);
        for _ in 0..most {
            match &self.rollout.state {
                RolloutState::Promoted => return None,
                RolloutState::RollingBack { why, .. } => return Some(why.clone()),
                RolloutState::AwaitingApproval { .. } => {
                    let (actor, why) = ("forecast".to_owned(), None);
                    self.handle(RolloutEvent::Approve { actor, why });
                    continue;
                }
                RolloutState::Planned
                | RolloutState::Running { .. }
                | RolloutState::Paused { .. }
                | RolloutState::RolledBack { .. }
                | RolloutState::Superseded => {}
            }
            let reports = self.due.peek().map(|Reverse(word)| word.at);
            let deadline = self.rollout.next_deadline().map(|(at, _)| at);
            let Some(at) = reports.into_iter().chain(deadline).min() else {
                break;
            };
            self.now = self.now.max(at);
            let event = match self.due.peek() {
                Some(Reverse(word)) if word.at <= at => self.report(),
                _ => RolloutEvent::Tick,
            };
            self.handle(event);
        }
        Some(format!("it stays {}", self.rollout.state.word()))
    }

    fn report(&mut self) -> RolloutEvent {
        let Some(Reverse(word)) = self.due.pop() else {
            return RolloutEvent::Tick;
        };
        RolloutEvent::Reported {
            status: Some(Box::new(self.status(word.phase))),
            device: word.device,
            inferences: word.inferences,
            measured: None,
        }
    }

    fn status(&self, phase: ModelPhase) -> ModelStatus {
        let plan = &self.rollout.plan;
        let deployment: &DeploymentName = &plan.spec.deployment;
        let first = plan.waves.iter().flatten().next();
        let serves = phase == ModelPhase::Serving;
        ModelStatus {
            deployment: deployment.clone(),
            model: plan.model.clone(),
            wanted: plan.spec.version.clone(),
            phase,
            serving: first.filter(|_| serves).map(|d| Serving {
                version: plan.spec.version.clone(),
                variant: d.expected.variant.clone(),
                code: Digest::of(b""),
                power_state: PowerState::Mains,
            }),
            failure: None,
            fetched_bytes: 0,
            needed_bytes: 0,
        }
    }

    fn handle(&mut self, event: RolloutEvent) {
        let before = wave(&self.rollout.state);
        for effect in self.rollout.handle(self.now, event) {
            if let RolloutEffect::Assign {
                device, schedule, ..
            } = effect
            {
                self.moves(&device, schedule.as_deref());
            }
        }
        let after = wave(&self.rollout.state);
        if before != after {
            if let Some(wave) = before {
                self.times.entry(wave).or_default().1 = Some(self.now);
            }
            if let Some(wave) = after {
                self.times.entry(wave).or_default().0 = Some(self.now);
            }
        }
    }

    /// Queues what a device is going to report that was told now.
    fn moves(&mut self, device: &DeviceName, schedule: Option<&Schedule>) {
        let least = self.rollout.plan.spec.min_inferences;
        let work_ms = self.work_ms(device);
        for (at, phase) in course(schedule, self.now, work_ms).unwrap_or_default() {
            let proves = phase == ModelPhase::Serving;
            let proved = at.plus(Duration::from_millis(self.prove_ms));
            if !proves || proved > at {
                self.says(at, device, phase, 0);
            }
            if proves {
                self.says(proved, device, phase, least);
            }
        }
    }

    /// How long a device works that begins now: as long as by itself, and until the links that it
    /// shares have sent what was asked of them before and its own part. (They share fairly: the
    /// last is done when it would be if one were served after the other.)
    fn work_ms(&mut self, device: &DeviceName) -> u64 {
        let Some(work) = self.takes.get(device) else {
            return 0;
        };
        let mut most = work.ms;
        for budget in &work.budgets {
            let free = self.links.entry(Arc::clone(&budget.name)).or_default();
            let ms = work
                .bytes
                .saturating_mul(1_000)
                .div_ceil(budget.bytes_per_s);
            *free = (*free).max(self.now).plus(Duration::from_millis(ms));
            let wait = u64::try_from(free.since(self.now).as_millis()).unwrap_or(u64::MAX);
            most = most.max(wait);
        }
        most
    }

    fn says(&mut self, at: Millis, device: &DeviceName, phase: ModelPhase, inferences: u64) {
        let (number, device) = (self.said, device.clone());
        self.said += 1;
        self.due.push(Reverse(Word {
            at,
            number,
            device,
            phase,
            inferences,
        }));
    }
}

fn wave(state: &RolloutState) -> Option<usize> {
    match state {
        RolloutState::Running { wave, .. } => Some(*wave),
        _ => None,
    }
}
