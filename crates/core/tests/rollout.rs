//! The rollout machine under random sequences of events.
#![allow(clippy::unwrap_used)]

mod fixtures;

use fixtures::{manifest, profile};
use proptest::prelude::*;
use sandpiper_core::digest::Digest;
use sandpiper_core::invariants;

use sandpiper_core::names::*;
use sandpiper_core::policy::{Deployment, Labels, Policy, Selector};
use sandpiper_core::profile::{Conditions, Power, PowerState};
use sandpiper_core::rollout::*;
use sandpiper_core::rungs::Noise;
use sandpiper_core::telemetry::{FailureKind, ModelFailure, ModelPhase, ModelStatus, Serving};
use sandpiper_core::time::Millis;
use std::collections::{BTreeMap, BTreeSet};

fn planned(devices: usize, waves: Vec<WaveSize>) -> Rollout {
    planned_on(&vec![""; devices], waves)
}

/// A device for each of these boards, in this order of names.
fn planned_on(boards: &[&str], waves: Vec<WaveSize>) -> Rollout {
    let names: Vec<_> = (0..boards.len())
        .map(|i| DeviceName::new(format!("pi-{i:02}")).unwrap())
        .collect();
    let profiles: Vec<_> = boards.iter().map(|board| profile(board)).collect();
    let conditions = Conditions {
        ram_available_bytes: 1 << 30,
        disk_free_bytes: 1 << 30,
        power: Power::Mains,
        temperature_mc: None,
        throttled: false,
    };
    let (labels, learned) = (Labels::new(), BTreeMap::new());
    let fleet = names
        .iter()
        .zip(&profiles)
        .map(|(name, profile)| FleetDevice {
            name,
            profile,
            conditions: &conditions,
            learned: &learned,
            failed: BTreeMap::new(),
            current: None,
            before: None,
            held: BTreeSet::new(),
            moved: None,
            labels: &labels,
        });
    let deployment = Deployment {
        name: DeploymentName::new("activity").unwrap(),
        model: ModelName::new("activity").unwrap(),
        selector: Selector::default(),
        policy: Policy::default(),
    };
    let spec = RolloutSpec {
        waves,
        wave_deadline_s: 60,
        bake_s: 2,
        ..RolloutSpec::new(deployment.name.clone(), VersionName::new("v2").unwrap())
    };
    let previous = Some(VersionName::new("v1").unwrap());
    let name = RolloutName::new("activity-2").unwrap();
    let plan = plan(
        name,
        spec,
        &deployment,
        &manifest("v2"),
        previous,
        &Pace::default(),
        fleet,
    )
    .unwrap();
    Rollout::new(plan, "anna", Millis(0))
}

fn status(wanted: &str, phase: ModelPhase, serving: &str) -> Option<Box<ModelStatus>> {
    let failure = (phase == ModelPhase::Failed).then(|| ModelFailure {
        variant: VariantName::new("small").unwrap(),
        kind: FailureKind::SelfTest,
        message: "output is not finite".into(),
    });
    Some(Box::new(ModelStatus {
        deployment: DeploymentName::new("activity").unwrap(),
        model: ModelName::new("activity").unwrap(),
        wanted: VersionName::new(wanted).unwrap(),
        phase,
        serving: Some(Serving {
            version: VersionName::new(serving).unwrap(),
            variant: VariantName::new("small").unwrap(),
            code: Digest::of(b"x"),
            power_state: PowerState::Mains,
        }),
        failure,
        fetched_bytes: 0,
        needed_bytes: 0,
    }))
}

fn event(kind: u8, device: usize, inferences: u64) -> RolloutEvent {
    let device = DeviceName::new(format!("pi-{device:02}")).unwrap();
    let actor = "anna".to_owned();
    let reported = |status| RolloutEvent::Reported {
        device: device.clone(),
        status,
        inferences,
        measured: None,
    };
    match kind {
        0 => RolloutEvent::Start { actor },
        1 => reported(status("v2", ModelPhase::Fetching, "v1")),
        2..=6 => reported(status("v2", ModelPhase::Serving, "v2")),
        7 => reported(status("v2", ModelPhase::Failed, "v1")),
        8 => reported(status("v1", ModelPhase::Serving, "v1")),
        9 => RolloutEvent::Gone { device },
        10 => RolloutEvent::Pause { actor },
        11 => RolloutEvent::Resume { actor },
        12 => RolloutEvent::Abort { actor },
        13 => RolloutEvent::Supersede { actor },
        14 => RolloutEvent::Promote { actor, full: false },
        15 => RolloutEvent::Promote { actor, full: true },
        _ => RolloutEvent::Tick,
    }
}

