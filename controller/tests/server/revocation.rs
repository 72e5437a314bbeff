//! A revoked device is out: at once, and for good.

use crate::support::Fleet;
use crate::support::device::{Device, window};
use sandpiper_core::chunks::CHUNK_BYTES;
use sandpiper_core::digest::ArtefactRef;
use sandpiper_core::time::Millis;
use sandpiper_proto::convert::{FetchRequest, FromController, FromDevice};
use sandpiper_proto::v1;
use sandpiper_transport::pki::{DEVICE_LIFE, KeyPair};
use std::time::Duration;
use tonic::Code;

/// A live stream must be cut within this time.
const CUT: Duration = Duration::from_secs(5);

#[tokio::test]
async fn its_stream_is_cut_and_its_calls_are_refused() {
    let mut fleet = Fleet::start().await;
    let device = Device::join(&fleet, "shed").await;
    let mut client = device.client(&fleet).await;
    let mut live = device.attach(&fleet, 0, Vec::new()).await;
    let mut operator = fleet.operator().await;
    operator.revoke_device("shed").await.unwrap();
    let cut = async {
        let goodbye = live.next().await.unwrap().unwrap();
        let expected = FromController::Disconnect {
            reason: "this device was revoked".to_owned(),
            retry: false,
        };
        assert_eq!(goodbye, expected);
        assert!(live.next().await.is_none());
    };
    tokio::time::timeout(CUT, cut).await.unwrap();
    // What it still says is not heard.
    live.try_say(FromDevice::Telemetry(vec![window(1, "v1", 1)]))
        .await;
    assert!(!fleet.device("shed").await.connected);
    // On the connection that it had, on a new one, and after a restart.
    let csr_der = KeyPair::generate().unwrap().request().unwrap();
    let renew = v1::RenewRequest { csr_der };
    let status = client.renew(renew.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    for restarts in 0..2 {
        if restarts > 0 {
            fleet.restart().await;
        }
        let refused = device.try_attach(&fleet, 0, Vec::new()).await;
        let status = refused.err().unwrap();
        assert_eq!(status.code(), Code::PermissionDenied);
        assert_eq!(status.message(), "device `shed` was revoked");
        let mut client = device.client(&fleet).await;
        let status = client.renew(renew.clone()).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied);
    }
    assert_eq!(fleet.events("device/shed", "Revoked").await.len(), 1);
}

#[tokio::test]
async fn a_fetch_under_way_is_cut() {
    let fleet = Fleet::start().await;
    let device = Device::join(&fleet, "shed").await;
    // Far more than fits into the buffers on the way.
    let bytes = vec![7; 64 * CHUNK_BYTES];
    let artefact = ArtefactRef::of(&bytes);
    let mut operator = fleet.operator().await;
    operator.upload(artefact, &bytes).await.unwrap();
    let request = FetchRequest {
        artefact,
        first_chunk: 0,
    };
    let mut client = device.client(&fleet).await;
    let parts = client.fetch(v1::FetchRequest::from(request)).await;
    let mut parts = parts.unwrap().into_inner();
    assert!(parts.message().await.unwrap().is_some());
    operator.revoke_device("shed").await.unwrap();
    // It reads slowly: what is on the way already fills the buffers, and no more is sent.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut got = 0;
    let status = loop {
        match parts.message().await {
            Ok(Some(_)) => got += 1,
            Ok(None) => panic!("the whole artefact was sent: {got} chunks"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_stream_does_not_outlive_its_certificate() {
    let fleet = Fleet::start().await;
    let mut device = Device::join(&fleet, "shed").await;
    let key = KeyPair::generate().unwrap();
    // Issued so long ago that it ends in three seconds.
    let left = Duration::from_secs(3);
    let age = u64::try_from((DEVICE_LIFE - left).as_millis()).unwrap();
    let issued = Millis(sandpiper::clock::now().0 - age);
    let name = "shed".parse().unwrap();
    let request = key.request().unwrap();
    device.identity.chain_der = fleet.ca().issue_device(&name, &request, issued).unwrap();
    device.identity.key_pem = key.to_pem();
    let mut client = device.client(&fleet).await;
    let mut live = device.attach(&fleet, 0, Vec::new()).await;
    let status = live.next().await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().contains("has expired"), "{status:?}");
    let renew = v1::RenewRequest {
        csr_der: key.request().unwrap(),
    };
    let status = client.renew(renew).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
}
