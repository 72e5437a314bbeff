//! Two cards with one identity: both are shut out until an operator has seen to it.

use crate::support::Fleet;
use crate::support::device::Device;
use tonic::Code;

/// Fault 23: duplicate id (cloned card): both are quarantined, and there is an alert.
#[tokio::test]
async fn a_cloned_card_is_quarantined_with_its_original_until_it_is_released() {
    let mut fleet = Fleet::start().await;
    let card = Device::join(&fleet, "shed").await;
    let attach = |boot_id: u64| card.try_attach_as(boot_id, &fleet, 0, Vec::new());
    // Started again and again: each start is a new one.
    for boot_id in 1..=6 {
        attach(boot_id).await.unwrap();
    }
    assert!(!fleet.device("shed").await.quarantined);
    // From here on two cards displace each other.
    let mut lives = Vec::new();
    let mut refused = None;
    for boot_id in [7, 8, 7, 8, 7] {
        match attach(boot_id).await {
            Ok(live) => lives.push(live),
            Err(status) => refused = Some(status),
        }
    }
    let text = "device `shed` is in quarantine: two cards use its identity";
    let status = refused.unwrap();
    assert_eq!(
        (status.code(), status.message()),
        (Code::PermissionDenied, text)
    );
    for boot_id in [7, 8, 9] {
        assert_eq!(attach(boot_id).await.err().unwrap().message(), text);
    }
    let doc = fleet.device("shed").await;
    assert!(doc.quarantined && !doc.connected);
    assert_eq!(fleet.events("device/shed", "Quarantined").await.len(), 1);
    // A restart forgets nothing of it.
    fleet.restart().await;
    let status = card.try_attach(&fleet, 0, Vec::new()).await.err().unwrap();
    assert_eq!(status.message(), text);
    let mut operator = fleet.operator().await;
    operator.release_device("shed").await.unwrap();
    assert!(operator.release_device("shed").await.is_err(), "once only");
    let _live = card.attach(&fleet, 0, Vec::new()).await;
    let doc = fleet.device("shed").await;
    assert!(doc.connected && !doc.quarantined);
}
