//! Cards that are put into other boards: code of two kinds, of which one board runs both and prefers
//! the first, and the other board runs the second only.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::assignment::Assignment;
use crate::digest::{ArtefactRef, Digest};
use crate::invariants;
use crate::manifest::{NativeCode, VersionManifest};
use crate::names::DeviceName;
use crate::profile::PowerState;
use crate::target::Target;
use crate::telemetry::{FailureKind, ModelPhase};
use crate::testing;
use crate::time::Millis;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Code of the better board.
const BEST: Target = Target::CortexA76;
/// Code that both boards run.
const PLAIN: Target = Target::CortexA53;

fn version(name: &str) -> VersionManifest {
    let mut variant = testing::variant(name, "large", 0.9, 1_000_000);
    variant.native = [BEST, PLAIN]
        .map(|target| {
            let bytes = format!("{name}/{target}");
            let artefact = ArtefactRef::of(bytes.as_bytes());
            let runtime_key = testing::RUNTIME.to_owned();
            (
                target,
                NativeCode {
                    artefact,
                    runtime_key,
                },
            )
        })
        .into();
    testing::manifest(name, vec![variant])
}

fn code(name: &str, target: Target) -> Digest {
    version(name).variants[0].native[&target].artefact.digest
}

fn assignment(generation: u64, version: &str) -> Assignment {
    let mut assignment = properties::assignment(generation, version);
    let large = [(PowerState::Mains, testing::variant_name("large"))];
    for model in assignment.models.values_mut() {
        Arc::make_mut(&mut model.ladder).rungs = large.clone().into();
    }
    assignment
}

fn machine(state: DeviceState, board: &[Target], files: &BTreeSet<ArtefactRef>) -> Reconciler {
    Reconciler::new(
        state,
        board.to_vec(),
        [testing::RUNTIME.to_owned()].into(),
        DeviceName::new("pi-1").unwrap(),
    )
    .found(|artefact| files.contains(&artefact))
}

/// A board with a card, and a driver that checks every effect.
struct Board {
    machine: Reconciler,
    runs: Vec<Target>,
    state: DeviceState,
    files: BTreeSet<ArtefactRef>,
    asked: BTreeSet<ArtefactRef>,
    now: Millis,
    /// What is starting: its version and code, the last one last.
    starting: Vec<(String, Digest)>,
    /// What is loaded and what answers, in the same terms.
    loaded: BTreeSet<(String, Digest)>,
    serves: Option<(String, Digest)>,
    failed: BTreeSet<Digest>,
}

impl Board {
    fn new(runs: &[Target]) -> Self {
        let (state, files) = Default::default();
        Self {
            machine: machine(DeviceState::default(), runs, &files),
            runs: runs.to_vec(),
            state,
            files,
            asked: BTreeSet::new(),
            now: Millis(0),
            starting: Vec::new(),
            loaded: BTreeSet::new(),
            serves: None,
            failed: BTreeSet::new(),
        }
    }

    fn send(&mut self, event: DeviceEvent) {
        let effects = self.machine.handle(self.now, event);
        invariants::device_state(self.machine.state()).unwrap();
        for effect in effects {
            self.perform(effect);
        }
        assert_eq!(
            self.state,
            *self.machine.state(),
            "a change was not persisted"
        );
        let told = self.machine.serving(&testing::model_name());
        let told = told.map(|s| (s.version.to_string(), s.code));
        assert_eq!(
            told, self.serves,
            "it tells of other code than what answers"
        );
    }

    fn perform(&mut self, effect: DeviceEffect) {
        match effect {
            DeviceEffect::Persist => self.state = self.machine.state().clone(),
            DeviceEffect::Fetch { artefacts, .. } => self.asked.extend(artefacts),
            DeviceEffect::StartRunner {
                version, variant, ..
            } => {
                let model = testing::model_name();
                let (manifest, target) = self.machine.runnable(&model, &version, &variant).unwrap();
                let artefact = manifest.native[&target].artefact;
                assert!(
                    self.runs.contains(&target),
                    "this board cannot run {target}"
                );
                assert!(
                    self.files.contains(&artefact),
                    "code for {target} is not here"
                );
                assert!(
                    !self.failed.contains(&artefact.digest),
                    "failed code is retried"
                );
                self.starting.retain(|(v, _)| *v != version.as_str());
                self.starting.push((version.to_string(), artefact.digest));
            }
            DeviceEffect::Switch { version, .. } => {
                let mut all = self.loaded.iter();
                let ready = all.rfind(|(v, _)| *v == version.as_str()).cloned();
                self.serves = Some(ready.expect("what is switched to is loaded"));
            }
            DeviceEffect::StopRunner { version, .. } => {
                assert!(
                    self.serves
                        .as_ref()
                        .is_none_or(|(v, _)| *v != version.as_str()),
                    "stopped what serves"
                );
                self.loaded.retain(|(v, _)| *v != version.as_str());
                self.starting.retain(|(v, _)| *v != version.as_str());
            }
            DeviceEffect::Collect => {
                let live = self.machine.live_artefacts();
                self.files.retain(|f| live.contains(&f.digest));
            }
            _ => {}
        }
    }

