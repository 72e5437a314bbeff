//! Faults by their numbers (`docs/faults.md`), each alone in a fleet that is otherwise well.
#![allow(clippy::unwrap_used)]

use sandpiper_core::assignment::{AssignedModel, Assignment, Generation, Ladder};
use sandpiper_core::event::Event;
use sandpiper_core::fleet::{Fleet, Published};
use sandpiper_core::manifest::VersionManifest;
use sandpiper_core::names::DeviceName;
use sandpiper_core::profile::PowerState;
use sandpiper_core::reconcile::{DeviceEffect, DeviceEvent, DeviceState, Reconciler, Refusal};
use sandpiper_core::ring::MAX_WINDOWS;
use sandpiper_core::rollout::{DeviceRollout, Rollout, RolloutState, SteerVerb};
use sandpiper_core::signed::Purpose;
use sandpiper_core::target::Target;
use sandpiper_core::time::Millis;
use sandpiper_sim::fault::{Fault, FaultKind, Lie};
use sandpiper_sim::outside::Weather;
use sandpiper_sim::scenario::{Scenario, Step};
use sandpiper_sim::sign::PUBLISHER;
use sandpiper_sim::truth::{Quality, RUNTIME, manifest, model};
use sandpiper_sim::world::{Ended, play};
use serde_json::json;
use std::sync::Arc;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const DEVICES: usize = 8;

fn rollout(version: &str, quality: Quality, more: serde_json::Value) -> Step {
    let mut spec = json!({
        "deployment": "activity",
        "version": version,
        "wave_deadline_s": 7_200,
        "bake_s": 60,
    });
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    let version = version.to_owned().try_into().unwrap();
    Step::Rollout(version, quality, serde_json::from_value(spec).unwrap())
}

/// v1 everywhere, then v2 after four hours: one device, then the others.
fn two_rollouts(quality: Quality) -> Vec<(u64, Step)> {
    vec![
        (30 * MINUTE, rollout("v1", Quality::Good, json!({}))),
        (
            4 * HOUR,
            rollout("v2", quality, json!({"waves": [{"count": 1}]})),
        ),
    ]
}

fn scenario(steps: Vec<(u64, Step)>, faults: Vec<(u64, FaultKind)>, end_at: u64) -> Scenario {
    let faults = faults.into_iter().map(|(at, kind)| Fault { at, kind });
    Scenario {
        seed: 5,
        devices: DEVICES,
        first: DEVICES,
        window_ms: 5 * MINUTE,
        steps,
        faults: faults.collect(),
        heal_at: end_at - 4 * HOUR,
        end_at,
    }
}

/// Runs it; whatever happens, no invariant may break.
fn run(scenario: &Scenario) -> (Ended, Fleet) {
    let ended = play(scenario);
    assert_eq!(ended.outcome.found, None);
    let fleet = ended.fleet.clone().unwrap();
    (ended, fleet)
}

fn events<'a>(fleet: &'a Fleet, reason: &'a str) -> impl Iterator<Item = &'a Event> {
    let events = fleet.events().iter().map(|(_, event)| event);
    events.filter(move |event| event.reason == reason)
}

fn newest(fleet: &Fleet) -> &Rollout {
    let all = fleet.rollouts().values();
    all.max_by_key(|rollout| rollout.created_at).unwrap()
}

fn name(number: usize) -> DeviceName {
    DeviceName::new(format!("pi-{number:03}")).unwrap()
}

/// Fault 10: a replayed assignment is refused by its generation.
#[test]
fn fault_10_a_replayed_assignment_is_refused_by_generation() {
    let faults = vec![(10 * HOUR, FaultKind::Replay { device: 2, back: 1 })];
    let (ended, fleet) = run(&scenario(two_rollouts(Quality::Good), faults, DAY));
    let refused: Vec<_> = events(&fleet, "AssignmentRefused").collect();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0].subject, "device/pi-002");
    let text = "generation 1 is older than 2, which this device has accepted";
    assert_eq!(refused[0].message, text);
    let state = ended.devices[2].machine().unwrap().state();
    assert_eq!(state.generation, Generation(2));
    let active = state.models[&model()].active.as_ref().unwrap();
    assert_eq!(active.version().as_str(), "v2");
}

