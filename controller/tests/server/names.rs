//! A device is only ever itself.

use crate::support::Fleet;
use crate::support::device::{Device, enrol, serving, window};
use crate::support::version::publish;
use sandpiper_transport::pki::KeyPair;
use std::time::Duration;
use tonic::Code;

#[tokio::test]
async fn a_name_that_is_taken_is_refused_and_the_token_stays_good() {
    let fleet = Fleet::start().await;
    Device::join(&fleet, "shed").await;
    let (_, token) = fleet.token(Duration::from_secs(600)).await;
    let key = KeyPair::generate().unwrap();
    let csr = || key.request().unwrap();
    let status = enrol(&fleet, &token.secret, "shed", csr()).await;
    let status = status.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(
        status.message(),
        "the name `shed` is taken: join with another --name"
    );
    let noted = fleet.events("device/shed", "EnrolRefused").await;
    assert!(
        noted.len() == 1 && noted[0].contains("is taken"),
        "{noted:?}"
    );
    enrol(&fleet, &token.secret, "barn", csr()).await.unwrap();
}

#[tokio::test]
async fn a_name_that_is_none_is_refused() {
    let fleet = Fleet::start().await;
    let (_, token) = fleet.token(Duration::from_secs(600)).await;
    let csr = KeyPair::generate().unwrap().request().unwrap();
    for name in ["", "../shed", "Shed", "shed/../barn", &"a".repeat(64)] {
        let status = enrol(&fleet, &token.secret, name, csr.clone()).await;
        let status = status.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{name}");
    }
}

#[tokio::test]
async fn what_a_device_reports_counts_for_itself_alone() {
    let fleet = Fleet::start().await;
    let shed = Device::join(&fleet, "shed").await;
    let barn = Device::join(&fleet, "barn").await;
    publish(&fleet, "v1").await;
    let _quiet = barn.attach(&fleet, 0, Vec::new()).await;
    let mut live = shed.attach(&fleet, 0, vec![serving("v1")]).await;
    live.report(vec![window(1, "v1", 5)]).await;
    let doc = fleet.device("shed").await;
    let learned = doc.models[0].learned.as_ref().unwrap();
    assert_eq!(learned.inferences, 5);
    let doc = fleet.device("barn").await;
    assert!(doc.connected && doc.models.is_empty());
}

#[tokio::test]
async fn a_newer_stream_takes_the_place_of_an_older_one() {
    let fleet = Fleet::start().await;
    let device = Device::join(&fleet, "shed").await;
    let mut old = device.attach(&fleet, 0, Vec::new()).await;
    let mut new = device.attach(&fleet, 0, Vec::new()).await;
    // The reason, and then the end.
    assert!(old.next().await.unwrap().is_ok());
    assert!(old.next().await.is_none());
    new.report(vec![window(1, "v1", 1)]).await;
    assert!(fleet.device("shed").await.connected);
}
