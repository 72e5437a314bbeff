//! What a rollout can be asked for, as devices and operators meet it.

use crate::support::device::{Device, Live, serving, window};
use crate::support::version::{MODEL, publish};
use crate::support::{Fleet, soon, spec};
use sandpiper_core::bandwidth::Bandwidth;
use sandpiper_core::chunks::CHUNK_BYTES;
use sandpiper_core::digest::ArtefactRef;
use sandpiper_core::rollout::{Approval, RolloutSpec, WaveSize, Windows};
use sandpiper_proto::convert::{FetchPart, FetchRequest, FromController, SteerVerb};
use sandpiper_proto::v1;

async fn fleet_with_v1() -> (Fleet, Device, Live) {
    let fleet = Fleet::start().await;
    publish(&fleet, "v1").await;
    fleet.deploy().await;
    let device = Device::join(&fleet, "barn").await;
    let live = device.attach(&fleet, 0, Vec::new()).await;
    (fleet, device, live)
}

async fn start(fleet: &Fleet, spec: &RolloutSpec) -> String {
    fleet.operator().await.start_rollout(spec).await.unwrap()
}

#[tokio::test]
async fn a_wave_waits_for_the_operator_who_may_approve_it() {
    let (mut fleet, _barn, mut first) = fleet_with_v1().await;
    let shed = Device::join(&fleet, "shed").await;
    let second = shed.attach(&fleet, 0, Vec::new()).await;
    let mut spec = spec("v1");
    spec.waves = vec![WaveSize::Count(1)];
    let asking = |by: &str| Approval {
        waves: "after-first".parse().unwrap(),
        by: vec![by.parse().unwrap()],
    };
    spec.approval = Some(asking("nobody"));
    start(&fleet, &spec).await;
    spec.approval = Some(asking("admin"));
    let name = start(&fleet, &spec).await;
    let generation = loop {
        let assignment = first.assignment().await;
        if assignment.generation.0 == fleet.device("barn").await.generation.0 {
            break assignment.generation.0;
        }
    };
    first.observe(generation, vec![serving("v1")]).await;
    first.report(vec![window(1, "v1", 3)]).await;
    fleet.rollout_is(&name, "awaiting-approval").await;
    // It waits over a restart.
    fleet.restart().await;
    let mut second = {
        drop(second);
        shed.attach(&fleet, 0, Vec::new()).await
    };
    assert_eq!(fleet.rollout(&name).await.state.word(), "awaiting-approval");
    assert_eq!(fleet.device("shed").await.generation.0, 0);
    let mut operator = fleet.operator().await;
    let approve = SteerVerb::Approve {
        why: Some("seen on the bench".to_owned()),
    };
    let rollout = name.parse().unwrap();
    operator.steer(&rollout, approve.clone()).await.unwrap();
    let assignment = second.assignment().await;
    assert!(assignment.models.contains_key(&MODEL.parse().unwrap()));
    let noted = fleet.events(&format!("rollout/{name}"), "Approved").await;
    assert!(noted[0].ends_with(": seen on the bench"), "{noted:?}");
    // Nothing waits any more.
    let again = operator.steer(&rollout, approve).await.unwrap_err();
    assert!(again.to_string().contains("is running"), "{again}");
}

#[tokio::test]
async fn who_may_not_approve_is_told_who_may() {
    let (fleet, _barn, _live) = fleet_with_v1().await;
    let mut spec = spec("v1");
    spec.approval = Some(Approval {
        waves: "every".parse().unwrap(),
        by: vec!["anna".parse().unwrap(), "bert".parse().unwrap()],
    });
    let name = start(&fleet, &spec).await.parse().unwrap();
    let mut operator = fleet.operator().await;
    for verb in [
        SteerVerb::Approve { why: None },
        SteerVerb::Promote { full: true },
    ] {
        let refused = operator.steer(&name, verb).await.unwrap_err();
        let text = refused.to_string();
        assert!(
            text.contains("approved by anna or bert, not by admin"),
            "{text}"
        );
    }
    operator.steer(&name, SteerVerb::Abort).await.unwrap();
}

#[tokio::test]
async fn a_device_with_windows_is_told_them_and_the_time_first() {
    let (fleet, barn, mut live) = fleet_with_v1().await;
    let mut spec = spec("v1");
    let always = vec!["00:00-24:00".parse().unwrap()];
    spec.windows = Some(Windows::new(Vec::new(), always));
    start(&fleet, &spec).await;
    let first = live.next().await.unwrap().unwrap();
    let FromController::Clock(time) = first else {
        panic!("{first:?}");
    };
    let assignment = live.assignment().await;
    let model = &assignment.models[&MODEL.parse().unwrap()];
    let schedule = model.schedule.as_ref().unwrap();
    assert_eq!(schedule.fetch, None);
    let switch = schedule.switch.as_ref().unwrap();
    assert!(switch.open_until(time).is_some());
    // Who comes back hears the time though he has the assignment.
    let generation = assignment.generation.0;
    let mut again = barn.attach(&fleet, generation, Vec::new()).await;
    let first = again.next().await.unwrap().unwrap();
    assert!(matches!(first, FromController::Clock(_)), "{first:?}");
}

#[tokio::test]
async fn a_time_zone_must_be_one() {
    let (fleet, _barn, _live) = fleet_with_v1().await;
    let mut operator = fleet.operator().await;
    let label = |zone: &str| [("time-zone".to_owned(), zone.to_owned())].into();
    let wrong = operator.set_labels("barn", label("Mars/Phobos"), Vec::new());
    let refused = wrong.await.unwrap_err().to_string();
    assert!(
        refused.contains("`Mars/Phobos` is no time zone"),
        "{refused}"
    );
    let right = operator.set_labels("barn", label("Europe/Berlin"), Vec::new());
    right.await.unwrap();
}

#[tokio::test]
async fn a_budget_of_bandwidth_holds_up_those_that_it_is_for() {
    let (fleet, barn, mut live) = fleet_with_v1().await;
    let bytes: Vec<u8> = (0..3 * CHUNK_BYTES).map(|n| n as u8).collect();
    let artefact = ArtefactRef::of(&bytes);
    fleet
        .operator()
        .await
        .upload(artefact, &bytes)
        .await
        .unwrap();
    let mut spec = spec("v1");
    spec.bandwidth = Some(Bandwidth {
        bytes_per_s: Some(1_024),
        per_group: None,
    });
    start(&fleet, &spec).await;
    live.assignment().await;
    let request = FetchRequest {
        artefact,
        first_chunk: 0,
    };
    let mut bound = barn.client(&fleet).await;
    let bound = bound.fetch(v1::FetchRequest::from(request)).await.unwrap();
    let mut bound = bound.into_inner();
    let mut next = async || {
        let part = soon("a part", bound.message()).await.unwrap().unwrap();
        FetchPart::try_from(part).unwrap()
    };
    assert!(matches!(next().await, FetchPart::Tree(_)));
    assert!(matches!(next().await, FetchPart::Chunk(_)));
    // The next one would take a minute. One that came after the rollout was planned has all by
    // then, and the other hears only that it waits.
    let shed = Device::join(&fleet, "shed").await;
    let mut free = shed.client(&fleet).await;
    let free = free.fetch(v1::FetchRequest::from(request)).await.unwrap();
    let mut free = free.into_inner();
    let mut parts = 0;
    while let Some(part) = soon("a part", free.message()).await.unwrap() {
        parts += 1;
        drop(part);
    }
    assert_eq!(parts, 4);
    assert_eq!(next().await, FetchPart::Wait);
}
