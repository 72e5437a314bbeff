//! Rollouts, with devices that serve, fail and stay silent.

use crate::support::device::{Device, Live, failed, serving, window, window_of};
use crate::support::version::{MODEL, publish};
use crate::support::{Fleet, spec};
use sandpiper_core::assignment::Assignment;
use sandpiper_core::digest::Digest;
use sandpiper_core::rollout::{DeviceRollout, RolloutState, WaveSize};
use sandpiper_proto::convert::SteerVerb;

/// The version that an assignment asks for.
fn wanted(assignment: &Assignment) -> Option<&str> {
    let model = assignment.models.get(&MODEL.parse().unwrap());
    model.map(|m| m.version.as_str())
}

pub(crate) async fn fleet_with(versions: &[&str]) -> (Fleet, Device, Live) {
    let fleet = Fleet::start().await;
    for version in versions {
        publish(&fleet, version).await;
    }
    fleet.deploy().await;
    let device = Device::join(&fleet, "shed").await;
    let live = device.attach(&fleet, 0, Vec::new()).await;
    (fleet, device, live)
}

/// Takes the next assignment, which must ask for this version; gives its generation.
async fn accept(live: &mut Live, version: &str) -> u64 {
    let assignment = live.assignment().await;
    assert_eq!(wanted(&assignment), Some(version));
    assignment.generation.0
}

/// Serves what is assigned until its rollout is promoted.
async fn succeed(fleet: &Fleet, live: &mut Live, rollout: &str, version: &str, at: u64) -> u64 {
    let generation = accept(live, version).await;
    live.observe(generation, vec![serving(version)]).await;
    live.report(vec![window(at, version, 3)]).await;
    fleet.rollout_is(rollout, "promoted").await;
    generation
}

#[tokio::test]
async fn a_device_that_fails_its_self_test_rolls_all_back() {
    let (fleet, _device, mut live) = fleet_with(&["v1", "v2"]).await;
    let first = fleet.roll_out("v1").await;
    let v1 = succeed(&fleet, &mut live, &first, "v1", 1).await;
    let second = fleet.roll_out("v2").await;
    let v2 = accept(&mut live, "v2").await;
    assert!(v2 > v1);
    live.observe(v2, vec![failed("v2", Some("v1"))]).await;
    let back = accept(&mut live, "v1").await;
    assert!(back > v2, "the generation rises on the way back too");
    let doc = fleet.rollout(&second).await;
    assert_eq!(doc.state.word(), "rolling-back");
    live.observe(back, vec![serving("v1")]).await;
    let doc = fleet.rollout_is(&second, "rolled-back").await;
    let RolloutState::RolledBack { why } = &doc.state else {
        panic!("{:?}", doc.state);
    };
    assert!(why.contains("1 failed"), "{why}");
    assert_eq!(doc.devices[0].progress, DeviceRollout::Back);
    let noted = fleet
        .events(&format!("rollout/{second}"), "DeviceFailed")
        .await;
    assert_eq!(noted, ["device/shed: small-f32: the self-test gave NaN"]);
    // What failed here is not tried here again.
    let mut operator = fleet.operator().await;
    let again = operator.start_rollout(&spec("v2")).await.unwrap_err();
    assert!(again.to_string().contains("can run any variant"), "{again}");
}

#[tokio::test]
async fn without_a_version_before_a_failure_takes_the_model_away() {
    let (fleet, _device, mut live) = fleet_with(&["v1"]).await;
    let rollout = fleet.roll_out("v1").await;
    let v1 = accept(&mut live, "v1").await;
    live.observe(v1, vec![failed("v1", None)]).await;
    let back = live.assignment().await;
    assert!(back.models.is_empty() && back.generation.0 > v1);
    live.observe(back.generation.0, Vec::new()).await;
    fleet.rollout_is(&rollout, "rolled-back").await;
}