/// Fault 11: another device's assignment is refused.
#[test]
fn fault_11_the_assignment_of_another_device_is_refused() {
    let foreign = FaultKind::Foreign { device: 2, from: 3 };
    let (_, fleet) = run(&scenario(
        two_rollouts(Quality::Good),
        vec![(10 * HOUR, foreign)],
        DAY,
    ));
    let refused: Vec<_> = events(&fleet, "AssignmentRefused").collect();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0].subject, "device/pi-002");
    assert_eq!(refused[0].message, "the assignment is for device pi-003");
}

/// What a device of these targets, which serves v1, does with an assignment of v2.
fn offered(targets: Vec<Target>, manifests: Vec<VersionManifest>, rung: &str) -> Refusal {
    let assigned = |version: &str, generation: u64, rung: &str| {
        let ladder = Ladder {
            rungs: [(PowerState::Mains, rung.to_owned().try_into().unwrap())].into(),
            low_percent: 40,
            critical_percent: 15,
        };
        let model = AssignedModel {
            deployment: "activity".to_owned().try_into().unwrap(),
            model: model(),
            version: version.to_owned().try_into().unwrap(),
            ladder: Arc::new(ladder),
            latency_slo_us: None,
            schedule: None,
        };
        Assignment {
            device: name(0),
            generation: Generation(generation),
            agent: None,
            models: [(model.model.clone(), model)].into(),
        }
    };
    let runtimes = [RUNTIME.to_owned()].into();
    let mut machine = Reconciler::new(DeviceState::default(), targets, runtimes, name(0));
    let v1 = manifest(&"v1".to_owned().try_into().unwrap(), Millis(0));
    let first = DeviceEvent::Assigned(assigned("v1", 1, "small"), vec![v1]);
    machine.handle(Millis(0), first);
    let before = machine.state().clone();
    assert_eq!(before.generation, Generation(1), "v1 is taken");
    let second = DeviceEvent::Assigned(assigned("v2", 2, rung), manifests);
    let effects = machine.handle(Millis(1), second);
    assert_eq!(*machine.state(), before, "nothing has changed");
    // Nothing is fetched, started or written.
    let mut all = effects.iter();
    let quiet = all.all(|e| matches!(e, DeviceEffect::Refuse(_) | DeviceEffect::Report));
    assert!(quiet, "{effects:?}");
    let refusal = effects.into_iter().find_map(|effect| match effect {
        DeviceEffect::Refuse(refusal) => Some(refusal),
        _ => None,
    });
    refusal.unwrap()
}

fn v2() -> VersionManifest {
    manifest(&"v2".to_owned().try_into().unwrap(), Millis(0))
}

/// Fault 12: other hardware class or CPU features: refused before download.
#[test]
fn fault_12_code_for_other_hardware_is_refused_before_download() {
    // Code for a core with other instructions only.
    let mut other = v2();
    for variant in &mut other.variants {
        variant
            .native
            .retain(|target, _| *target == Target::CortexA76);
    }
    let refused = offered(vec![Target::CortexA53], vec![other.clone()], "small");
    assert!(matches!(refused, Refusal::NoCode { .. }), "{refused}");
    // The controller does not even send it: who has no such core is left out of the plan.
    let mut steps = two_rollouts(Quality::Good);
    steps.truncate(1);
    let (_, mut fleet) = run(&scenario(steps, Vec::new(), DAY));
    let signed = PUBLISHER.sign(Purpose::Version, serde_json::to_vec(&other).unwrap());
    let published = Published {
        signed,
        manifest: other,
    };
    fleet.publish(Millis(0), "anna", published).unwrap();
    let Step::Rollout(_, _, spec) = rollout("v2", Quality::Good, json!({})) else {
        unreachable!("it is a rollout");
    };
    let plan = fleet.plan_rollout(*spec).unwrap();
    let has_core = |name: &DeviceName| {
        let profile = fleet.devices()[name].profile.as_ref().unwrap();
        profile.targets.contains(&Target::CortexA76)
    };
    assert!(plan.waves.iter().flatten().all(|d| has_core(&d.device)));
    assert!(plan.unfit.iter().all(|d| !has_core(&d.device)) && !plan.unfit.is_empty());
}

