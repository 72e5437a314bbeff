//! Builds the parts and runs them.

use crate::assemble::{Kept, assemble};
use crate::attach::Attachment;
use crate::config::Config;
use crate::driver::Ended;
use crate::fetcher::Patience;
use crate::identity::Identity;
use crate::launch::ProcessLauncher;
use crate::memory::Program;
use crate::notify::Notifier;
use crate::sentinel;
use crate::serve::router;
use crate::update::{self, Running};
use anyhow::Context;
use sandpiper_core::names::{DeviceName, ModelName};
use sandpiper_core::profile::DeviceProfile;
use sandpiper_core::telemetry::Observation;
use sandpiper_transport::fsio;
use sandpiper_transport::token::JoinToken;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// How long requests in flight are waited for before another program takes over. A watchdog waits
/// longer.
const DRAIN: Duration = Duration::from_secs(10);
/// How long requests wait for models that are started anew in another program.
const HOLD: Duration = Duration::from_secs(5);
/// More is no token, whatever is piped in.
const MAX_TOKEN_BYTES: u64 = 16 << 10;
/// After this time a start is over.
const SETTLED: Duration = Duration::from_secs(10);
/// Between two times that memory is given back.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(600);
/// How long the network waits for models that are started from the disk.
const LOCAL_FIRST: Duration = Duration::from_secs(1);

/// The token itself: `-` stands for the first bytes of standard input.
///
/// # Errors
/// When standard input cannot be read.
pub fn given(token: String) -> anyhow::Result<String> {
    use std::io::Read as _;
    if token != "-" {
        return Ok(token);
    }
    let mut text = String::new();
    let mut input = std::io::stdin().take(MAX_TOKEN_BYTES);
    input
        .read_to_string(&mut text)
        .context("cannot read the token from standard input")?;
    Ok(text.trim().to_owned())
}

/// What the agent runs in. Two threads: one may write to the disk while the other answers.
///
/// # Errors
/// When the system gives no threads.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
}

/// Joins a fleet.
///
/// # Errors
/// Whatever prevents it; nothing is written then.
pub async fn join(
    config: &Config,
    token: &str,
    name: Option<DeviceName>,
) -> anyhow::Result<String> {
    std::fs::create_dir_all(&config.state_dir).context("cannot create the state directory")?;
    let parsed: JoinToken = token.parse()?;
    let name = match name {
        Some(name) => name,
        None => {
            let host = sysinfo::System::host_name()
                .unwrap_or_default()
                .to_lowercase();
            DeviceName::new(host).context("the host name is no device name: use --name")?
        }
    };
    let identity = Identity::join(&config.state_dir, &parsed, name).await?;
    hand_over(&config.state_dir).context("joined, but the service cannot read its identity")?;
    Ok(format!(
        "joined fleet {} as {}",
        identity.fleet, identity.name
    ))
}

/// Whoever installs is root, the service is not: what was written here belongs to the owner of
/// the directory.
fn hand_over(state_dir: &Path) -> std::io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let owner = std::fs::metadata(state_dir)?;
    for entry in std::fs::read_dir(state_dir)? {
        std::os::unix::fs::lchown(entry?.path(), Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(())
}

/// Serves until a signal comes: the last good models at once, the controller when it is there. Gives
/// why it ended, and the socket that requests come in at.
///
/// # Errors
/// What prevents the start.
pub async fn run(config: Config, running: &Running) -> anyhow::Result<(Ended, OwnedFd)> {
    let mut kept = Kept::load(&fsio::system(), &config.state_dir)?;
    kept.running = running.release;
    // This very program, also after an upgrade has put another one in its place: runner and
    // agent always speak the same protocol.
    let launcher = Arc::new(ProcessLauncher {
        exe: "/proc/self/exe".into(),
        workers: config.workers,
    });
    let agent = assemble(config.clone(), kept, launcher, Patience::default());
    let (listener, inherited) = listen(config.listen).await?;
    let socket = listener.as_fd().try_clone_to_owned()?;
    let app = router(agent.routes, config.max_body_bytes);
    let models = &agent.driver.machine.state().models;
    let active = models.iter().filter(|(_, slot)| slot.active.is_some());
    let active: BTreeSet<ModelName> = active.map(|(model, _)| model.clone()).collect();
    let starts = !active.is_empty();
    let mut seen = agent.handle.observation.clone();
    let (drain, drained) = oneshot::channel::<()>();
    let server = tokio::spawn(async move {
        if inherited {
            // Who comes meanwhile waits in the queue of the socket.
            let all = |o: &Observation| {
                let serving = o.models.iter().filter(|m| m.serving.is_some());
                serving.filter(|m| active.contains(&m.model)).count() == active.len()
            };
            let _ = tokio::time::timeout(HOLD, seen.wait_for(all)).await;
        }
        let serving = axum::serve(listener, app).with_graceful_shutdown(async {
            // Without a word it goes on until it is aborted.
            if drained.await.is_err() {
                std::future::pending::<()>().await;
            }
        });
        serving.await
    });
    let state_dir = config.state_dir;
    let attachment = Attachment {
        identity: agent.identity,
        state_dir: state_dir.clone(),
        driver: agent.handle,
        ring: agent.ring,
        channel: agent.channel,
        patience: Patience {
            first: Duration::from_secs(1),
            ..Patience::default()
        },
    };
    let driver = agent.driver;
    tokio::spawn(attach(attachment, starts));
    let notifier = Notifier::from_env();
    if let Some(within) = notifier.within() {
        let heart = driver.heart.clone();
        sentinel::watch(heart, fsio::system(), state_dir, within)
            .context("cannot start the thread that watches the main loop")?;
    }
    tokio::spawn(give_back());
    let ended = driver
        .run(agent.inbox, agent.fetched, notifier, stop_signal())
        .await;
    let server_aborts = server.abort_handle();
    if ended == Ended::Restart {
        // Requests in flight are answered; whoever comes now finds the program that follows.
        let _ = drain.send(());
        if tokio::time::timeout(DRAIN, server).await.is_err() {
            tracing::warn!("requests that take longer than {DRAIN:?} are cut by the update");
        }
    }
    server_aborts.abort();
    Ok((ended, socket))
}

/// Where requests come in, and whether they did so before this program.
async fn listen(address: SocketAddr) -> anyhow::Result<(TcpListener, bool)> {
    if let Some(inherited) = update::inherited(address) {
        return Ok((TcpListener::from_std(inherited)?, true));
    }
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))?;
    Ok((listener, false))
}

/// Gives back what only the start, or an installation, needed, again and again.
async fn give_back() {
    tokio::time::sleep(SETTLED).await;
    let program = Program::find();
    loop {
        program.give_back();
        tokio::time::sleep(GIVE_BACK_EVERY).await;
    }
}

/// Connects. Local programs come first: models that are to serve again get a moment to start,
/// so that the first hello tells how their runners are locked down.
async fn attach(mut attachment: Attachment, starts: bool) {
    if starts {
        let known = |p: &DeviceProfile| !p.lockdown.is_empty();
        let profile = &mut attachment.driver.profile;
        // Whatever comes of it is told on the stream, if need be in a second hello.
        let _ = tokio::time::timeout(LOCAL_FIRST, profile.wait_for(known)).await;
    }
    attachment.run().await;
}

async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut term) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
