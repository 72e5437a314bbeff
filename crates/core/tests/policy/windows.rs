//! Devices move by the time on their own walls.

use crate::support::{Watched, deployment, planned, spec};
use sandpiper_core::rollout::{
    DeviceRollout, RolloutEffect, RolloutEvent, RolloutSpec, RolloutState, SpecError, Wait,
    Windows, forecast,
};
use sandpiper_core::telemetry::ModelPhase;
use sandpiper_core::time::Millis;
use sandpiper_core::window::{Opening, Schedule};
use std::sync::Arc;

const HOUR: u64 = 3_600_000;
/// Midnight UTC of Monday the 16th of March 2026.
const MONDAY: u64 = 1_773_619_200_000;

fn windowed(download: &[&str], switch: &[&str]) -> RolloutSpec {
    let parse = |all: &[&str]| all.iter().map(|w| w.parse().unwrap()).collect();
    RolloutSpec {
        wave_deadline_s: 1_800,
        windows: Some(Windows::new(parse(download), parse(switch))),
        ..spec()
    }
}

fn assigned(effects: &[RolloutEffect]) -> Vec<(String, Arc<Schedule>)> {
    let each = effects.iter().filter_map(|effect| match effect {
        RolloutEffect::Assign {
            device, schedule, ..
        } => Some((device.to_string(), schedule.clone().unwrap())),
        _ => None,
    });
    each.collect()
}

#[test]
fn a_device_is_told_when_its_own_window_opens() {
    let fleet = ["time-zone=Europe/Berlin", "time-zone=Asia/Tokyo", ""];
    let mut watched = Watched::new(windowed(&["02:00-04:00"], &[]), &fleet);
    assert!(assigned(&watched.start(MONDAY)).is_empty());
    // Berlin's two o'clock is at one, Tokyo's at five in the afternoon.
    let held = |hours: u64| DeviceRollout::Held {
        since: Millis(MONDAY),
        until: Some(Millis(MONDAY + hours * HOUR)),
    };
    assert_eq!(*watched.state(0), held(1));
    assert_eq!(*watched.state(1), held(17));
    assert_eq!(*watched.state(2), held(2));
    let (at, why) = watched.rollout.next_deadline().unwrap();
    assert_eq!((at.0, why), (MONDAY + HOUR, "window opens"));
    let told = assigned(&watched.handle(MONDAY + HOUR, RolloutEvent::Tick));
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].0, "pi-00");
    assert_eq!(told[0].1.switch, None);
    let fetch = Opening::at(told[0].1.fetch.as_ref(), Millis(MONDAY + HOUR));
    assert_eq!(fetch, Opening::Open(Some(Millis(MONDAY + 3 * HOUR))));
}

#[test]
fn waiting_for_a_window_is_no_failure_and_has_a_bound() {
    let mut spec = windowed(&["03:00-04:00"], &["mon 20:00-21:00"]);
    spec.windows.as_mut().unwrap().wait_s = 2 * 24 * 3_600;
    let mut watched = Watched::new(spec, &[""]);
    watched.start(MONDAY);
    // Its wave has half an hour, and its window opens after three.
    let told = assigned(&watched.handle(MONDAY + 3 * HOUR, RolloutEvent::Tick));
    assert_eq!(told.len(), 1);
    let fetched = MONDAY + 3 * HOUR + 60_000;
    watched.says(fetched, 0, ModelPhase::AwaitingSwitch, 0);
    let parked = DeviceRollout::Parked {
        since: Millis(fetched),
        wait: Wait::Switch,
        until: Some(Millis(MONDAY + 20 * HOUR)),
        worked_ms: 60_000,
    };
    assert_eq!(*watched.state(0), parked);
    watched.handle(MONDAY + 19 * HOUR, RolloutEvent::Tick);
    assert_eq!(
        *watched.state(0),
        parked,
        "hours after the deadline of its wave"
    );
    // It never speaks again. The wave waits for as long as it was to wait, and half an hour.
    let end = MONDAY + 48 * HOUR + 30 * 60_000;
    watched.handle(end - 1, RolloutEvent::Tick);
    assert_eq!(watched.rollout.state.word(), "running");
    watched.handle(end, RolloutEvent::Tick);
    assert_eq!(watched.rollout.state.word(), "rolling-back");
}

