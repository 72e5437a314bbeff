//! A wave of more devices than one transaction of the store holds.

use crate::support::Fleet;
use crate::support::device::{Device, observation, profile, serving, window};
use crate::support::version::publish;
use sandpiper::clock;
use sandpiper::store::{MAX_TRANSACTION_KEYS, SledStore, Store, Transaction};
use sandpiper_core::assignment::Generation;
use sandpiper_core::fleet::DeviceRecord;
use sandpiper_core::policy::Labels;
use sandpiper_core::rollout::DeviceRollout;
use sandpiper_core::view::DeviceDoc;
use sandpiper_proto::convert::ResourceKind;

/// Devices besides the one that is played.
const MANY: usize = MAX_TRANSACTION_KEYS + 500;

/// Puts devices into the store of a controller that is stopped: to let so many join would take
/// minutes.
fn settle(fleet: &Fleet) {
    let store = SledStore::open(&fleet.data().join("db")).unwrap();
    let names: Vec<String> = (0..MANY).map(|n| format!("pi-{n:05}")).collect();
    for part in names.chunks(MAX_TRANSACTION_KEYS) {
        let records = part.iter().map(|name| {
            let mut record = DeviceRecord::new(name.parse().unwrap(), Labels::new(), clock::now());
            record.profile = Some(profile());
            record.observation = Some(observation(0, Vec::new()));
            let key = format!("d/{name}").into_bytes();
            (key, serde_json::to_vec(&record).unwrap())
        });
        let transaction = Transaction {
            put: records.collect(),
            ..Transaction::default()
        };
        store.transact(transaction).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wave_of_more_devices_than_one_transaction_holds() {
    let mut fleet = Fleet::start().await;
    publish(&fleet, "v1").await;
    fleet.deploy().await;
    let shed = Device::join(&fleet, "shed").await;
    fleet.stop().await;
    settle(&fleet);
    fleet.resume().await;
    let mut live = shed.attach(&fleet, 0, Vec::new()).await;
    let rollout = fleet.roll_out("v1").await;
    let assignment = live.assignment().await;
    live.observe(assignment.generation.0, vec![serving("v1")])
        .await;
    live.report(vec![window(1, "v1", 3)]).await;
    let before = fleet.rollout(&rollout).await;
    assert_eq!(before.devices.len(), MANY + 1);
    // All of it is on disk: the rollout and the assignment of every device.
    let after = fleet.after_power_cut().await;
    assert_eq!(after.rollout(&rollout).await, before);
    let (mut assigned, mut succeeded) = (0, 0);
    for device in &before.devices {
        match device.progress {
            DeviceRollout::Assigned { .. } => assigned += 1,
            DeviceRollout::Succeeded => succeeded += 1,
            _ => panic!("{device:?}"),
        }
    }
    assert_eq!((assigned, succeeded), (MANY, 1));
    let devices: Vec<DeviceDoc> = after.list(ResourceKind::Devices).await;
    assert_eq!(devices.len(), MANY + 1);
    assert!(devices.iter().all(|d| d.generation == Generation(1)));
}