#[tokio::test]
async fn success_needs_inferences_under_the_code_that_was_assigned() {
    let (fleet, _device, mut live) = fleet_with(&["v1"]).await;
    let rollout = fleet.roll_out("v1").await;
    let generation = accept(&mut live, "v1").await;
    live.observe(generation, vec![serving("v1")]).await;
    // Serving alone is no success, nor are inferences of other code or of another version.
    let foreign = window_of(1, "v1", 100, Digest::of(b"something else"));
    live.report(vec![foreign, window(2, "v0", 100)]).await;
    let doc = fleet.rollout(&rollout).await;
    assert_eq!(doc.state.word(), "running");
    live.report(vec![window(3, "v1", 2)]).await;
    let doc = fleet.rollout(&rollout).await;
    assert_eq!(doc.state.word(), "running", "2 of 3 inferences");
    assert!(
        matches!(
            doc.devices[0].progress,
            DeviceRollout::Serving { inferences: 2, .. }
        ),
        "{:?}",
        doc.devices[0].progress
    );
    // The same window again does not make it three.
    live.report(vec![window(3, "v1", 2)]).await;
    assert_eq!(fleet.rollout(&rollout).await.state.word(), "running");
    live.report(vec![window(4, "v1", 1)]).await;
    fleet.rollout_is(&rollout, "promoted").await;
}

#[tokio::test]
async fn a_status_with_code_that_nobody_published_proves_nothing() {
    let (fleet, _device, mut live) = fleet_with(&["v1"]).await;
    let rollout = fleet.roll_out("v1").await;
    let generation = accept(&mut live, "v1").await;
    let mut status = serving("v1");
    status.serving.as_mut().unwrap().code = Digest::of(b"something else");
    live.observe(generation, vec![status]).await;
    live.report(vec![window(1, "v1", 3)]).await;
    let doc = fleet.rollout(&rollout).await;
    assert!(
        matches!(doc.devices[0].progress, DeviceRollout::Assigned { .. }),
        "{:?}",
        doc.devices[0].progress
    );
}

#[tokio::test]
async fn a_report_from_before_the_assignment_proves_nothing() {
    let (fleet, _device, mut live) = fleet_with(&["v1"]).await;
    let rollout = fleet.roll_out("v1").await;
    let generation = accept(&mut live, "v1").await;
    live.observe(generation - 1, vec![serving("v1")]).await;
    live.report(vec![window(1, "v1", 3)]).await;
    let doc = fleet.rollout(&rollout).await;
    assert!(matches!(
        doc.devices[0].progress,
        DeviceRollout::Assigned { .. }
    ));
}

#[tokio::test]
async fn a_newer_rollout_takes_over_and_goes_back_to_what_was_promoted() {
    let (fleet, _device, mut live) = fleet_with(&["v1", "v2", "v3"]).await;
    let first = fleet.roll_out("v1").await;
    succeed(&fleet, &mut live, &first, "v1", 1).await;
    let stuck = fleet.roll_out("v2").await;
    let v2 = accept(&mut live, "v2").await;
    let newer = fleet.roll_out("v3").await;
    let v3 = accept(&mut live, "v3").await;
    assert!(v3 > v2);
    assert_eq!(fleet.rollout(&stuck).await.state, RolloutState::Superseded);
    // The one that was superseded has no say any more.
    live.observe(v3, vec![failed("v3", Some("v1"))]).await;
    let back = accept(&mut live, "v1").await;
    assert!(back > v3);
    live.observe(back, vec![serving("v1")]).await;
    fleet.rollout_is(&newer, "rolled-back").await;
    assert_eq!(fleet.rollout(&stuck).await.state, RolloutState::Superseded);
}

#[tokio::test]
async fn a_silent_device_is_a_failure_at_the_deadline() {
    let (fleet, _device, mut live) = fleet_with(&["v1"]).await;
    let mut spec = spec("v1");
    spec.wave_deadline_s = 1;
    let mut operator = fleet.operator().await;
    let rollout = operator.start_rollout(&spec).await.unwrap();
    accept(&mut live, "v1").await;
    let back = live.assignment().await;
    assert!(back.models.is_empty());
    // Nor does its silence hold the rollback up.
    fleet.rollout_is(&rollout, "rolled-back").await;
}