/// Fault 13: mixed model and runtime versions are refused.
#[test]
fn fault_13_mixed_versions_are_refused() {
    let here = vec![Target::CortexA53];
    // Code of the same version for another runtime.
    let mut other = v2();
    for code in other
        .variants
        .iter_mut()
        .flat_map(|v| v.native.values_mut())
    {
        code.runtime_key = "runtime-2".to_owned();
    }
    let refused = offered(here.clone(), vec![other], "small");
    assert!(matches!(refused, Refusal::NoCode { .. }), "{refused}");
    // A rung of which only another version has a variant.
    let mut fewer = v2();
    fewer.variants.retain(|v| v.name.as_str() != "small");
    let refused = offered(here.clone(), vec![fewer], "small");
    assert!(matches!(refused, Refusal::NoVariant { .. }), "{refused}");
    // The manifest of another version.
    let v1 = manifest(&"v1".to_owned().try_into().unwrap(), Millis(0));
    let refused = offered(here, vec![v1], "small");
    assert!(matches!(refused, Refusal::NoManifest { .. }), "{refused}");
}

/// Fault 20: the controller is killed in mid-rollout, before or after any commit: no wave is lost
/// or doubled.
#[test]
fn fault_20_a_killed_controller_loses_and_doubles_no_wave() {
    for commits in 0..10 {
        for before in [true, false] {
            let killed = FaultKind::ControllerKilled {
                commits,
                before,
                off_ms: 3 * MINUTE,
            };
            // Once the start of the rollout is committed, so that nobody asks for it again.
            let faults = vec![(4 * HOUR + 1, killed)];
            let (_, fleet) = run(&scenario(two_rollouts(Quality::Good), faults, DAY));
            assert_eq!(newest(&fleet).state, RolloutState::Promoted);
            assert_eq!(fleet.rollouts().len(), 2, "none was begun twice");
            for device in fleet.devices().values() {
                assert_eq!(device.generation, Generation(2), "{commits} {before}");
            }
        }
    }
}

/// Fault 21: of two controllers the stale one is fenced, and the rollout goes on under the other.
#[test]
fn fault_21_a_stale_leader_is_fenced() {
    for minutes in [0, 2, 6, 11] {
        let faults = vec![(4 * HOUR + minutes * MINUTE, FaultKind::TakenOver)];
        let (ended, fleet) = run(&scenario(two_rollouts(Quality::Good), faults, DAY));
        assert_eq!(ended.fenced, 1, "it noticed when it wanted to write");
        assert_eq!(newest(&fleet).state, RolloutState::Promoted);
        for device in fleet.devices().values() {
            assert_eq!(device.generation, Generation(2), "{minutes}");
        }
    }
}

/// Fault 23: duplicate id (cloned card): both are quarantined, and there is an alert.
#[test]
fn fault_23_a_cloned_card_is_quarantined_with_its_original() {
    let cloned = FaultKind::Cloned {
        device: 3,
        ms: 2 * HOUR,
    };
    let mut steps = two_rollouts(Quality::Good);
    let one = scenario(steps.clone(), vec![(2 * HOUR, cloned.clone())], DAY);
    let (ended, fleet) = run(&one);
    let alerts: Vec<_> = events(&fleet, "Quarantined").collect();
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    assert_eq!(alerts[0].subject, "device/pi-003");
    // Neither is heard, and the rollout passes the device by; both go on serving.
    let record = &fleet.devices()[&name(3)];
    assert!(record.quarantined.is_some() && fleet.stream(&name(3)).is_none());
    assert!(!newest(&fleet).devices.contains(&name(3)));
    let state = ended.devices[3].machine().unwrap().state();
    let active = state.models[&model()].active.as_ref().unwrap();
    assert_eq!(active.version().as_str(), "v1");
    // Released, it gets what it has missed.
    steps.push((10 * HOUR, Step::Release));
    let (_, fleet) = run(&scenario(steps, vec![(2 * HOUR, cloned)], DAY));
    let record = &fleet.devices()[&name(3)];
    assert_eq!(record.quarantined, None);
    assert_eq!(record.models[&model()].version.as_str(), "v2");
    assert!(fleet.stream(&name(3)).is_some());
}

fn learned(fleet: &Fleet, device: &DeviceName) -> u64 {
    let learned = fleet.learned().get(device);
    learned
        .into_iter()
        .flatten()
        .map(|(_, l)| l.inferences)
        .sum()
}

fn closed(ended: &Ended, device: &DeviceName) -> u64 {
    ended.checks.deeds[device].closed.values().sum()
}

