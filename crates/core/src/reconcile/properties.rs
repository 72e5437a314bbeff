//! The agent's machine under random sequences of events, with a driver that checks every effect.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::assignment::{AssignedModel, Assignment, Generation, Ladder};
use crate::digest::Digest;
use crate::invariants;
use crate::manifest::VersionManifest;
use crate::names::{DeploymentName, DeviceName, VariantName, VersionName};
use crate::profile::PowerState;
use crate::target::Target;
use crate::telemetry::{FailureKind, ModelPhase};
use crate::testing;
use crate::time::Millis;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

type Key = (VersionName, VariantName);

fn version(name: &str) -> VersionManifest {
    let variants = ["large", "tiny"].map(|v| testing::variant(name, v, 0.9, 1_000_000));
    testing::manifest(name, variants.into())
}

pub(super) fn assignment(generation: u64, version: &str) -> Assignment {
    let rungs = [
        (PowerState::Mains, testing::variant_name("large")),
        (PowerState::Low, testing::variant_name("tiny")),
    ];
    let model = AssignedModel {
        schedule: None,
        deployment: DeploymentName::new("activity").unwrap(),
        model: testing::model_name(),
        version: testing::version_name(version),
        ladder: Ladder {
            rungs: rungs.into(),
            low_percent: 40,
            critical_percent: 15,
        }
        .into(),
        latency_slo_us: None,
    };
    Assignment {
        device: DeviceName::new("pi-1").unwrap(),
        generation: Generation(generation),
        agent: None,
        models: [(testing::model_name(), model)].into(),
    }
}

fn machine(state: DeviceState) -> Reconciler {
    Reconciler::new(
        state,
        vec![Target::X8664V2],
        [testing::RUNTIME.to_owned()].into(),
        DeviceName::new("pi-1").unwrap(),
    )
}

/// A driver that performs effects on paper and checks what must hold of them.
struct Driver {
    machine: Reconciler,
    disk: DeviceState,
    now: Millis,
    runners: BTreeMap<Key, bool>,
    routed: Option<Key>,
    condemned: BTreeSet<Digest>,
    refusals: usize,
}

impl Driver {
    fn new() -> Self {
        let state = DeviceState::default();
        Self {
            machine: machine(state.clone()),
            disk: state,
            now: Millis(0),
            runners: BTreeMap::new(),
            routed: None,
            condemned: BTreeSet::new(),
            refusals: 0,
        }
    }

    fn code(&self, key: &Key) -> Digest {
        let (variant, target) = self
            .machine
            .runnable(&testing::model_name(), &key.0, &key.1)
            .unwrap();
        variant.native[&target].artefact.digest
    }

    fn send(&mut self, event: DeviceEvent) -> Vec<DeviceEffect> {
        let generation = self.machine.state().generation;
        let effects = self.machine.handle(self.now, event);
        assert!(self.machine.state().generation >= generation);
        invariants::device_state(self.machine.state()).unwrap();
        for effect in &effects {
            self.perform(effect);
        }
        assert_eq!(
            self.disk,
            *self.machine.state(),
            "a change was not persisted"
        );
        // Whatever serves was not taken away without something to take its place.
        if let Some(routed) = &self.routed {
            assert!(self.runners.contains_key(routed), "requests go nowhere");
        }
        effects
    }

    fn perform(&mut self, effect: &DeviceEffect) {
        match effect.clone() {
            DeviceEffect::Persist => self.disk = self.machine.state().clone(),
            DeviceEffect::StartRunner {
                version, variant, ..
            } => {
                assert_eq!(
                    self.disk,
                    *self.machine.state(),
                    "started before persisting"
                );
                let key = (version, variant);
                assert!(
                    !self.condemned.contains(&self.code(&key)),
                    "failed code is retried"
                );
                assert!(self.runners.insert(key, false).is_none(), "started twice");
            }
            DeviceEffect::Switch {
                version, variant, ..
            } => {
                assert_eq!(
                    self.disk,
                    *self.machine.state(),
                    "switched before persisting"
                );
                let key = (version, variant);
                assert_eq!(
                    self.runners.get(&key),
                    Some(&true),
                    "switched to what is not ready"
                );
                self.routed = Some(key);
            }
            DeviceEffect::StopRunner {
                version, variant, ..
            } => {
                let key = (version, variant);
                let assigned = !self.machine.state().models.is_empty();
                assert!(
                    !assigned || self.routed.as_ref() != Some(&key),
                    "stopped what serves"
                );
                if self.routed.as_ref() == Some(&key) {
                    self.routed = None;
                }
                assert!(
                    self.runners.remove(&key).is_some(),
                    "stopped what does not run"
                );
            }
            DeviceEffect::Refuse(_) => self.refusals += 1,
            DeviceEffect::Fetch { .. }
            | DeviceEffect::StopFetch { .. }
            | DeviceEffect::Report
            | DeviceEffect::Collect => {}
        }
    }