#[tokio::test]
async fn the_second_wave_waits_for_the_first() {
    let (fleet, _shed, mut second) = fleet_with(&["v1"]).await;
    let barn = Device::join(&fleet, "barn").await;
    let mut first = barn.attach(&fleet, 0, Vec::new()).await;
    let mut spec = spec("v1");
    spec.waves = vec![WaveSize::Count(1)];
    let mut operator = fleet.operator().await;
    let rollout = operator.start_rollout(&spec).await.unwrap();
    let generation = accept(&mut first, "v1").await;
    assert_eq!(fleet.device("shed").await.generation.0, 0);
    first.observe(generation, vec![serving("v1")]).await;
    first.report(vec![window(1, "v1", 3)]).await;
    succeed(&fleet, &mut second, &rollout, "v1", 1).await;
}

#[tokio::test]
async fn undoing_goes_back_and_a_late_device_gets_what_stands() {
    let (fleet, _device, mut live) = fleet_with(&["v1", "v2"]).await;
    let first = fleet.roll_out("v1").await;
    succeed(&fleet, &mut live, &first, "v1", 1).await;
    let second = fleet.roll_out("v2").await;
    succeed(&fleet, &mut live, &second, "v2", 2).await;
    let mut operator = fleet.operator().await;
    let name = second.parse().unwrap();
    let undo = SteerVerb::Undo { to: None };
    operator.steer(&name, undo).await.unwrap();
    succeed(&fleet, &mut live, "watch-3", "v1", 3).await;
    let late = Device::join(&fleet, "late").await;
    let mut late = late.attach(&fleet, 0, Vec::new()).await;
    accept(&mut late, "v1").await;
    // What ended cannot be steered.
    for verb in [SteerVerb::Pause, SteerVerb::Resume, SteerVerb::Abort] {
        assert!(
            operator.steer(&name, verb.clone()).await.is_err(),
            "{verb:?}"
        );
    }
}

#[tokio::test]
async fn undoing_may_go_further_back() {
    let (fleet, _device, mut live) = fleet_with(&["v1", "v2", "v3"]).await;
    let mut newest = String::new();
    for (at, version) in (1..).zip(["v1", "v2", "v3"]) {
        newest = fleet.roll_out(version).await;
        succeed(&fleet, &mut live, &newest, version, at).await;
    }
    let mut operator = fleet.operator().await;
    let name = newest.parse().unwrap();
    let undo = |to: &str| SteerVerb::Undo {
        to: Some(to.parse().unwrap()),
    };
    let there = operator.steer(&name, undo("v3")).await.unwrap_err();
    assert!(there.to_string().contains("another version"), "{there}");
    let unknown = operator.steer(&name, undo("v7")).await.unwrap_err();
    assert!(unknown.to_string().contains("no version"), "{unknown}");
    operator.steer(&name, undo("v1")).await.unwrap();
    succeed(&fleet, &mut live, "watch-4", "v1", 4).await;
}

#[tokio::test]
async fn a_revoked_device_does_not_hold_its_rollout_up() {
    let (fleet, _shed, mut live) = fleet_with(&["v1"]).await;
    let barn = Device::join(&fleet, "barn").await;
    let _barn = barn.attach(&fleet, 0, Vec::new()).await;
    let rollout = fleet.roll_out("v1").await;
    let generation = accept(&mut live, "v1").await;
    live.observe(generation, vec![serving("v1")]).await;
    live.report(vec![window(1, "v1", 3)]).await;
    assert_eq!(fleet.rollout(&rollout).await.state.word(), "running");
    let mut operator = fleet.operator().await;
    operator.revoke_device("barn").await.unwrap();
    fleet.rollout_is(&rollout, "promoted").await;
}
