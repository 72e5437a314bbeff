//! Downloads over connections that cut and damage.

use crate::controller::{Controller, Mishap};
use crate::{PATIENCE, eventually};
use sandpiper_agent::depot::Depot;
use sandpiper_agent::fetcher::{Fetcher, Patience};
use sandpiper_core::chunks::{CHUNK_BYTES, ChunkTree};
use sandpiper_core::digest::ArtefactRef;
use sandpiper_core::reconcile::DeviceEvent;
use sandpiper_core::telemetry::FailureKind;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tonic::transport::Channel;

const HASTY: Patience = Patience {
    first: Duration::from_millis(2),
    longest: Duration::from_millis(10),
};

struct Setup {
    controller: Arc<Controller>,
    fetcher: Fetcher,
    depot: Depot,
    answers: mpsc::Receiver<DeviceEvent>,
    _live: watch::Sender<Option<Channel>>,
    _dir: TempDir,
}

impl Setup {
    async fn new() -> Self {
        let controller = Controller::new();
        let dir = tempfile::tempdir().unwrap();
        let depot = Depot::open(dir.path()).unwrap();
        let (live, channel) = watch::channel(Some(controller.channel().await));
        let (answer, answers) = mpsc::channel(8);
        let fetcher = Fetcher::new(depot.clone(), channel, answer, HASTY);
        Self {
            controller,
            fetcher,
            depot,
            answers,
            _live: live,
            _dir: dir,
        }
    }

    async fn answer(&mut self) -> DeviceEvent {
        let answer = tokio::time::timeout(PATIENCE, self.answers.recv()).await;
        answer.unwrap().unwrap()
    }

    fn fetches(&self) -> Vec<usize> {
        self.controller.desk().fetches.clone()
    }

    async fn begun(&self, fetches: usize) {
        eventually("a fetch begins", async || {
            (self.fetches().len() >= fetches).then_some(())
        })
        .await;
    }
}

/// Chunks that all differ.
fn blob(chunks: usize) -> Vec<u8> {
    let byte = |i: usize| (i * 31 % 251 + i / CHUNK_BYTES) as u8;
    (0..chunks * CHUNK_BYTES - 100).map(byte).collect()
}

fn held(setup: &Setup, artefact: ArtefactRef) {
    setup.depot.verify(artefact).unwrap();
    let partial = setup.depot.root().join("partial");
    assert_eq!(std::fs::read_dir(partial).unwrap().count(), 0);
}

#[tokio::test]
async fn a_cut_goes_on_where_it_was_and_damage_is_fetched_again_from_there() {
    let mut setup = Setup::new().await;
    let artefact = setup.controller.hold(blob(6));
    setup.controller.desk().mishaps = vec![
        Some(Mishap::Cut(2)),
        Some(Mishap::Damage(3)),
        Some(Mishap::Damage(3)),
    ];
    setup.fetcher.request(vec![artefact]);
    assert_eq!(setup.answer().await, DeviceEvent::Fetched(artefact));
    assert_eq!(setup.fetches(), [0, 2, 3, 3]);
    held(&setup, artefact);
}

#[tokio::test]
async fn damage_without_end_is_given_up() {
    let mut setup = Setup::new().await;
    let artefact = setup.controller.hold(blob(3));
    setup.controller.desk().mishaps = vec![Some(Mishap::Damage(1)); 100];
    setup.fetcher.request(vec![artefact]);
    match setup.answer().await {
        DeviceEvent::FetchFailed { kind, message, .. } => {
            assert_eq!(kind, FailureKind::Fetch);
            assert!(message.contains("chunk 1"), "{message}");
        }
        other => panic!("{other:?}"),
    }
    let fetches = setup.fetches();
    assert!((2..=10).contains(&fetches.len()), "{fetches:?}");
    assert!(fetches[1..].iter().all(|first| *first == 1), "{fetches:?}");
    assert!(setup.fetcher.under_way().is_empty());
}

#[tokio::test]
async fn what_a_killed_agent_left_is_used_and_only_holes_are_fetched() {
    let mut setup = Setup::new().await;
    let bytes = blob(5);
    let artefact = setup.controller.hold(bytes.clone());
    let mut partial = setup.depot.begin(ChunkTree::of(&bytes)).unwrap();
    for (index, chunk) in bytes.chunks(CHUNK_BYTES).enumerate().take(4) {
        partial.put(index, chunk).unwrap();
    }
    drop(partial);
    let path = setup.depot.root().join("partial");
    let path = path.join(artefact.digest.to_string());
    let mut left = std::fs::read(&path).unwrap();
    left[CHUNK_BYTES + 7] ^= 1;
    // The last chunk is torn.
    left.extend(&bytes[4 * CHUNK_BYTES..5 * CHUNK_BYTES - 200]);
    std::fs::write(&path, left).unwrap();
    setup.fetcher.request(vec![artefact]);
    assert_eq!(setup.answer().await, DeviceEvent::Fetched(artefact));
    assert_eq!(setup.fetches(), [1, 4]);
    held(&setup, artefact);
}