    fn fetch_all(&mut self) {
        let slot = self.machine.state().models.values().next();
        let Some(pending) = slot.and_then(|s| s.pending.clone()) else {
            return;
        };
        for variant in &pending.manifest.variants {
            for artefact in variant.artefacts_for(Target::X8664V2).unwrap() {
                self.send(DeviceEvent::Fetched(artefact));
            }
        }
    }

    fn pick(&self, ready: bool) -> Option<Key> {
        let mut all = self.runners.iter().filter(|(_, r)| **r == ready);
        all.next().map(|(key, _)| key.clone())
    }

    fn make_ready(&mut self) {
        if let Some((version, variant)) = self.pick(false) {
            self.runners
                .insert((version.clone(), variant.clone()), true);
            let model = testing::model_name();
            self.send(DeviceEvent::RunnerReady {
                model,
                version,
                variant,
            });
        }
    }

    fn fail(&mut self) {
        if let Some(key) = self.pick(false) {
            self.condemned.insert(self.code(&key));
            self.runners.remove(&key);
            self.send(DeviceEvent::RunnerFailed {
                model: testing::model_name(),
                version: key.0,
                variant: key.1,
                kind: FailureKind::SelfTest,
                message: "the output is not finite".to_owned(),
            });
        }
    }

    /// What serves dies.
    fn die(&mut self) {
        self.lose(self.routed.clone());
    }

    fn lose(&mut self, key: Option<Key>) {
        if let Some(key) = key {
            self.runners.remove(&key);
            if self.routed.as_ref() == Some(&key) {
                self.routed = None;
            }
            self.send(DeviceEvent::RunnerDied {
                model: testing::model_name(),
                version: key.0,
                variant: key.1,
                message: "killed by signal 9".to_owned(),
            });
        }
    }

    /// The agent hung over what serves, and another one starts from the disk.
    fn hang(&mut self, lived: Duration) {
        let (version, variant) = self.routed.clone().unwrap();
        self.machine = machine(self.disk.clone());
        self.runners.clear();
        self.routed = None;
        self.send(DeviceEvent::Hung {
            model: testing::model_name(),
            version,
            variant,
            lived,
        });
        self.send(DeviceEvent::Tick);
        self.make_ready();
    }

    /// Loses everything volatile and starts from the disk.
    fn reboot(&mut self) {
        self.machine = machine(self.disk.clone());
        self.runners.clear();
        self.routed = None;
        self.send(DeviceEvent::Tick);
    }

    fn assign(&mut self, generation: u64, name: &str) {
        let event = DeviceEvent::Assigned(assignment(generation, name), vec![version(name)]);
        self.send(event);
    }

    fn install(&mut self, generation: u64, name: &str) {
        self.assign(generation, name);
        self.fetch_all();
        self.make_ready();
    }

    fn phase(&self) -> ModelPhase {
        self.machine.statuses()[0].phase
    }

    fn serves(&self) -> Option<(String, String)> {
        let key = self.routed.as_ref()?;
        Some((key.0.to_string(), key.1.to_string()))
    }
}

fn pair(version: &str, variant: &str) -> Option<(String, String)> {
    Some((version.to_owned(), variant.to_owned()))
}