    fn assign(&mut self, name: &str) {
        let generation = self.state.generation.0 + 1;
        let event = DeviceEvent::Assigned(assignment(generation, name), vec![version(name)]);
        self.send(event);
    }

    fn fetch(&mut self) {
        for artefact in std::mem::take(&mut self.asked) {
            if !self.machine.live_artefacts().contains(&artefact.digest) {
                continue; // Not wanted any more.
            }
            self.files.insert(artefact);
            self.send(DeviceEvent::Fetched(artefact));
        }
    }

    fn ready(&mut self) {
        if let Some((version, code)) = self.starting.pop() {
            // A runner of the same variant is replaced.
            self.loaded.retain(|(v, _)| *v != version);
            self.loaded.insert((version.clone(), code));
            self.send(DeviceEvent::RunnerReady {
                model: testing::model_name(),
                version: testing::version_name(&version),
                variant: testing::variant_name("large"),
            });
        }
    }

    fn fail(&mut self) {
        if let Some((version, code)) = self.starting.pop() {
            self.failed.insert(code);
            self.send(DeviceEvent::RunnerFailed {
                model: testing::model_name(),
                version: testing::version_name(&version),
                variant: testing::variant_name("large"),
                kind: FailureKind::SelfTest,
                message: "the output is not finite".to_owned(),
            });
        }
    }

    fn die(&mut self) {
        if let Some(served) = self.serves.take() {
            self.loaded.remove(&served);
            self.send(DeviceEvent::RunnerDied {
                model: testing::model_name(),
                version: testing::version_name(&served.0),
                variant: testing::variant_name("large"),
                message: "killed by signal 9".to_owned(),
            });
        }
    }

    /// The card starts in a board that runs these.
    fn start(&mut self, runs: &[Target]) {
        self.runs = runs.to_vec();
        self.machine = machine(self.state.clone(), runs, &self.files);
        self.serves = None;
        (self.starting, self.loaded, self.asked) = Default::default();
        self.send(DeviceEvent::Tick);
    }

    fn install(&mut self, name: &str) {
        self.assign(name);
        self.fetch();
        self.ready();
    }

    fn serves(&self, name: &str, target: Target) -> bool {
        self.serves == Some((name.to_owned(), code(name, target)))
    }

    fn phase(&self) -> ModelPhase {
        self.machine.statuses()[0].phase
    }

    fn holds(&self, digest: Digest) -> bool {
        self.files.iter().any(|f| f.digest == digest)
    }
}

#[test]
fn a_better_board_serves_what_the_card_holds_and_moves_to_better_code_without_a_gap() {
    let mut board = Board::new(&[PLAIN]);
    board.install("v1");
    board.start(&[BEST, PLAIN]);
    board.ready();
    assert!(
        board.serves("v1", PLAIN),
        "at once, and without a controller"
    );
    assert_eq!(board.phase(), ModelPhase::Serving);
    board.fetch();
    assert!(board.serves("v1", PLAIN), "until the other one is ready");
    board.ready();
    assert!(board.serves("v1", BEST));
    assert!(!board.holds(code("v1", PLAIN)), "it takes room");
    board.start(&[BEST, PLAIN]);
    board.ready();
    assert!(board.serves("v1", BEST));
}

#[test]
fn better_code_that_fails_leaves_what_serves() {
    let mut board = Board::new(&[PLAIN]);
    board.install("v1");
    board.start(&[BEST, PLAIN]);
    board.ready();
    board.fetch();
    board.fail();
    assert!(board.serves("v1", PLAIN));
    assert_eq!(board.phase(), ModelPhase::Serving);
    board.start(&[BEST, PLAIN]);
    board.ready();
    assert!(board.serves("v1", PLAIN));
    assert!(board.asked.is_empty(), "it is asked for again");
}