#[tokio::test]
async fn one_artefact_has_one_download_however_often_it_is_asked_for() {
    let mut setup = Setup::new().await;
    let artefact = setup.controller.hold(blob(2));
    setup.controller.gate.forget_permits(1000);
    for _ in 0..5 {
        setup.fetcher.request(vec![artefact, artefact]);
    }
    setup.begun(1).await;
    setup.fetcher.request(vec![artefact]);
    setup.controller.gate.add_permits(1000);
    assert_eq!(setup.answer().await, DeviceEvent::Fetched(artefact));
    assert_eq!(setup.fetches(), [0]);
    // What is there already is answered for without a fetch.
    setup.fetcher.request(vec![artefact]);
    assert_eq!(setup.answer().await, DeviceEvent::Fetched(artefact));
    assert_eq!(setup.fetches(), [0]);
    assert!(setup.answers.try_recv().is_err());
}

#[tokio::test]
async fn collecting_garbage_spares_downloads_under_way_and_ends_the_unwanted() {
    let mut setup = Setup::new().await;
    let (wanted, other) = (blob(4), blob(3));
    let (wanted, other) = (setup.controller.hold(wanted), setup.controller.hold(other));
    setup.controller.desk().mishaps = vec![Some(Mishap::Cut(2)), Some(Mishap::Cut(2))];
    setup.controller.gate.forget_permits(998);
    setup.fetcher.request(vec![wanted, other]);
    // Both have two chunks and wait for the rest.
    setup.begun(4).await;
    let live: BTreeSet<_> = [wanted.digest].into();
    let mut keep = setup.fetcher.under_way();
    assert_eq!(keep.len(), 2);
    setup.fetcher.keep_only(&live);
    keep.extend(&live);
    assert_eq!(setup.depot.collect(&keep).unwrap(), 0);
    setup.controller.gate.add_permits(1000);
    assert_eq!(setup.answer().await, DeviceEvent::Fetched(wanted));
    eventually("the unwanted one ends", async || {
        setup.fetcher.under_way().is_empty().then_some(())
    })
    .await;
    assert!(!setup.depot.has(other));
    // Wanted again later, it goes on.
    setup.fetcher.request(vec![other]);
    assert_eq!(setup.answer().await, DeviceEvent::Fetched(other));
    assert_eq!(setup.fetches()[4..], [2]);
}

#[tokio::test]
async fn fault_4_only_the_corrupt_chunk_is_fetched_again() {
    let mut setup = Setup::new().await;
    let bytes = blob(6);
    let artefact = setup.controller.hold(bytes.clone());
    // All chunks are on the disk, and one has rotted there.
    let mut partial = setup.depot.begin(ChunkTree::of(&bytes)).unwrap();
    for (index, chunk) in bytes.chunks(CHUNK_BYTES).enumerate() {
        partial.put(index, chunk).unwrap();
    }
    drop(partial);
    let path = setup.depot.root().join("partial");
    let path = path.join(artefact.digest.to_string());
    let mut rotten = std::fs::read(&path).unwrap();
    rotten[3 * CHUNK_BYTES + 100] ^= 4;
    std::fs::write(&path, rotten).unwrap();
    // It comes damaged once more; the second time it is right.
    setup.controller.desk().mishaps = vec![Some(Mishap::Damage(3))];
    setup.fetcher.request(vec![artefact]);
    assert_eq!(setup.answer().await, DeviceEvent::Fetched(artefact));
    assert_eq!(setup.fetches(), [3, 3]);
    held(&setup, artefact);
}

#[tokio::test]
async fn fault_5_a_stream_that_is_too_short_or_too_long_gives_the_signed_length() {
    for mishap in [
        Mishap::Ends(0),
        Mishap::Ends(2),
        Mishap::Longer(1),
        Mishap::Longer(3),
        Mishap::Endless,
    ] {
        let mut setup = Setup::new().await;
        let bytes = blob(4);
        let artefact = setup.controller.hold(bytes.clone());
        setup.controller.desk().mishaps = vec![Some(mishap)];
        setup.fetcher.request(vec![artefact]);
        let mut answer = setup.answer().await;
        if let DeviceEvent::FetchFailed { kind, message, .. } = &answer {
            // What no chunk can be is told, and asked for again by the reconciler.
            assert_eq!(*kind, FailureKind::Fetch);
            assert!(message.contains("65537"), "{message}");
            setup.fetcher.request(vec![artefact]);
            answer = setup.answer().await;
        }
        assert_eq!(answer, DeviceEvent::Fetched(artefact));
        held(&setup, artefact);
        let path = setup.depot.path_of(artefact.digest);
        assert_eq!(std::fs::read(path).unwrap(), bytes, "{mishap:?}");
    }
}
