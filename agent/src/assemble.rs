//! From what the disk holds to a driver that can run: the same after the first start, a power cut
//! and an upgrade.

use crate::config::Config;
use crate::depot::Depot;
use crate::driver::{Driver, Guests, Handle, Input, expected};
use crate::energy::Accountant;
use crate::fetcher::{Fetcher, Patience};
use crate::guest::Launcher;
use crate::identity::Identity;
use crate::probe;
use crate::sentinel::{self, Heart};
use crate::serve::routes::Routes;
use crate::telemetry::Ring;
use crate::update::{Programs, VERSION};
use anyhow::Context as _;
use sandpiper_core::digest::Digest;
use sandpiper_core::ladder::Climber;
use sandpiper_core::reconcile::{Backlog, DeviceEvent, DeviceState, Reconciler};
use sandpiper_core::telemetry::Observation;
use sandpiper_core::update::{UpdateRecord, Updater};
use sandpiper_core::window::Wall;
use sandpiper_transport::fsio::Disk;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::sync::{mpsc, watch};
use tonic::transport::Channel;

/// Events that may wait for the driver; senders wait when it is full.
const INBOX: usize = 256;

/// Everything that a start goes on from.
pub struct Kept {
    /// Who the device is.
    pub identity: Identity,
    /// Artefacts.
    pub depot: Depot,
    /// What the reconciler remembers.
    pub state: DeviceState,
    /// Telemetry that was not acknowledged.
    pub ring: Ring,
    /// What the agent before this one hung over.
    pub hung: Option<DeviceEvent>,
    /// Programs of the agent.
    pub programs: Programs,
    /// What became of updates.
    pub update: UpdateRecord,
    /// The program that runs, if it is that of a release.
    pub running: Option<Digest>,
}

impl Kept {
    /// Reads it all. What is damaged is no reason to begin anew: a device that forgot which
    /// assignments it has seen would take an old one.
    ///
    /// # Errors
    /// Which part cannot be read, and why.
    pub fn load(disk: &Arc<dyn Disk>, state_dir: &Path) -> anyhow::Result<Self> {
        let identity = Identity::load_on(&**disk, state_dir)?;
        let depot = Depot::open_on(disk.clone(), state_dir)?;
        let mut state = depot.load_state()?.unwrap_or_default();
        state.installation = identity.installation;
        let telemetry = state_dir.join("telemetry");
        let ring = Ring::open_on(disk.clone(), &telemetry, identity.installation)
            .context("the telemetry cannot be read")?;
        let programs = Programs::of(disk.clone(), state_dir);
        Ok(Self {
            update: programs.load(VERSION),
            programs,
            running: None,
            hung: sentinel::last_words(&**disk, state_dir),
            identity,
            depot,
            state,
            ring,
        })
    }
}

/// A driver, and the ends of what it is tied to.
pub struct Assembled {
    /// Runs the models.
    pub driver: Driver,
    /// Where its events come in.
    pub inbox: mpsc::Receiver<Input>,
    /// Where the answers of its downloads come in.
    pub fetched: mpsc::Receiver<DeviceEvent>,
    /// The way to it.
    pub handle: Handle,
    /// Gives downloads a connection.
    pub channel: watch::Sender<Option<Channel>>,
    /// Telemetry to send.
    pub ring: Arc<Mutex<Ring>>,
    /// What serves.
    pub routes: Arc<Routes>,
    /// Who the device is.
    pub identity: Identity,
}

/// Puts a driver together. Nothing runs yet.
pub fn assemble(
    config: Config,
    kept: Kept,
    launcher: Arc<dyn Launcher>,
    patience: Patience,
) -> Assembled {
    let Kept {
        identity,
        depot,
        state,
        ring,
        hung,
        programs,
        update,
        running,
    } = kept;
    let ring = Arc::new(Mutex::new(ring));
    let mut profile = probe::profile(&config, Vec::new(), BTreeMap::new());
    let accountant = Accountant::new(&config.roots, &profile.board, profile.cores);
    profile.energy_sources = accountant.sources();
    let (targets, keys) = (profile.targets.clone(), profile.runtime_keys.clone());
    let ordered = state.assignment.as_ref().and_then(|a| a.agent.clone());
    let updater = Updater::new(update, running, VERSION, profile.arch)
        .with(config.updates, config.update_within)
        .resumed(ordered.clone(), programs.ready());
    let machine = Reconciler::new(state, targets, keys, identity.name.clone());
    // The card may come from another board, with code that is not the best for this one.
    let machine = machine.found(|artefact| depot.has(artefact));
    let observation = Observation {
        generation: machine.state().generation,
        conditions: probe::conditions(&config),
        models: machine.statuses(),
        refused: None,
        agent: Some(updater.status()),
    };
    let (inputs, inbox) = mpsc::channel::<Input>(INBOX);
    let (observe, observation) = watch::channel(observation);
    let (tell_profile, profile) = watch::channel(profile);
    let (give_channel, channel) = watch::channel(None);
    let (answers, fetched) = mpsc::channel(INBOX);
    let routes = Arc::new(Routes::default());
    // Before the first request: what is assigned is told apart from what is unknown.
    routes.expect(expected(&machine));
    let fetcher = Fetcher::new(depot.clone(), channel, answers, patience);
    let driver = Driver {
        config,
        machine,
        wall: Wall::default(),
        backlog: Backlog::default(),
        depot,
        fetcher,
        launcher,
        routes: routes.clone(),
        ring: ring.clone(),
        accountant,
        inputs: inputs.clone(),
        observation: observe,
        profile: tell_profile,
        climber: Climber::default(),
        guests: Guests::default(),
        disk_fails: false,
        heart: Heart::default(),
        hung,
        updater,
        programs,
        updates: VecDeque::new(),
        ordered,
        models: None,
        restarts: false,
    };
    Assembled {
        driver,
        inbox,
        fetched,
        handle: Handle {
            inputs,
            observation,
            profile,
        },
        channel: give_channel,
        ring,
        routes,
        identity,
    }
}
