//! Builds the parts and runs them.

use crate::attach::Attachment;
use crate::config::Config;
use crate::depot::Depot;
use crate::driver::{Driver, Handle, Input};
use crate::energy::Accountant;
use crate::identity::Identity;
use crate::launch::ProcessLauncher;
use crate::serve::{router, routes::Routes};
use crate::telemetry::Ring;
use crate::{probe, serve};
use anyhow::Context;
use sandpiper_core::ladder::Climber;
use sandpiper_core::names::DeviceName;
use sandpiper_core::reconcile::{DeviceState, Reconciler};
use sandpiper_core::telemetry::Observation;
use sandpiper_transport::token::JoinToken;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::sync::{mpsc, watch};

/// Events that may wait for the driver; senders wait when it is full.
const INBOX: usize = 256;

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
    Ok(format!(
        "joined fleet {} as {}",
        identity.fleet, identity.name
    ))
}

/// Serves until a signal comes: the last good models at once, the controller when it is there.
///
/// # Errors
/// What prevents the start.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let identity = Identity::load(&config.state_dir)?;
    let depot = Depot::open(&config.state_dir)?;
    let mut state = depot.load_state()?.unwrap_or_else(DeviceState::default);
    state.installation = identity.installation;
    let ring = Ring::open(&config.state_dir.join("telemetry"), identity.installation)?;
    let ring = Arc::new(Mutex::new(ring));
    let mut profile = probe::profile(&config, Vec::new(), BTreeMap::new());
    let accountant = Accountant::new(&config.roots, &profile.board, profile.cores);
    profile.energy_sources = accountant.sources();
    let (targets, keys) = (profile.targets.clone(), profile.runtime_keys.clone());
    let machine = Reconciler::new(state, targets, keys, identity.name.clone());
    let observation = Observation {
        generation: machine.state().generation,
        conditions: probe::conditions(&config),
        models: machine.statuses(),
    };
    let (inputs, inbox) = mpsc::channel(INBOX);
    let (observe, observed) = watch::channel(observation);
    let (give_channel, channel) = watch::channel(None);
    let (deaths, mut dead) = mpsc::channel::<(Arc<serve::routes::Served>, String)>(16);
    let routes = Arc::new(Routes::new(deaths));
    let listener = tokio::net::TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.listen))?;
    let app = router(routes.clone(), config.max_body_bytes);
    let server = tokio::spawn(async move { axum::serve(listener, app).await });
    let forward = inputs.clone();
    tokio::spawn(async move {
        while let Some((served, why)) = dead.recv().await {
            if forward.send(Input::Died(served, why)).await.is_err() {
                return;
            }
        }
    });
    let attachment = Attachment {
        identity,
        state_dir: config.state_dir.clone(),
        profile,
        driver: Handle {
            inputs: inputs.clone(),
            observation: observed,
        },
        ring: ring.clone(),
        channel: give_channel,
    };
    tokio::spawn(attachment.run());
    let exe = std::env::current_exe().context("cannot find the agent's own program")?;
    let driver = Driver {
        config,
        machine,
        depot,
        launcher: Arc::new(ProcessLauncher { exe }),
        routes,
        ring,
        accountant,
        inputs,
        observation: observe,
        channel,
        climber: Climber::default(),
        loaded: BTreeMap::new(),
    };
    driver.run(inbox, stop_signal()).await;
    server.abort();
    Ok(())
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