proptest! {
    #[test]
    fn no_sequence_of_events_breaks_an_invariant(
        events in prop::collection::vec((0u8..12, 0u64..6, 0usize..3, 0u64..30_000), 1..100),
    ) {
        let mut driver = Driver::new();
        for (kind, generation, version, wait) in events {
            driver.now = Millis(driver.now.0 + wait);
            let name = ["v1", "v2", "v3"][version];
            match kind {
                0 | 1 => driver.assign(driver.disk.generation.0 + generation, name),
                2 => driver.assign(generation, name),
                3 | 4 => driver.fetch_all(),
                5 | 6 => driver.make_ready(),
                7 => driver.fail(),
                8 if generation < 3 => driver.die(),
                8 => driver.lose(driver.pick(true)),
                9 => driver.reboot(),
                10 => {
                    let power = PowerState::ALL[generation as usize % 4];
                    driver.send(DeviceEvent::PowerState(power));
                }
                _ => {
                    driver.send(DeviceEvent::Tick);
                }
            }
            let json = serde_json::to_vec(&driver.disk).unwrap();
            prop_assert_eq!(&serde_json::from_slice::<DeviceState>(&json).unwrap(), &driver.disk);
        }
    }
}

#[test]
fn the_old_version_serves_until_the_new_one_is_ready_and_stays_if_it_fails() {
    let mut driver = Driver::new();
    driver.install(1, "v1");
    assert_eq!(driver.serves(), pair("v1", "large"));
    assert_eq!(driver.phase(), ModelPhase::Serving);
    driver.assign(2, "v2");
    assert_eq!(driver.phase(), ModelPhase::Fetching);
    driver.fetch_all();
    assert_eq!(driver.phase(), ModelPhase::Testing);
    assert_eq!(driver.serves(), pair("v1", "large"));
    driver.fail();
    assert_eq!(driver.phase(), ModelPhase::Failed);
    assert_eq!(driver.serves(), pair("v1", "large"));
    // The same code under a newer generation is not tried again.
    driver.assign(3, "v2");
    assert_eq!(driver.phase(), ModelPhase::Failed);
    driver.assign(4, "v1");
    assert_eq!(driver.phase(), ModelPhase::Serving);
}

#[test]
fn a_crash_loop_goes_back_to_the_version_before() {
    let mut driver = Driver::new();
    driver.install(1, "v1");
    driver.install(2, "v2");
    assert_eq!(driver.serves(), pair("v2", "large"));
    for _ in 1..MAX_DEATHS {
        driver.die();
        driver.make_ready();
    }
    driver.die();
    // Its runner was kept for this, so nothing has to be loaded.
    assert_eq!(driver.serves(), pair("v1", "large"));
    let status = driver.machine.statuses().remove(0);
    assert_eq!(status.failure.unwrap().kind, FailureKind::Crash);
}

#[test]
fn fault_34_a_version_over_which_the_agent_hangs_is_started_again_and_given_up_after_its_budget() {
    let mut driver = Driver::new();
    driver.install(1, "v1");
    driver.install(2, "v2");
    let soon = Duration::from_secs(60);
    for _ in 1..MAX_HANGS {
        driver.hang(soon);
        assert_eq!(driver.serves(), pair("v2", "large"));
    }
    // An agent that lived for long begins a new row.
    driver.hang(HANG_WINDOW + soon);
    assert_eq!(driver.serves(), pair("v2", "large"));
    for _ in 2..MAX_HANGS {
        driver.hang(soon);
        assert_eq!(driver.serves(), pair("v2", "large"));
    }
    driver.hang(soon);
    assert_eq!(driver.serves(), pair("v1", "large"));
    let status = driver.machine.statuses().remove(0);
    assert_eq!(status.failure.unwrap().kind, FailureKind::Crash);
    // Never again, whoever assigns it.
    driver.assign(3, "v2");
    driver.fetch_all();
    assert_eq!(driver.serves(), pair("v1", "large"));
    // The last one that is left is given up too, rung by rung: the agent lives, and tells why.
    for _ in 0..MAX_HANGS {
        driver.hang(soon);
    }
    assert_eq!(driver.serves(), pair("v1", "tiny"));
    for _ in 0..MAX_HANGS {
        driver.hang(soon);
    }
    assert_eq!(driver.serves(), None);
    assert_eq!(driver.phase(), ModelPhase::Failed);
}

