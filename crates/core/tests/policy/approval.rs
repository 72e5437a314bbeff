//! Waves that wait for the word of an operator.

use crate::support::{Watched, deployment, planned, spec};
use sandpiper_core::rollout::{
    Approval, AskingWaves, DeviceRollout, PlanError, RolloutEvent, RolloutSpec, RolloutState,
    WaveSize, forecast,
};
use sandpiper_core::telemetry::ModelPhase;
use sandpiper_core::time::Millis;

const FOUR: [&str; 4] = [""; 4];

fn asking(waves: &str) -> RolloutSpec {
    RolloutSpec {
        waves: vec![WaveSize::Count(1), WaveSize::Count(1)],
        approval: Some(Approval {
            waves: waves.parse().unwrap(),
            by: Vec::new(),
        }),
        ..spec()
    }
}

fn approve(watched: &mut Watched, at: u64, why: Option<&str>) {
    let (actor, why) = ("bert".to_owned(), why.map(str::to_owned));
    watched.handle(at, RolloutEvent::Approve { actor, why });
}

#[test]
fn a_wave_waits_until_an_operator_approves_it() {
    let mut watched = Watched::new(asking("after-first"), &FOUR);
    watched.start(0);
    assert!(matches!(watched.state(0), DeviceRollout::Assigned { .. }));
    watched.succeeds(1_000, 0);
    let waits = RolloutState::AwaitingApproval {
        wave: 1,
        since: Millis(4_000),
    };
    assert_eq!(watched.rollout.state, waits);
    assert_eq!(*watched.state(1), DeviceRollout::Waiting);
    // However long it takes: waiting is no failure.
    watched.handle(9_000_000, RolloutEvent::Tick);
    assert_eq!(watched.rollout.state, waits);
    approve(&mut watched, 9_004_000, Some("looks good"));
    assert!(matches!(watched.state(1), DeviceRollout::Assigned { .. }));
    let (reason, message) = watched.noted.iter().find(|(r, _)| r == "Approved").unwrap();
    assert_eq!(reason, "Approved");
    assert_eq!(message, "wave 2 of 3 approved after 9000 s: looks good");
    watched.succeeds(9_005_000, 1);
    assert!(matches!(
        watched.rollout.state,
        RolloutState::AwaitingApproval { wave: 2, .. }
    ));
}

#[test]
fn the_first_wave_waits_too_where_every_wave_asks() {
    let mut watched = Watched::new(asking("every"), &FOUR);
    watched.start(0);
    assert!(
        watched
            .rollout
            .devices
            .states()
            .all(|s| *s == DeviceRollout::Waiting)
    );
    approve(&mut watched, 5_000, None);
    assert!(matches!(watched.state(0), DeviceRollout::Assigned { .. }));
}

#[test]
fn a_relapse_takes_all_back_while_a_wave_waits() {
    let mut watched = Watched::new(asking("2"), &FOUR);
    watched.start(0);
    watched.succeeds(1_000, 0);
    watched.says(8_000, 0, ModelPhase::Failed, 5);
    assert!(matches!(
        watched.rollout.state,
        RolloutState::RollingBack { .. }
    ));
}

#[test]
fn an_approval_that_nobody_waits_for_does_nothing() {
    let mut watched = Watched::new(asking("3"), &FOUR);
    watched.start(0);
    approve(&mut watched, 100, None);
    assert!(watched.rollout.approved.is_empty());
    watched.succeeds(1_000, 0);
    assert!(matches!(
        watched.rollout.state,
        RolloutState::Running { wave: 1, .. }
    ));
}

#[test]
fn letting_all_follow_at_once_approves_them() {
    let mut watched = Watched::new(asking("every"), &FOUR);
    watched.start(0);
    let actor = "anna".to_owned();
    watched.handle(1_000, RolloutEvent::Promote { actor, full: true });
    assert!(
        watched
            .rollout
            .devices
            .states()
            .all(|s| matches!(s, DeviceRollout::Assigned { .. }))
    );
    assert_eq!(watched.rollout.approved, [0, 1, 2].into());
}

#[test]
fn what_asks_is_a_text() {
    for (text, waves) in [
        ("every", AskingWaves::Every),
        ("after-first", AskingWaves::AfterFirst),
        ("2,4", AskingWaves::These([2, 4].into())),
    ] {
        assert_eq!(text.parse(), Ok(waves.clone()));
        assert_eq!(String::from(waves), text);
    }
    for bad in ["", "0", "first", "2,", "-1", "99999"] {
        assert!(bad.parse::<AskingWaves>().is_err(), "{bad}");
    }
}

#[test]
fn a_wave_that_there_is_not_cannot_ask() {
    let error = planned(asking("2,4"), &FOUR).unwrap_err();
    assert_eq!(error, PlanError::NoSuchWave { named: 4, waves: 3 });
}

#[test]
fn a_forecast_takes_every_approval_as_given() {
    let mut plan = planned(asking("every"), &FOUR).unwrap();
    for device in plan.waves.iter_mut().flatten() {
        device.takes = serde_json::from_value(serde_json::json!({
            "ms": 2_000, "provenance": "measured"
        }))
        .unwrap();
    }
    let foreseen = forecast(&plan, &deployment(), Millis(0));
    assert_eq!(foreseen.obstacle, None);
    assert!(foreseen.waves.iter().all(|w| w.ends_s.is_some()));
}