proptest! {
    #[test]
    fn no_sequence_of_events_breaks_an_invariant(
        devices in 1usize..8,
        max_in_flight in prop::option::of(1u32..4),
        max_unavailable in prop::option::of(1u32..3),
        max_failures in 0u32..2,
        events in prop::collection::vec((0u8..18, 0usize..8, 0u64..3, 0u64..20_000), 1..120),
    ) {
        let rollout = planned(devices, vec![WaveSize::Count(1), WaveSize::Percent(60)]);
        let mut plan = rollout.plan;
        plan.spec.max_in_flight = max_in_flight;
        plan.spec.max_failures = max_failures;
        plan.spec.disruption = max_unavailable.map(|max_unavailable| DisruptionBudget {
            group_by: "site".into(),
            max_unavailable,
        });
        for (index, device) in plan.waves.iter_mut().flatten().enumerate() {
            device.group = (index % 3 > 0).then(|| format!("site-{}", index % 3).into());
        }
        let mut rollout = Rollout::new(plan, "anna", Millis(0));
        let mut now = 0;
        let mut assigned = BTreeSet::new();
        for (kind, device, inferences, wait) in events {
            now += wait;
            let before = rollout.clone();
            let devices: BTreeMap<_, _> =
                before.devices.iter().map(|(d, s)| (d.clone(), s.clone())).collect();
            let effects = rollout.handle(Millis(now), event(kind, device, inferences));
            invariants::rollout(&rollout).unwrap();
            invariants::rollout_step(&before.state, &devices, &rollout, Millis(now)).unwrap();
            if before.state.is_final() {
                prop_assert_eq!(&before, &rollout, "a final state changed");
                prop_assert!(effects.is_empty());
            }
            for effect in effects {
                if let RolloutEffect::Assign { device, .. } = effect {
                    prop_assert!(assigned.insert(device), "assigned twice");
                }
            }
        }
    }
}

#[test]
fn the_first_wave_holds_every_kind_of_hardware_before_two_of_one() {
    let boards = ["4", "4", "4", "5", "4", "zero", "5"];
    let waves = |sizes: Vec<WaveSize>| -> Vec<Vec<String>> {
        let plan = planned_on(&boards, sizes).plan;
        let names = |wave: &Vec<PlannedDevice>| wave.iter().map(|d| d.device.to_string()).collect();
        plan.waves.iter().map(names).collect()
    };
    assert_eq!(
        waves(vec![WaveSize::Count(3), WaveSize::Percent(70)]),
        [
            vec!["pi-00", "pi-03", "pi-05"],
            vec!["pi-01", "pi-06"],
            vec!["pi-02", "pi-04"]
        ]
    );
    // What the first wave is too small for comes in the next.
    assert_eq!(
        waves(vec![WaveSize::Count(1), WaveSize::Count(3)])[..2],
        [vec!["pi-00"], vec!["pi-01", "pi-03", "pi-05"]]
    );
    let plan = planned_on(&boards, vec![]).plan;
    assert_eq!(&*plan.waves[0][3].hardware, "5, x86_64-linux/v2");
}