/// Fault 36: a partition for 7 days: inference goes on, the ring is bounded, and it is back-filled
/// once, in order.
#[test]
fn fault_36_a_partition_for_seven_days() {
    let mut steps = two_rollouts(Quality::Good);
    steps.truncate(1);
    let cut = FaultKind::Partition {
        devices: vec![0],
        ms: 7 * DAY,
    };
    let mut long = scenario(steps, vec![(4 * HOUR, cut)], 8 * DAY);
    (long.devices, long.first) = (2, 2);
    // More windows than the ring holds.
    long.window_ms = 2 * MINUTE;
    let (ended, fleet) = run(&long);
    let gone = 7 * DAY / long.window_ms - MAX_WINDOWS as u64;
    let (open, lost) = ended.devices[0].windows().unwrap();
    assert!(open <= 4, "{open} windows wait");
    assert!((gone - 20..gone + 20).contains(&lost), "{lost} of {gone}");
    // It served as much as the other one by its clock, and what was kept was counted, once.
    let (served, counted) = (closed(&ended, &name(0)), learned(&fleet, &name(0)));
    let all = (8 * DAY / long.window_ms) as f64;
    let share = counted as f64 / served as f64;
    let kept = 1.0 - lost as f64 / all;
    assert!(
        counted < served && (share - kept).abs() < 0.02,
        "{share} of {kept}"
    );
}

/// Fault 37: duplicate or reordered telemetry is idempotent.
#[test]
fn fault_37_telemetry_that_comes_again_or_late_counts_once() {
    let mut steps = two_rollouts(Quality::Good);
    steps.truncate(1);
    let weather = Weather {
        loss: 0,
        twice: 500,
        overtake: 500,
        delay_ms: 20_000,
    };
    let replays = |device| FaultKind::Hostile {
        device,
        lie: Lie::Replays,
        ms: 10 * HOUR,
    };
    let faults = vec![
        (
            HOUR,
            FaultKind::Weather {
                weather,
                ms: 12 * HOUR,
            },
        ),
        (HOUR, replays(1)),
        (HOUR, replays(2)),
    ];
    let (ended, fleet) = run(&scenario(steps, faults, DAY));
    for number in 0..DEVICES {
        let (served, counted) = (
            closed(&ended, &name(number)),
            learned(&fleet, &name(number)),
        );
        // The newest windows may be on their way.
        assert!(counted <= served, "pi-{number}: {counted} of {served}");
        assert!(
            counted * 20 > served * 19,
            "pi-{number}: {counted} of {served}"
        );
    }
}

/// Fault 39: when the error budget is exceeded the rollout halts within one evaluation, and only an
/// operator lets it go on.
#[test]
fn fault_39_an_exceeded_error_budget_halts_at_once_until_an_operator_acts() {
    let mut steps = two_rollouts(Quality::FailsSelfTest);
    let (_, fleet) = run(&scenario(steps.clone(), Vec::new(), DAY));
    let stopped = newest(&fleet);
    let RolloutState::RolledBack { why } = &stopped.state else {
        panic!("{:?}", stopped.state);
    };
    assert!(why.starts_with("wave 1: 1 failed"), "{why}");
    // The report that exceeded it is the evaluation that stopped it.
    let failed: Vec<_> = events(&fleet, "DeviceFailed").collect();
    let back: Vec<_> = events(&fleet, "RollingBack").collect();
    assert_eq!((failed.len(), back.len()), (1, 1));
    assert_eq!(failed[0].at, back[0].at);
    let waiting = stopped.devices.states();
    let waiting = waiting.filter(|s| **s == DeviceRollout::Waiting).count();
    assert_eq!(waiting, DEVICES - 1, "nobody else has moved");
    // It stays so; an operator may try again.
    steps.push((12 * HOUR, Step::Steer(SteerVerb::Retry)));
    let (_, fleet) = run(&scenario(steps, Vec::new(), DAY));
    assert_eq!(fleet.rollouts().len(), 3);
    assert!(newest(&fleet).state.is_final());
}

/// Fault 40: silent devices count against success.
#[test]
fn fault_40_silent_devices_count_against_success() {
    let silent = |device| FaultKind::Silent {
        device,
        ms: 12 * HOUR,
    };
    let faults = vec![(3 * HOUR, silent(5)), (3 * HOUR, silent(6))];
    let (_, fleet) = run(&scenario(two_rollouts(Quality::Good), faults, DAY));
    let RolloutState::RolledBack { why } = &newest(&fleet).state else {
        panic!("{:?}", newest(&fleet).state);
    };
    let text = "wave 2: 0 failed, 2 unfinished at the deadline (pi-005 assigned, pi-006 assigned), 0 tolerated";
    assert_eq!(why, text);
}