#[test]
fn a_power_cut_before_better_code_was_tested_costs_nothing() {
    let mut board = Board::new(&[PLAIN]);
    board.install("v1");
    board.start(&[BEST, PLAIN]);
    board.ready();
    board.fetch();
    board.start(&[BEST, PLAIN]);
    board.fail();
    board.ready();
    assert!(
        board.serves("v1", PLAIN),
        "the code that was tested is here still"
    );
}

#[test]
fn a_board_that_cannot_run_the_code_fetches_its_own() {
    let mut board = Board::new(&[BEST, PLAIN]);
    board.install("v1");
    assert!(board.serves("v1", BEST));
    board.start(&[PLAIN]);
    assert_eq!(board.phase(), ModelPhase::Fetching);
    assert!(board.starting.is_empty());
    board.fetch();
    board.ready();
    assert!(board.serves("v1", PLAIN));
    assert_eq!(board.phase(), ModelPhase::Serving);
}

#[test]
fn a_better_board_on_which_the_old_code_fails_fetches_the_other() {
    let mut board = Board::new(&[PLAIN]);
    board.install("v1");
    board.start(&[BEST, PLAIN]);
    board.fail();
    assert_eq!(board.phase(), ModelPhase::Fetching);
    board.fetch();
    board.ready();
    assert!(board.serves("v1", BEST));
}

#[test]
fn a_version_that_is_assigned_again_while_its_better_code_starts_is_told_by_the_code_that_answers()
{
    let mut board = Board::new(&[PLAIN]);
    board.install("v1");
    board.install("v2");
    board.start(&[BEST, PLAIN]);
    board.ready();
    board.fetch();
    board.assign("v1");
    board.ready();
    assert!(board.serves("v1", PLAIN));
    board.assign("v2");
    assert!(
        board.serves("v2", PLAIN),
        "its better code has not loaded yet"
    );
    board.ready();
    assert!(board.serves("v2", BEST));
}

#[test]
fn better_code_that_cannot_be_fetched_is_given_up_until_the_next_start() {
    let mut board = Board::new(&[PLAIN]);
    board.install("v1");
    board.start(&[BEST, PLAIN]);
    board.ready();
    for attempt in 1..=MAX_FETCH_FAILURES {
        let artefact = board.asked.pop_first().expect("it is asked for");
        board.send(DeviceEvent::FetchFailed {
            artefact,
            kind: FailureKind::Fetch,
            message: "chunk 3 is corrupt".to_owned(),
        });
        let due = board.machine.next_deadline();
        assert_eq!(due.is_some(), attempt < MAX_FETCH_FAILURES);
        if let Some((at, _)) = due {
            board.now = at;
            board.send(DeviceEvent::Tick);
        }
    }
    assert!(board.serves("v1", PLAIN));
    assert_eq!(board.phase(), ModelPhase::Serving);
    board.start(&[BEST, PLAIN]);
    assert!(!board.asked.is_empty());
}

proptest! {
    #[test]
    fn wherever_the_card_goes_it_serves_what_it_may_and_ends_with_the_best(
        events in prop::collection::vec((0u8..10, 0u64..30_000), 1..80),
    ) {
        let boards: [&[Target]; 2] = [&[BEST, PLAIN], &[PLAIN]];
        let mut board = Board::new(boards[0]);
        board.install("v1");
        let (mut failures, mut deaths) = (0, 0);
        for (kind, wait) in events {
            board.now = board.now.plus(std::time::Duration::from_millis(wait));
            match kind {
                0 => board.assign("v1"),
                1 => board.assign("v2"),
                2 | 3 => board.fetch(),
                4 | 5 => board.ready(),
                6 if failures < 1 => {
                    failures += usize::from(!board.starting.is_empty());
                    board.fail();
                }
                // Fewer than make a version a failed one.
                7 if deaths + 1 < MAX_DEATHS => {
                    deaths += usize::from(board.serves.is_some());
                    board.die();
                }
                8 => board.start(boards[0]),
                9 => board.start(boards[1]),
                _ => board.send(DeviceEvent::Tick),
            }
        }
        // A version that nothing is wrong with.
        board.assign("v3");
        for _ in 0..8 {
            board.fetch();
            board.ready();
        }
        let best = board.runs[0];
        prop_assert!(board.serves("v3", best), "{:?}", board.serves);
        prop_assert_eq!(board.phase(), ModelPhase::Serving);
        let other = boards[board.runs.len() - 1];
        board.start(other);
        board.ready();
        let can = other.contains(&best);
        prop_assert!(!can || board.serves("v3", best));
        for _ in 0..4 {
            board.fetch();
            board.ready();
        }
        prop_assert!(board.serves("v3", other[0]), "{:?}", board.serves);
    }
}
