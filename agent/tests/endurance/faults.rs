//! A disk that is full or fails, at every operation of an installation.

use crate::device::{Running, load};
use crate::memory::{MemoryDisk, Tree};
use crate::recorder::{Fault, Recorder};
use crate::story::joined;
use crate::within;
use crate::world::World;
use sandpiper_agent::depot::Depot;
use sandpiper_agent::identity::Identity;
use sandpiper_core::digest::Digest;
use sandpiper_core::telemetry::ModelPhase;
use sandpiper_transport::fsio::{self, Disk};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::task::{JoinSet, LocalSet};

/// A device that serves `v1`, and its disk.
async fn serving(world: &World, identity: &Identity) -> (Running, Recorder, Arc<dyn Disk>) {
    let root = root();
    let memory = MemoryDisk::new(&root, Tree::default());
    let recorder = Recorder::new(Arc::new(memory), &root);
    let disk: Arc<dyn Disk> = Arc::new(recorder.clone());
    identity.save_on(&*disk, &root).unwrap();
    let agent = Running::start(world, &disk, &root, load(&disk, &root).unwrap());
    world.controller.gate.add_permits(100);
    let channel = world.controller.channel().await;
    agent.channel.send_replace(Some(channel));
    agent.assign(world.assigned(1, "v1")).await;
    agent.comes_to(world, "v1").await.unwrap();
    (agent, recorder, disk)
}

fn root() -> PathBuf {
    PathBuf::from("/state")
}

/// Every file among the artefacts is what its name says.
fn sound(disk: &dyn Disk) -> Result<(), String> {
    let dir = root().join("artefacts");
    for name in disk.list(&dir).unwrap() {
        let bytes = fsio::read(disk, &dir.join(&name)).unwrap();
        if Digest::of(&bytes).to_string() != name.to_string_lossy() {
            return Err(format!("{} is damaged", name.display()));
        }
    }
    Ok(())
}

/// Operations of an installation of `v2` that goes well.
async fn operations(world: &World, identity: &Identity) -> u64 {
    let (agent, recorder, _) = serving(world, identity).await;
    let before = recorder.done();
    agent.assign(world.assigned(2, "v2")).await;
    agent.comes_to(world, "v2").await.unwrap();
    agent.stop().await;
    recorder.done() - before
}

/// Lets some operations of an installation fail. The old model serves on whatever happens; once the
/// disk is well again, the new one is installed, if need be by a new assignment; after a restart the
/// same serves.
async fn installs_over(
    world: Arc<World>,
    identity: Identity,
    fault: Fault,
) -> Result<Vec<String>, String> {
    let (agent, recorder, disk) = serving(&world, &identity).await;
    recorder.fail(fault);
    agent.assign(world.assigned(2, "v2")).await;
    let settled = async || {
        let seen = agent.handle.observation.borrow();
        let model = seen.models.first()?;
        let failed = model.phase == ModelPhase::Failed;
        let there = model.serving.as_ref()?.version.as_str() == "v2";
        let failure = model.failure.as_ref().map(|f| f.message.clone());
        // What cannot be written is not told as done.
        let why = seen.refused.clone().or(failure);
        (failed || there || why.is_some()).then_some(why)
    };
    let why = within("the installation ends", settled).await?;
    agent.serves(&world).await?;
    sound(&*disk)?;
    let failed = recorder.failed();
    if let Some(why) = &why {
        let reason = std::io::Error::from_raw_os_error(fault.errno).to_string();
        let reason = reason.split(" (os").next().unwrap_or_default().to_owned();
        if !why.contains(&reason) {
            return Err(format!("the message does not say why: {why}"));
        }
    }
    recorder.heal();
    agent.assign(world.assigned(3, "v2")).await;
    agent.comes_to(&world, "v2").await?;
    agent.stop().await;
    let kept = load(&disk, &root())?;
    let agent = Running::start(&world, &disk, &root(), kept);
    let served = agent.serves(&world).await?;
    let version = served.by.version.clone();
    agent.stop().await;
    match version.as_str() {
        "v2" => Ok(failed),
        other => Err(format!("{other} serves after a restart")),
    }
}

