//! The agent in this process: the parts that a start puts together, over any disk.

use crate::within;
use crate::world::{Bench, Conduct, MODEL, World};
use sandpiper_agent::assemble::{Kept, assemble};
use sandpiper_agent::config::Config;
use sandpiper_agent::driver::{Ended, Handle, Input};
use sandpiper_agent::fetcher::Patience;
use sandpiper_agent::notify::Notifier;
use sandpiper_agent::serve::routes::{Routes, Served};
use sandpiper_agent::telemetry::Ring;
use sandpiper_core::reconcile::DeviceEvent;
use sandpiper_transport::fsio::Disk;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tonic::transport::Channel;

const HASTY: Patience = Patience {
    first: Duration::from_millis(2),
    longest: Duration::from_millis(10),
};

/// An agent that runs.
pub(crate) struct Running {
    pub(crate) routes: Arc<Routes>,
    pub(crate) handle: Handle,
    pub(crate) channel: watch::Sender<Option<Channel>>,
    pub(crate) ring: Arc<Mutex<Ring>>,
    pub(crate) bench: Arc<Bench>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Ended>,
}

pub(crate) fn config(root: &Path) -> Config {
    let none = "/nonexistent";
    let text = format!(
        "state_dir = {root:?}\n[roots]\nsysfs = {none:?}\nprocfs = {none:?}\npowercap = {none:?}\n"
    );
    Config::parse(&text).unwrap()
}

/// What the disk holds.
pub(crate) fn load(disk: &Arc<dyn Disk>, root: &Path) -> Result<Kept, String> {
    Kept::load(disk, root).map_err(|e| format!("{e:#}"))
}

impl Running {
    /// Starts on what was loaded from a disk.
    pub(crate) fn start(world: &World, disk: &Arc<dyn Disk>, root: &Path, kept: Kept) -> Self {
        let bench = world.launcher(disk);
        let agent = assemble(config(root), kept, bench.clone(), HASTY);
        let (stop, stopped) = oneshot::channel();
        let run = agent.driver.run(
            agent.inbox,
            agent.fetched,
            Notifier::from_env(),
            async move {
                // A test that forgets it stops it too.
                let _ = stopped.await;
            },
        );
        Self {
            routes: agent.routes,
            handle: agent.handle,
            channel: agent.channel,
            ring: agent.ring,
            bench,
            stop,
            task: tokio::spawn(run),
        }
    }

    pub(crate) async fn assign(&self, event: DeviceEvent) {
        self.handle.inputs.send(Input::Event(event)).await.unwrap();
    }

    /// Waits until a good version serves and what it answers is right.
    pub(crate) async fn serves(&self, world: &World) -> Result<Arc<Served>, String> {
        let good = async || {
            let served = self.routes.get(MODEL)?;
            (world.conduct(&served.by.version) == Conduct::Good).then_some(served)
        };
        let served = within("a good version serves", good).await?;
        let input = [1, 2, 3, 4].map(i32::to_le_bytes).concat();
        let answer = self.routes.infer(served.clone(), 1, vec![input]).await;
        let outputs = answer.map_err(|e| e.to_string())?.outputs;
        let right = [2, 3, 4, 5].map(i32::to_le_bytes).concat();
        match outputs == [right] {
            true => Ok(served),
            false => Err(format!("a wrong answer: {outputs:?}")),
        }
    }

    /// Waits until this version serves and nothing is on its way any more.
    pub(crate) async fn comes_to(&self, world: &World, version: &str) -> Result<(), String> {
        let what = format!("{version} serves and is reported");
        let done = async || {
            let served = self.routes.get(MODEL)?;
            let seen = self.handle.observation.borrow().clone();
            let model = seen.models.first()?;
            let rests = model.failure.is_some() || model.wanted.as_str() == version;
            (served.by.version.as_str() == version
                && rests
                && model.fetched_bytes == model.needed_bytes
                && model.serving.as_ref()?.version.as_str() == version)
                .then_some(())
        };
        let found = within(&what, done).await;
        found.map_err(|e| format!("{e}: {:?}", self.handle.observation.borrow().models))?;
        self.serves(world).await.map(|_| ())
    }

    /// The controller has taken its hello.
    pub(crate) async fn attached(&self) {
        self.handle
            .inputs
            .send(Input::Attached(true))
            .await
            .unwrap();
    }

    /// Waits until it gives way to another program.
    pub(crate) async fn gives_way(self) {
        let Self { task, .. } = self;
        assert_eq!(task.await.unwrap(), Ended::Restart);
    }

    /// Ends it in good order.
    pub(crate) async fn stop(self) {
        drop(self.channel);
        // It may have ended by itself.
        let _ = self.stop.send(());
        self.task.await.unwrap();
    }
}
