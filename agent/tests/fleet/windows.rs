//! The program fetches in one window and switches in another, by the time that the controller says.

use crate::device::{scheduled, version};
use crate::eventually;
use crate::serving::Setup;
use sandpiper_core::time::Millis;
use sandpiper_core::window::{Schedule, Spans};
use sandpiper_proto::convert::FromController;

/// A time that the clock of no machine shows that runs this.
const TOLD: u64 = 4_000_000_000_000;
const HOUR: u64 = 3_600_000;

fn spans(begin: u64, end: u64) -> Option<Spans> {
    let at = |hours: u64| Millis(TOLD + hours * HOUR);
    let all = vec![(at(begin), at(end))];
    Some(Spans::of(all, Millis(0), Millis(u64::MAX)))
}

async fn said(setup: &Setup, phase: &str) {
    eventually(phase, async || {
        setup.device.status().await.contains(phase).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_fetches_ahead_and_switches_in_its_window_without_a_controller() {
    let mut setup = Setup::attached().await;
    let version = version(&setup.controller);
    let schedule = Schedule {
        fetch: spans(1, 2),
        switch: spans(5, 6),
    };
    let schedule = Some(schedule);
    let bundle = scheduled(&setup.controller, "shed-1", 1, &[&version], schedule);
    let assignment = FromController::Assignment(Box::new(bundle));
    setup.controller.send(assignment).await;
    // Its own clock says nothing about windows.
    said(&setup, "AwaitingClock").await;
    let clock = |hours: u64| FromController::Clock(Millis(TOLD + hours * HOUR));
    setup.controller.send(clock(0)).await;
    said(&setup, "AwaitingDownload").await;
    assert!(setup.controller.desk().fetches.is_empty());
    setup.controller.send(clock(1)).await;
    said(&setup, "AwaitingSwitch").await;
    assert!(!setup.controller.desk().fetches.is_empty());
    assert_eq!(setup.device.infer().await.unwrap().status, 503);
    // The window opens a second after the last word of the controller.
    let soon = Millis(TOLD + 5 * HOUR - 1_000);
    setup.controller.send(FromController::Clock(soon)).await;
    setup.disconnect();
    setup.serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_its_power_it_loses_the_time_and_waits_to_be_told() {
    let mut setup = Setup::attached().await;
    let version = version(&setup.controller);
    let schedule = Schedule {
        fetch: None,
        switch: spans(5, 6),
    };
    let bundle = scheduled(&setup.controller, "shed-1", 1, &[&version], Some(schedule));
    let assignment = FromController::Assignment(Box::new(bundle));
    setup.controller.send(assignment).await;
    setup
        .controller
        .send(FromController::Clock(Millis(TOLD)))
        .await;
    said(&setup, "AwaitingSwitch").await;
    let attached = setup.controller.desk().streams.len();
    setup.device.kill();
    setup.device.start();
    said(&setup, "AwaitingClock").await;
    eventually("it attaches", async || {
        (setup.controller.desk().streams.len() > attached).then_some(())
    })
    .await;
    let now = Millis(TOLD + 5 * HOUR);
    setup.controller.send(FromController::Clock(now)).await;
    setup.serves().await;
}