async fn at_every_operation(errno: i32, count: u64) {
    let world = Arc::new(World::new());
    let identity = joined(&world).await;
    let all = operations(&world, &identity).await;
    let (mut tasks, mut injected) = (JoinSet::new(), 0);
    for after in 0..all {
        let fault = Fault {
            after,
            count,
            errno,
        };
        let (world, identity) = (world.clone(), identity.clone());
        tasks.spawn_local(async move { (after, installs_over(world, identity, fault).await) });
    }
    let mut broken = Vec::new();
    while let Some(done) = tasks.join_next().await {
        match done.unwrap() {
            (_, Ok(failed)) => injected += failed.len(),
            (after, Err(why)) => broken.push(format!("operation {after}: {why}")),
        }
    }
    println!("{injected} operations failed, of installations of {all} operations");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(injected as u64 >= all / 2);
}

#[tokio::test]
async fn fault_16_a_disk_that_is_full_at_any_step_leaves_the_active_model_and_says_so() {
    // Full from there on.
    let all = at_every_operation(libc::ENOSPC, u64::MAX);
    LocalSet::new().run_until(all).await;
}

#[tokio::test]
async fn fault_17_any_operation_that_fails_leaves_the_active_model_and_no_artefact_unsynced() {
    let all = at_every_operation(libc::EIO, 1);
    LocalSet::new().run_until(all).await;
}

#[tokio::test]
async fn fault_17_an_artefact_that_did_not_sync_is_discarded() {
    let world = World::new();
    let artefact = world.artefacts("v1")[0];
    let memory = MemoryDisk::new(&root(), Tree::default());
    let recorder = Recorder::new(Arc::new(memory), &root());
    let disk: Arc<dyn Disk> = Arc::new(recorder.clone());
    let depot = Depot::open_on(disk.clone(), &root()).unwrap();
    let bytes = world.controller.desk().blobs[&artefact.digest].clone();
    // The sync of its content, its rename, the sync of the name.
    for after in 0..3 {
        let tree = sandpiper_core::chunks::ChunkTree::of(&bytes);
        let mut partial = depot.begin(tree).unwrap();
        for (index, chunk) in bytes
            .chunks(sandpiper_core::chunks::CHUNK_BYTES)
            .enumerate()
        {
            partial.put(index, chunk).unwrap();
        }
        recorder.fail(Fault {
            after,
            count: 1,
            errno: libc::EIO,
        });
        assert!(depot.commit(partial).is_err());
        assert!(!depot.has(artefact), "{:?}", recorder.failed());
        for dir in ["artefacts", "partial"] {
            let left = disk.list(&Path::new("/state").join(dir)).unwrap();
            assert!(left.is_empty(), "{left:?} is left in {dir}");
        }
        assert!(depot.resume(artefact).unwrap().is_none());
        recorder.heal();
    }
    assert_eq!(recorder.failed().len(), 3);
}

/// What a device knows of trust is not replaced by nothing when it cannot be read.
#[tokio::test]
async fn fault_3_a_torn_trust_state_is_refused_and_kept() {
    let world = World::new();
    let identity = joined(&world).await;
    let (agent, _, disk) = serving(&world, &identity).await;
    agent.stop().await;
    for name in ["state.json", "identity.json"] {
        let path = root().join(name);
        let whole = fsio::read(&*disk, &path).unwrap();
        for torn in [
            &whole[..0],
            &whole[..whole.len() / 2],
            &vec![0; whole.len()],
        ] {
            fsio::write_atomic_on(&*disk, &path, torn, 0o600).unwrap();
            let error = load(&disk, &root()).err().unwrap();
            assert!(error.contains(name), "{error}");
            assert_eq!(fsio::read(&*disk, &path).unwrap(), torn);
        }
        fsio::write_atomic_on(&*disk, &path, &whole, 0o600).unwrap();
        assert_eq!(load(&disk, &root()).unwrap().state.generation.0, 1);
    }
}
