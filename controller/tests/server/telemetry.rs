//! Windows count once, and are acknowledged only when they are on disk.

use crate::support::Fleet;
use crate::support::device::{BOOT, Device, Live, serving, window, window_of};
use crate::support::version::publish;
use sandpiper_core::digest::Digest;
use sandpiper_core::view::LearnedDoc;

async fn fleet_with_v1() -> (Fleet, Device, Live) {
    let fleet = Fleet::start().await;
    publish(&fleet, "v1").await;
    let device = Device::join(&fleet, "shed").await;
    let live = device.attach(&fleet, 0, vec![serving("v1")]).await;
    (fleet, device, live)
}

async fn learned(fleet: &Fleet) -> LearnedDoc {
    let doc = fleet.device("shed").await;
    doc.models[0].learned.clone().unwrap()
}

#[tokio::test]
async fn a_window_sent_twice_counts_once() {
    let (fleet, device, mut live) = fleet_with_v1().await;
    let acked = live.report(vec![window(1, "v1", 5)]).await;
    assert_eq!(acked, (BOOT, 1));
    // In a batch of its own, together with a new one, and on another stream.
    assert_eq!(live.report(vec![window(1, "v1", 5)]).await, (BOOT, 1));
    let both = vec![window(1, "v1", 5), window(2, "v1", 7)];
    assert_eq!(live.report(both.clone()).await, (BOOT, 2));
    let mut again = device.attach(&fleet, 0, vec![serving("v1")]).await;
    assert_eq!(again.report(both).await, (BOOT, 2));
    assert_eq!(learned(&fleet).await.inferences, 12);
}

#[tokio::test]
async fn windows_out_of_order_count_once() {
    let (fleet, _device, mut live) = fleet_with_v1().await;
    // Within a batch, none is lost for it.
    let mixed = vec![
        window(3, "v1", 100),
        window(1, "v1", 1),
        window(2, "v1", 10),
    ];
    assert_eq!(live.report(mixed).await, (BOOT, 3));
    assert_eq!(learned(&fleet).await.inferences, 111);
    // What comes after it was acknowledged was stored before.
    assert_eq!(live.report(vec![window(2, "v1", 10)]).await, (BOOT, 3));
    assert_eq!(learned(&fleet).await.inferences, 111);
}

#[tokio::test]
async fn installations_are_counted_apart() {
    let (fleet, _device, mut live) = fleet_with_v1().await;
    live.report(vec![window(9, "v1", 1)]).await;
    let mut wiped = window(1, "v1", 2);
    wiped.boot = BOOT + 1;
    assert_eq!(live.report(vec![wiped]).await, (BOOT + 1, 1));
    assert_eq!(learned(&fleet).await.inferences, 3);
}

#[tokio::test]
async fn what_is_acknowledged_survives_a_power_cut() {
    let (fleet, device, mut live) = fleet_with_v1().await;
    assert_eq!(live.report(vec![window(4, "v1", 5)]).await, (BOOT, 4));
    let after = fleet.after_power_cut().await;
    assert_eq!(learned(&after).await.inferences, 5);
    let mut live = device.attach(&after, 0, vec![serving("v1")]).await;
    assert_eq!(live.report(vec![window(4, "v1", 5)]).await, (BOOT, 4));
    assert_eq!(learned(&after).await.inferences, 5);
}

#[tokio::test]
async fn windows_of_code_that_nobody_published_teach_nothing() {
    let (fleet, _device, mut live) = fleet_with_v1().await;
    let foreign = window_of(1, "v1", 5, Digest::of(b"something else"));
    // It is acknowledged all the same: to send it again would not make it better.
    assert_eq!(live.report(vec![foreign]).await, (BOOT, 1));
    assert!(fleet.device("shed").await.models[0].learned.is_none());
}