#[test]
fn once_its_window_is_open_a_device_has_the_time_of_a_wave() {
    let mut spec = windowed(&["03:00-04:00"], &[]);
    spec.max_failures = 1;
    let mut watched = Watched::new(spec, &["", ""]);
    watched.start(MONDAY);
    let opens = MONDAY + 3 * HOUR;
    watched.handle(opens, RolloutEvent::Tick);
    // What it waits for the next window does not count, what it worked does.
    let minute = 60_000;
    watched.says(opens + 20 * minute, 0, ModelPhase::AwaitingDownload, 0);
    watched.handle(opens + 30 * minute, RolloutEvent::Tick);
    let silent = "fetch: not everything was there within 1800 s".to_owned();
    assert_eq!(*watched.state(1), DeviceRollout::Failed { message: silent });
    let again = opens + 24 * HOUR;
    watched.says(again, 0, ModelPhase::Fetching, 0);
    let since = Millis(again - 20 * minute);
    assert_eq!(*watched.state(0), DeviceRollout::Assigned { since });
    watched.handle(again + 10 * minute - 1, RolloutEvent::Tick);
    assert!(matches!(
        watched.rollout.state,
        RolloutState::Running { .. }
    ));
    watched.handle(again + 10 * minute, RolloutEvent::Tick);
    assert!(matches!(
        watched.rollout.state,
        RolloutState::RollingBack { .. }
    ));
}

#[test]
fn a_held_device_takes_no_place_among_those_in_flight() {
    let mut spec = windowed(&["02:00-04:00"], &[]);
    spec.max_in_flight = Some(1);
    let fleet = ["time-zone=Asia/Tokyo", "time-zone=Asia/Tokyo", "", ""];
    let mut watched = Watched::new(spec, &fleet);
    let told = assigned(&watched.start(MONDAY + 2 * HOUR));
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].0, "pi-02");
    watched.succeeds(MONDAY + 2 * HOUR + 1_000, 2);
    assert!(matches!(watched.state(3), DeviceRollout::Assigned { .. }));
    // Going back leaves those that were never told alone.
    let actor = "anna".to_owned();
    watched.handle(MONDAY + 3 * HOUR, RolloutEvent::Abort { actor });
    assert_eq!(*watched.state(0), DeviceRollout::Waiting);
}

#[test]
fn a_forecast_waits_for_the_windows() {
    let mut plan = planned(windowed(&["02:00-04:00"], &["05:00-06:00"]), &[""]).unwrap();
    for device in plan.waves.iter_mut().flatten() {
        device.takes = serde_json::from_value(serde_json::json!({
            "ms": 60_000, "provenance": "measured"
        }))
        .unwrap();
    }
    let foreseen = forecast(&plan, &deployment(), Millis(MONDAY));
    assert_eq!(foreseen.obstacle, None);
    assert_eq!(foreseen.waves[0].begins_s, Some(0));
    // It fetches at two, switches at five and bakes for two seconds, in which it serves enough.
    assert_eq!(foreseen.waves[0].ends_s, Some(5 * 3_600 + 2));
}

#[test]
fn windows_that_are_none_are_mistakes() {
    let mut spec = windowed(&[], &[]);
    spec.windows.as_mut().unwrap().wait_s = 0;
    assert_eq!(spec.mistakes(), [SpecError::NoWindow, SpecError::Wait(0)]);
    let many = vec!["01:00-02:00"; 17];
    let spec = windowed(&many, &["01:00-02:00"]);
    assert_eq!(spec.mistakes(), [SpecError::TooManyWindows("download", 17)]);
}
