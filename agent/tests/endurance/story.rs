//! The life of a device that is recorded: it joins, installs, gets a new certificate, is started
//! anew, goes back from a version that dies, refuses one that answers wrongly, is brought to another agent.

use crate::controller::{Mishap, fleet};
use crate::device::{Running, load};
use crate::recorder::{Op, Recorder};
use crate::within;
use crate::world::World;
use sandpiper_agent::identity::Identity;
use sandpiper_agent::update::VERSION;
use sandpiper_core::names::DeviceName;
use sandpiper_core::update::{Start, UpdatePhase};
use sandpiper_transport::fsio::{self, Disk};
use std::path::Path;
use std::sync::Arc;

/// An identity of this world's controller.
pub(crate) async fn joined(world: &World) -> Identity {
    let (address, server) = world.controller.serve().await;
    let dir = tempfile::tempdir().unwrap();
    let name = DeviceName::new("shed-1").unwrap();
    let token = world.controller.token(&address);
    let identity = Identity::join(dir.path(), &token, name).await.unwrap();
    server.abort();
    assert_eq!(identity.fleet, fleet());
    identity
}

/// Asks a few times, so that there is a window to be kept, and tells what was kept before as
/// received.
async fn used(agent: &Running, world: &World) {
    for _ in 0..3 {
        agent.serves(world).await.unwrap();
    }
    let mut ring = agent.ring.lock().unwrap();
    if let Some(last) = ring.pending(0, 10).last() {
        ring.acknowledge(last.boot, last.sequence).unwrap();
    }
}

/// Lives it on a real disk and gives every operation, in order.
pub(crate) async fn recorded(world: &World, identity: &Identity) -> Vec<Op> {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::new(fsio::system(), dir.path());
    live(world, identity, &recorder, dir.path()).await;
    recorder.log()
}

async fn live(world: &World, identity: &Identity, recorder: &Recorder, root: &Path) {
    let disk: Arc<dyn Disk> = Arc::new(recorder.clone());
    identity.save_on(&*disk, root).unwrap();
    let start = async || {
        let agent = Running::start(world, &disk, root, load(&disk, root).unwrap());
        let channel = world.controller.channel().await;
        agent.channel.send_replace(Some(channel));
        agent
    };
    let agent = start().await;
    agent.assign(world.assigned(1, "v1")).await;
    agent.comes_to(world, "v1").await.unwrap();
    used(&agent, world).await;
    // Downloads are cut and damaged, and go on.
    world.controller.desk().mishaps = vec![Some(Mishap::Cut(1)), Some(Mishap::Damage(1))];
    agent.assign(world.assigned(2, "v2")).await;
    agent.comes_to(world, "v2").await.unwrap();
    used(&agent, world).await;
    agent.stop().await;
    // A new certificate is written like this.
    identity.save_on(&*disk, root).unwrap();
    let agent = start().await;
    agent.comes_to(world, "v2").await.unwrap();
    agent.assign(world.assigned(3, "v3")).await;
    let failed = async || {
        let seen = agent.handle.observation.borrow();
        let model = seen.models.first()?;
        (seen.generation.0 == 3).then_some(())?;
        model.failure.is_some().then_some(())
    };
    within("v3 is given up", failed).await.unwrap();
    agent.comes_to(world, "v2").await.unwrap();
    used(&agent, world).await;
    agent.assign(world.assigned(4, "v4")).await;
    let failed = async || {
        let seen = agent.handle.observation.borrow();
        (seen.generation.0 == 4).then_some(())?;
        seen.models.first()?.failure.is_some().then_some(())
    };
    within("v4 is refused", failed).await.unwrap();
    agent.comes_to(world, "v2").await.unwrap();
    agent.assign(world.assigned(5, "v5")).await;
    agent.comes_to(world, "v5").await.unwrap();
    used(&agent, world).await;
    // And is brought to another agent, which works.
    agent.attached().await;
    agent.assign(world.updating(6, "v5")).await;
    agent.gives_way().await;
    let mut kept = load(&disk, root).unwrap();
    let Start::Trial(program) = kept.update.choose(VERSION) else {
        panic!("nothing is tried: {:?}", kept.update);
    };
    kept.programs.save(&kept.update).unwrap();
    kept.programs.verify(program.artefact).unwrap();
    kept.running = Some(program.artefact.digest);
    let agent = Running::start(world, &disk, root, kept);
    agent.attached().await;
    let confirmed = async || {
        let seen = agent.handle.observation.borrow();
        (seen.agent.as_ref()?.phase == Some(UpdatePhase::Confirmed)).then_some(())
    };
    within("the agent is confirmed", confirmed).await.unwrap();
    agent.stop().await;
}
