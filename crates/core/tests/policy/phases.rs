//! No device is on its way for ever.

use crate::support::{Watched, spec};
use sandpiper_core::rollout::{
    Deadlines, DeviceRollout, RolloutEvent, RolloutSpec, RolloutState, SpecError, WaveSize,
};
use sandpiper_core::telemetry::ModelPhase;
use sandpiper_core::time::Millis;

fn bounded() -> RolloutSpec {
    RolloutSpec {
        max_failures: 2,
        wave_deadline_s: 600,
        deadlines: Deadlines {
            fetch_s: Some(10),
            switch_s: Some(5),
            prove_s: Some(20),
        },
        ..spec()
    }
}

fn message(watched: &Watched, device: usize) -> String {
    match watched.state(device) {
        DeviceRollout::Failed { message } => message.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_phase_ends_with_its_own_reason() {
    let mut watched = Watched::new(bounded(), &["", "", "", ""]);
    watched.start(0);
    watched.says(1_000, 1, ModelPhase::Testing, 0);
    watched.says(2_000, 2, ModelPhase::Serving, 0);
    watched.succeeds(2_000, 3);
    assert!(matches!(
        watched.state(1),
        DeviceRollout::Switching {
            since: Millis(1_000),
            worked_ms: 1_000
        }
    ));
    let (at, why) = watched.rollout.next_deadline().unwrap();
    assert_eq!((at, why), (Millis(6_000), "end of a phase"));
    watched.handle(6_000, RolloutEvent::Tick);
    assert_eq!(
        message(&watched, 1),
        "switch: it did not serve within 5 s of having all"
    );
    watched.handle(10_000, RolloutEvent::Tick);
    assert_eq!(
        message(&watched, 0),
        "fetch: not everything was there within 10 s"
    );
    assert!(matches!(
        watched.rollout.state,
        RolloutState::Running { .. }
    ));
    // The third failure is one too many.
    watched.handle(22_000, RolloutEvent::Tick);
    let failed: Vec<_> = watched
        .noted
        .iter()
        .filter(|(r, _)| r == "DeviceFailed")
        .collect();
    assert_eq!(
        failed[2].1,
        "device/pi-02: prove: it did not serve enough within 20 s"
    );
    assert!(matches!(
        watched.rollout.state,
        RolloutState::RollingBack { .. }
    ));
}

#[test]
fn who_has_served_enough_is_not_late_for_proving_it() {
    let mut watched = Watched::new(
        RolloutSpec {
            bake_s: 20,
            ..bounded()
        },
        &[""],
    );
    watched.start(0);
    watched.says(1_000, 0, ModelPhase::Serving, 3);
    watched.handle(21_000, RolloutEvent::Tick);
    assert_eq!(watched.rollout.state, RolloutState::Promoted);
}

#[test]
fn the_time_of_a_pause_is_nobodys_fault() {
    let mut watched = Watched::new(bounded(), &["", ""]);
    watched.start(0);
    let actor = || "anna".to_owned();
    watched.handle(5_000, RolloutEvent::Pause { actor: actor() });
    watched.handle(500_000, RolloutEvent::Tick);
    watched.handle(500_000, RolloutEvent::Resume { actor: actor() });
    watched.handle(509_999, RolloutEvent::Tick);
    assert!(matches!(watched.state(0), DeviceRollout::Assigned { .. }));
    watched.handle(510_000, RolloutEvent::Tick);
    let failed = watched.noted.iter().filter(|(r, _)| r == "DeviceFailed");
    assert_eq!(failed.count(), 2);
}

#[test]
fn many_that_fall_silent_do_not_push_all_else_out_of_the_events() {
    let spec = RolloutSpec {
        max_failures: 100,
        waves: vec![WaveSize::Count(59)],
        ..bounded()
    };
    let mut watched = Watched::new(spec, &[""; 60]);
    watched.start(0);
    watched.handle(10_000, RolloutEvent::Tick);
    let noted = watched.noted.iter().filter(|(r, _)| r == "DeviceFailed");
    let noted: Vec<&str> = noted.map(|(_, message)| message.as_str()).collect();
    assert_eq!(noted.len(), 21);
    assert_eq!(noted[20], "39 more devices ran out of time");
}

#[test]
fn limits_that_nobody_could_keep_are_mistakes() {
    let spec = RolloutSpec {
        bake_s: 60,
        deadlines: Deadlines {
            fetch_s: Some(0),
            switch_s: None,
            prove_s: Some(30),
        },
        ..spec()
    };
    assert_eq!(
        spec.mistakes(),
        [
            SpecError::NoTime("fetch_s"),
            SpecError::ProveBeforeBake {
                prove_s: 30,
                bake_s: 60
            }
        ]
    );
}
