//! What a controller knew before it stopped, it knows afterwards.

use crate::support::Fleet;
use crate::support::device::{Device, serving, window};
use crate::support::version::publish;
use sandpiper_core::rollout::DeviceRollout;
use std::time::Duration;

#[tokio::test]
async fn devices_assignments_and_rollouts_survive() {
    let mut fleet = Fleet::start().await;
    publish(&fleet, "v1").await;
    fleet.deploy().await;
    let shed = Device::join(&fleet, "shed").await;
    let barn = Device::join(&fleet, "barn").await;
    let (_, token) = fleet.token(Duration::from_secs(600)).await;
    let mut live = shed.attach(&fleet, 0, Vec::new()).await;
    let rolled = {
        let _barn = barn.attach(&fleet, 0, Vec::new()).await;
        fleet.roll_out("v1").await
    };
    let before = live.assignment().await;
    live.observe(before.generation.0, vec![serving("v1")]).await;
    live.report(vec![window(1, "v1", 2)]).await;
    let stood = fleet.rollout(&rolled).await;
    fleet.restart().await;
    assert_eq!(fleet.rollout(&rolled).await, stood);
    // The one that has its assignment is not sent it again, the one that missed it gets it, and
    // nobody's generation rises for it.
    let mut live = shed
        .attach(&fleet, before.generation.0, vec![serving("v1")])
        .await;
    let mut late = barn.attach(&fleet, 0, Vec::new()).await;
    let missed = late.assignment().await;
    assert_eq!(missed.generation.0, 1);
    for name in ["shed", "barn"] {
        assert_eq!(fleet.device(name).await.generation.0, 1, "{name}");
    }
    // The first message that `shed` gets is the answer to what it says: the two inferences of
    // before count, the third comes now.
    live.report(vec![window(1, "v1", 2), window(2, "v1", 1)])
        .await;
    let doc = fleet.rollout(&rolled).await;
    let progress = |name: &str| {
        let mut devices = doc.devices.iter();
        let found = devices.find(|d| d.device.as_str() == name);
        found.unwrap().progress.clone()
    };
    assert_eq!(progress("shed"), DeviceRollout::Succeeded);
    late.observe(1, vec![serving("v1")]).await;
    late.report(vec![window(1, "v1", 3)]).await;
    fleet.rollout_is(&rolled, "promoted").await;
    let csr = sandpiper_transport::pki::KeyPair::generate().unwrap();
    let csr = csr.request().unwrap();
    let joined = crate::support::device::enrol(&fleet, &token.secret, "late", csr).await;
    joined.unwrap();
}

#[tokio::test]
async fn a_power_cut_after_a_rollout_began_assigns_nothing_twice() {
    let fleet = Fleet::start().await;
    publish(&fleet, "v1").await;
    fleet.deploy().await;
    let device = Device::join(&fleet, "shed").await;
    let mut live = device.attach(&fleet, 0, Vec::new()).await;
    let rollout = fleet.roll_out("v1").await;
    let before = live.assignment().await;
    let after = fleet.after_power_cut().await;
    assert_eq!(after.rollout(&rollout).await.state.word(), "running");
    // It was cut before the device had kept what it was sent.
    let mut live = device.attach(&after, 0, Vec::new()).await;
    assert_eq!(live.assignment().await, before);
    live.observe(before.generation.0, vec![serving("v1")]).await;
    live.report(vec![window(1, "v1", 3)]).await;
    after.rollout_is(&rollout, "promoted").await;
    assert_eq!(after.device("shed").await.generation, before.generation);
}

#[tokio::test]
async fn a_deadline_that_passed_meanwhile_counts() {
    let mut fleet = Fleet::start().await;
    publish(&fleet, "v1").await;
    fleet.deploy().await;
    let device = Device::join(&fleet, "shed").await;
    let live = device.attach(&fleet, 0, Vec::new()).await;
    let mut spec = crate::support::spec("v1");
    spec.wave_deadline_s = 1;
    let rollout = fleet.operator().await.start_rollout(&spec).await.unwrap();
    drop(live);
    fleet.connected("shed", false).await;
    fleet.restart().await;
    fleet.rollout_is(&rollout, "rolled-back").await;
    let mut live = device.attach(&fleet, 0, Vec::new()).await;
    let back = live.assignment().await;
    assert!(back.models.is_empty());
}