#[test]
fn the_runner_before_is_kept_until_the_probation_ends() {
    let mut driver = Driver::new();
    driver.install(1, "v1");
    assert_eq!(driver.runners.len(), 1, "nothing was before");
    driver.install(2, "v2");
    assert_eq!(driver.runners.len(), 2);
    let (at, _) = driver.machine.next_deadline().unwrap();
    assert_eq!(at, driver.now.plus(PROBATION));
    driver.now = Millis(at.0 - 1);
    driver.send(DeviceEvent::Tick);
    assert_eq!(driver.runners.len(), 2);
    driver.now = at;
    driver.send(DeviceEvent::Tick);
    assert_eq!(
        driver.runners.keys().cloned().collect::<Vec<_>>(),
        [driver.routed.clone().unwrap()]
    );
    assert_eq!(driver.machine.next_deadline(), None);
}

#[test]
fn a_spare_runner_is_neither_missed_nor_kept_beside_two_others() {
    let mut driver = Driver::new();
    driver.install(1, "v1");
    driver.install(2, "v2");
    let spare = driver
        .runners
        .keys()
        .find(|k| Some(*k) != driver.routed.as_ref());
    driver.lose(spare.cloned());
    assert_eq!(driver.runners.len(), 1, "it was started anew");
    assert_eq!(driver.phase(), ModelPhase::Serving);
    driver.install(3, "v1");
    assert_eq!(driver.runners.len(), 2);
    driver.assign(4, "v3");
    assert_eq!(
        driver.runners.len(),
        2,
        "fetching needs no memory of a runner"
    );
    driver.fetch_all();
    assert_eq!(driver.runners.len(), 2, "three at a time");
    assert_eq!(driver.serves(), pair("v1", "large"));
}

#[test]
fn a_reboot_starts_the_active_version_at_once() {
    let mut driver = Driver::new();
    driver.install(1, "v1");
    driver.assign(2, "v2");
    driver.reboot();
    driver.make_ready();
    assert_eq!(driver.serves(), pair("v1", "large"));
}

#[test]
fn an_active_version_that_cannot_run_any_more_is_told_as_failed_when_assigned_again() {
    let mut driver = Driver::new();
    driver.install(1, "v1");
    driver.reboot();
    driver.fail();
    driver.fail();
    assert_eq!(driver.phase(), ModelPhase::Failed);
    driver.assign(2, "v1");
    assert_eq!(driver.phase(), ModelPhase::Failed);
    assert!(driver.runners.is_empty(), "nothing of it is tried again");
}

#[test]
fn the_device_climbs_without_a_controller() {
    let mut driver = Driver::new();
    driver.install(1, "v1");
    driver.send(DeviceEvent::PowerState(PowerState::Critical));
    assert_eq!(driver.serves(), pair("v1", "large"));
    driver.make_ready();
    assert_eq!(driver.serves(), pair("v1", "tiny"));
    assert_eq!(driver.runners.len(), 1);
}

#[test]
fn old_foreign_and_conflicting_assignments_are_refused() {
    let mut driver = Driver::new();
    driver.install(5, "v1");
    driver.assign(4, "v2");
    driver.assign(5, "v2");
    let mut foreign = assignment(9, "v2");
    foreign.device = DeviceName::new("pi-2").unwrap();
    driver.send(DeviceEvent::Assigned(foreign, vec![version("v2")]));
    driver.send(DeviceEvent::Assigned(assignment(9, "v2"), vec![]));
    assert_eq!(driver.refusals, 4);
    // The very same one is welcome.
    driver.assign(5, "v1");
    assert_eq!(driver.refusals, 4);
    assert_eq!(driver.serves(), pair("v1", "large"));
}

#[test]
fn a_failed_fetch_is_tried_again_and_then_given_up() {
    let mut driver = Driver::new();
    driver.assign(1, "v1");
    let artefact = version("v1").variants[0].golden.artefact;
    for attempt in 1..=MAX_FETCH_FAILURES {
        driver.send(DeviceEvent::FetchFailed {
            artefact,
            kind: FailureKind::Fetch,
            message: "chunk 3 is corrupt".to_owned(),
        });
        let Some((at, _)) = driver.machine.next_deadline() else {
            assert_eq!(attempt, MAX_FETCH_FAILURES);
            continue;
        };
        driver.now = at;
        let effects = driver.send(DeviceEvent::Tick);
        let refetches = |e: &DeviceEffect| matches!(e, DeviceEffect::Fetch { .. });
        assert!(effects.iter().any(refetches), "attempt {attempt}");
    }
    assert_eq!(driver.phase(), ModelPhase::Failed);
}