#[test]
fn silence_is_no_success_and_the_first_wave_goes_back() {
    let mut rollout = planned(4, vec![WaveSize::Percent(50)]);
    rollout.handle(Millis(0), event(0, 0, 0));
    rollout.handle(Millis(1_000), event(2, 0, 0));
    rollout.handle(Millis(5_000), event(2, 0, 9));
    assert_eq!(
        rollout
            .devices
            .states()
            .filter(|d| **d == DeviceRollout::Succeeded)
            .count(),
        1
    );
    let effects = rollout.handle(Millis(60_000), RolloutEvent::Tick);
    let back: Vec<_> = effects
        .iter()
        .filter_map(|e| match e {
            RolloutEffect::AssignPrevious { device, version } => {
                Some((device.to_string(), version.clone()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(back.len(), 2, "only the first wave was touched");
    assert!(
        back.iter()
            .all(|(_, v)| *v == Some(VersionName::new("v1").unwrap()))
    );
    for device in 0..2 {
        rollout.handle(Millis(61_000), event(8, device, 0));
    }
    assert!(matches!(rollout.state, RolloutState::RolledBack { .. }));
}

#[test]
fn serving_without_inferences_is_no_success() {
    let mut rollout = planned(1, vec![]);
    rollout.handle(Millis(0), event(0, 0, 0));
    rollout.handle(Millis(1_000), event(2, 0, 0));
    rollout.handle(Millis(10_000), event(2, 0, 0));
    assert!(matches!(rollout.state, RolloutState::Running { .. }));
    rollout.handle(Millis(11_000), event(2, 0, 1));
    assert_eq!(rollout.state, RolloutState::Promoted);
}

#[test]
fn a_failed_self_test_stops_the_wave() {
    let mut rollout = planned(6, vec![WaveSize::Percent(50)]);
    rollout.handle(Millis(0), event(0, 0, 0));
    rollout.handle(Millis(500), event(7, 1, 0));
    assert!(matches!(rollout.state, RolloutState::RollingBack { .. }));
    assert_eq!(
        rollout
            .devices
            .states()
            .filter(|d| **d == DeviceRollout::Waiting)
            .count(),
        3
    );
}

#[test]
fn the_bake_time_ends_without_a_report_and_without_busy_waiting() {
    let mut rollout = planned(1, vec![]);
    rollout.handle(Millis(0), event(0, 0, 0));
    rollout.handle(Millis(1_000), event(2, 0, 0));
    // Without inferences only the wave's deadline is waited for.
    assert_eq!(
        rollout.next_deadline(),
        Some((Millis(60_000), "wave deadline"))
    );
    rollout.handle(Millis(1_500), event(2, 0, 3));
    let (at, _) = rollout.next_deadline().unwrap();
    assert_eq!(at, Millis(3_000));
    rollout.handle(at, RolloutEvent::Tick);
    assert_eq!(rollout.state, RolloutState::Promoted);
}

#[test]
fn a_relapse_in_an_earlier_wave_takes_everything_back() {
    let mut rollout = planned(4, vec![WaveSize::Percent(50)]);
    rollout.handle(Millis(0), event(0, 0, 0));
    for at in [1_000, 5_000] {
        (0..2).for_each(|d| drop(rollout.handle(Millis(at), event(2, d, 5))));
    }
    assert!(matches!(
        rollout.state,
        RolloutState::Running { wave: 1, .. }
    ));
    let effects = rollout.handle(Millis(6_000), event(7, 0, 5));
    let back = |e: &&RolloutEffect| matches!(e, RolloutEffect::AssignPrevious { .. });
    assert_eq!(effects.iter().filter(back).count(), 4);
}

#[test]
fn a_relapse_counts_together_with_those_that_stayed_silent() {
    let mut plan = planned(4, vec![WaveSize::Count(2)]).plan;
    plan.spec.max_failures = 1;
    let mut rollout = Rollout::new(plan, "anna", Millis(0));
    rollout.handle(Millis(0), event(0, 0, 0));
    rollout.handle(Millis(1_000), event(2, 0, 1));
    rollout.handle(Millis(60_000), RolloutEvent::Tick);
    assert!(matches!(
        rollout.state,
        RolloutState::Running { wave: 1, .. }
    ));
    let (state, devices) = (rollout.state.clone(), &rollout.devices);
    let devices: BTreeMap<_, _> = devices
        .iter()
        .map(|(d, s)| (d.clone(), s.clone()))
        .collect();
    rollout.handle(Millis(61_000), event(7, 0, 1));
    invariants::rollout_step(&state, &devices, &rollout, Millis(61_000)).unwrap();
    let RolloutState::RollingBack { why, .. } = &rollout.state else {
        panic!("{:?}", rollout.state);
    };
    assert!(why.starts_with("wave 1: 1 failed"), "{why}");
}

#[test]
fn a_fleet_that_left_is_no_success() {
    let mut rollout = planned(1, vec![]);
    rollout.handle(Millis(0), event(0, 0, 0));
    rollout.handle(Millis(1_000), event(9, 0, 0));
    assert!(matches!(rollout.state, RolloutState::RolledBack { .. }));
}

/// A rollout of one canary and a rest, with gates, and its canary having moved and baked.
fn gated(after_us: u32, inferences: u64) -> (Rollout, Vec<RolloutEffect>) {
    let mut rollout = planned(3, vec![WaveSize::Count(1)]);
    rollout.plan.spec.gates = Some(Gates {
        latency_p95_percent: Some(10),
        nonfinite_permille: None,
        constant_permille: None,
        ..Gates::default()
    });
    let mut rollout = Rollout::new(rollout.plan, "anna", Millis(0));
    rollout.handle(Millis(0), event(0, 0, 0));
    rollout.handle(Millis(1_000), event(2, 0, 0));
    let sample = |us| Sample {
        inferences,
        latency_us_p95: Some(us),
        latency_noise: Noise {
            windows: 10,
            spread_ppm: 20_000,
        },
        ..Sample::default()
    };
    let measured = Pair {
        before: sample(1_000),
        after: sample(after_us),
    };
    let report = RolloutEvent::Reported {
        device: DeviceName::new("pi-00").unwrap(),
        status: status("v2", ModelPhase::Serving, "v2"),
        inferences,
        measured: Some([(PowerState::Mains, measured)].into()),
    };
    let effects = rollout.handle(Millis(5_000), report);
    invariants::rollout(&rollout).unwrap();
    (rollout, effects)
}

#[test]
fn a_canary_that_is_as_fast_as_before_lets_the_next_wave_begin() {
    let (rollout, _) = gated(1_010, 100);
    assert!(matches!(
        rollout.state,
        RolloutState::Running { wave: 1, .. }
    ));
}

#[test]
fn a_slower_canary_is_taken_back_with_the_figures() {
    let (rollout, effects) = gated(1_300, 100);
    let RolloutState::RollingBack { why, .. } = &rollout.state else {
        panic!("{:?}", rollout.state);
    };
    assert!(why.contains("p95 latency: fail, +30.0%"), "{why}");
    let back = |e: &&RolloutEffect| matches!(e, RolloutEffect::AssignPrevious { .. });
    assert_eq!(
        effects.iter().filter(back).count(),
        1,
        "only the canary moved"
    );
}

#[test]
fn too_few_figures_wait_then_pause_and_an_operator_may_waive_them() {
    let (mut rollout, _) = gated(1_300, 5);
    assert!(matches!(
        rollout.state,
        RolloutState::Running { wave: 0, .. }
    ));
    let (deadline, _) = rollout.next_deadline().unwrap();
    rollout.handle(deadline, RolloutEvent::Tick);
    let RolloutState::Paused { by, why, .. } = &rollout.state else {
        panic!("{:?}", rollout.state);
    };
    assert_eq!(by, "gates");
    assert!(why.as_ref().unwrap().contains("inconclusive"), "{why:?}");
    assert_eq!(rollout.next_deadline(), None, "it waits for an operator");
    let mut resumed = rollout.clone();
    resumed.handle(deadline, event(11, 0, 0));
    assert!(
        resumed.next_deadline().unwrap().0 > deadline,
        "it has its time again"
    );
    let actor = "anna".to_owned();
    rollout.handle(deadline, RolloutEvent::Promote { actor, full: false });
    assert!(matches!(
        rollout.state,
        RolloutState::Running { wave: 1, .. }
    ));
}

#[test]
fn promoted_fully_the_waves_that_are_left_move_as_one_within_the_bounds() {
    let mut rollout = planned(5, vec![WaveSize::Count(1), WaveSize::Count(2)]);
    rollout.plan.spec.max_in_flight = Some(2);
    let mut rollout = Rollout::new(rollout.plan, "anna", Millis(0));
    let sent = |effects: Vec<RolloutEffect>| -> Vec<String> {
        let assigned = effects.into_iter().filter_map(|e| match e {
            RolloutEffect::Assign { device, .. } => Some(device.to_string()),
            _ => None,
        });
        assigned.collect()
    };
    assert_eq!(
        sent(rollout.handle(Millis(0), event(0, 0, 0))),
        ["pi-00"],
        "the first wave"
    );
    let now = Millis(1_000);
    assert_eq!(sent(rollout.handle(now, event(15, 0, 0))), ["pi-01"]);
    assert_eq!(rollout.merged_from, Some(0));
    // Three waves have the time of three, and a second promotion gives no more.
    let deadline = rollout.next_deadline().unwrap();
    assert_eq!(deadline, (Millis(181_000), "wave deadline"));
    rollout.handle(Millis(1_500), event(15, 0, 0));
    assert_eq!(rollout.next_deadline().unwrap(), deadline);
    let mut order = Vec::new();
    for device in 0..5 {
        order.extend(sent(rollout.handle(Millis(2_000), event(2, device, 1))));
        invariants::rollout(&rollout).unwrap();
    }
    assert_eq!(order, ["pi-02", "pi-03", "pi-04"]);
    let mut failing = rollout.clone();
    rollout.handle(Millis(60_000), RolloutEvent::Tick);
    assert_eq!(rollout.state, RolloutState::Promoted);
    failing.handle(Millis(3_000), event(7, 4, 0));
    let RolloutState::RollingBack { why, .. } = &failing.state else {
        panic!("{:?}", failing.state);
    };
    assert!(why.starts_with("waves 1 to 3: 1 failed"), "{why}");
}

#[test]
fn no_more_are_sent_off_than_may_be_in_flight() {
    let mut rollout = planned(5, vec![]);
    rollout.plan.spec.max_in_flight = Some(2);
    let mut rollout = Rollout::new(rollout.plan, "anna", Millis(0));
    let sent = |effects: Vec<RolloutEffect>| {
        let assigns = |e: &&RolloutEffect| matches!(e, RolloutEffect::Assign { .. });
        effects.iter().filter(assigns).count()
    };
    assert_eq!(sent(rollout.handle(Millis(0), event(0, 0, 0))), 2);
    assert_eq!(sent(rollout.handle(Millis(10), event(1, 0, 0))), 0);
    assert_eq!(sent(rollout.handle(Millis(20), event(2, 0, 0))), 1);
    assert_eq!(rollout.in_flight().total, 2);
}

#[test]
fn a_disruption_budget_counts_by_group() {
    let mut rollout = planned(4, vec![]);
    rollout.plan.spec.disruption = Some(DisruptionBudget {
        group_by: "site".into(),
        max_unavailable: 1,
    });
    for (index, device) in rollout.plan.waves[0].iter_mut().enumerate() {
        device.group = (index < 3).then(|| "north".into());
    }
    let mut rollout = Rollout::new(rollout.plan, "anna", Millis(0));
    rollout.handle(Millis(0), event(0, 0, 0));
    let flying = |r: &Rollout| -> Vec<String> {
        let all = r.devices.iter();
        let all = all.filter(|(_, s)| matches!(s, DeviceRollout::Assigned { .. }));
        all.map(|(device, _)| device.to_string()).collect()
    };
    assert_eq!(flying(&rollout), ["pi-00", "pi-03"], "one of each group");
    rollout.handle(Millis(10), event(2, 0, 0));
    assert_eq!(flying(&rollout), ["pi-01", "pi-03"]);
}

#[test]
fn a_forecast_keeps_bounds_and_deadlines_as_the_rollout_will() {
    let mut plan = planned(4, vec![WaveSize::Count(1)]).plan;
    plan.spec.max_in_flight = Some(1);
    let deployment = Deployment {
        name: DeploymentName::new("activity").unwrap(),
        model: ModelName::new("activity").unwrap(),
        selector: Selector::default(),
        policy: Policy::default(),
    };
    let nobody = forecast(&plan, &deployment, Millis(9));
    assert!(nobody.obstacle.unwrap().contains("nobody knows"));
    assert_eq!(nobody.waves[0].ends_s, None);
    let takes = |plan: &mut RolloutPlan, ms| {
        for device in plan.waves.iter_mut().flatten() {
            let provenance = sandpiper_core::energy::Provenance::Measured;
            device.takes = Some(Duration { ms, provenance });
        }
    };
    takes(&mut plan, 10_000);
    let known = forecast(&plan, &deployment, Millis(9));
    assert_eq!(known.obstacle, None);
    let times: Vec<_> = known.waves.iter().map(|w| (w.begins_s, w.ends_s)).collect();
    // 10 s to serve, 1 s for an inference at 3,600 an hour, 2 s of baking since it serves; the
    // three of the second wave one after the other.
    assert_eq!(times, [(Some(0), Some(12)), (Some(12), Some(12 + 30 + 2))]);
    assert_eq!((known.waves[1].devices, known.waves[1].measured), (3, 3));
    takes(&mut plan, 25_000);
    let late = forecast(&plan, &deployment, Millis(9));
    assert!(late.obstacle.unwrap().contains("deadline"), "75 s of 60");
}
