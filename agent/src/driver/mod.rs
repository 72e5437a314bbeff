//! Performs what the reconciler decides: persist first, then act, feed results back as events.

mod expect;
mod guests;
mod pace;
mod start;
mod updates;

pub(crate) use expect::expected;
pub use guests::{Guests, Key, Ticket};

use crate::clock;
use crate::config::Config;
use crate::depot::{Depot, DepotError};
use crate::energy::{Accountant, Activity};
use crate::fetcher::Fetcher;
use crate::guest::Launcher;
use crate::notify::Notifier;
use crate::probe;
use crate::sentinel::Heart;
use crate::serve::routes::{Routes, Served};
use crate::tally::{ServedBy, Tally};
use crate::telemetry::Ring;
use crate::update::Programs;
use crate::words::chain;
use pace::Pace;
use sandpiper_core::digest::ArtefactRef;
use sandpiper_core::ladder::Climber;
use sandpiper_core::profile::DeviceProfile;
use sandpiper_core::reconcile::{Backlog, DeviceEffect, DeviceEvent, Reconciler};
use sandpiper_core::telemetry::{FailureKind, Observation};
use sandpiper_core::time::Millis;
use sandpiper_core::update::{
    AgentOrder, Models, StageFailure, UpdateEffect, UpdateEvent, Updater,
};
use sandpiper_core::window::Wall;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Longest time until the reconciler's deadlines are looked at: its clock may be set.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Shortest time until the updater's deadlines are looked at.
const AT_LEAST: Duration = Duration::from_millis(100);

/// What reaches the driver.
pub enum Input {
    /// An assignment arrived, verified.
    Event(DeviceEvent),
    /// An assignment arrived that does not verify.
    Refused(String),
    /// The controller said what time it was, when the counting clock showed that.
    Time {
        /// The counting clock.
        counted: Millis,
        /// The time.
        time: Millis,
    },
    /// A start has ended, with a guest or with the reason why not.
    Started(Key, Ticket, Result<Arc<Served>, (FailureKind, String)>),
    /// A guest that was loaded died.
    Died(Arc<Served>, String),
    /// The controller has taken this device's hello, or that stream has ended.
    Attached(bool),
    /// A program of the agent lies ready, or not.
    Staged(ArtefactRef, Result<(), StageFailure>),
}

/// Why the driver does not run any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to end.
    Stopped,
    /// Another program of the agent takes over, once what is in flight is answered.
    Restart,
}

/// The way to the driver.
#[derive(Clone)]
pub struct Handle {
    /// Events.
    pub inputs: mpsc::Sender<Input>,
    /// What the device reports, on every change.
    pub observation: watch::Receiver<Observation>,
    /// What the device is; changes when more is learned of it.
    pub profile: watch::Receiver<DeviceProfile>,
}

/// Owns the reconciler and everything that it moves.
pub struct Driver {
    /// Configuration.
    pub config: Config,
    /// Decides.
    pub machine: Reconciler,
    /// What time it is for windows.
    pub wall: Wall,
    /// What it has decided and has not been done.
    pub backlog: Backlog,
    /// Stores.
    pub depot: Depot,
    /// Fetches.
    pub fetcher: Fetcher,
    /// Loads guests.
    pub launcher: Arc<dyn Launcher>,
    /// Where requests go.
    pub routes: Arc<Routes>,
    /// Closed windows.
    pub ring: Arc<Mutex<Ring>>,
    /// Energy.
    pub accountant: Accountant,
    /// To itself.
    pub inputs: mpsc::Sender<Input>,
    /// What is reported.
    pub observation: watch::Sender<Observation>,
    /// What the device is.
    pub profile: watch::Sender<DeviceProfile>,
    /// Climbs the ladder.
    pub climber: Climber,
    /// Guests, and starts that have not ended.
    pub guests: Guests,
    /// That the disk fails is being told.
    pub disk_fails: bool,
    /// Says what this is busy with, for the case that it hangs.
    pub heart: Heart,
    /// What the agent before this one hung over.
    pub hung: Option<DeviceEvent>,
    /// Decides about the agent's own program.
    pub updater: Updater,
    /// Programs of the agent.
    pub programs: Programs,
    /// What the updater has decided and has not been done.
    pub updates: VecDeque<UpdateEffect>,
    /// The order that the updater knows.
    pub ordered: Option<AgentOrder>,
    /// What the updater knows of the models.
    pub models: Option<Models>,
    /// Another program is to take over.
    pub restarts: bool,
}

impl Driver {
    /// Runs until every sender of inputs is gone or `stop` resolves. `fetched` gives the answers
    /// of the fetcher; `notifier` tells the service manager that this goes on.
    pub async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Input>,
        mut fetched: mpsc::Receiver<DeviceEvent>,
        mut notifier: Notifier,
        stop: impl Future<Output = ()>,
    ) -> Ended {
        tokio::pin!(stop);
        if let Some(hung) = self.hung.take() {
            self.handle(hung);
        }
        self.look();
        self.handle(DeviceEvent::Tick);
        notifier.ready();
        let mut poll = tokio::time::interval(self.config.poll);
        let mut window = tokio::time::interval(self.config.window);
        window.reset();
        let routes = self.routes.clone();
        let (mut pace, mut seen) = (Pace::new(Instant::now()), 0);
        while !self.restarts {
            let (metered, due) = (self.accountant.is_metered(), self.until_due());
            tokio::select! {
                () = &mut stop => break,
                input = inbox.recv() => match input {
                    Some(input) => self.take(input),
                    None => break,
                },
                Some(event) = fetched.recv() => self.fetched(event),
                _ = poll.tick() => self.look(),
                _ = window.tick() => self.close_windows(),
                () = routes.activity.woken(), if metered && pace.rests() => {
                    let now = Instant::now();
                    // What ends here was rest; it is not, if the word is an old one.
                    if routes.activity.any_since(&mut seen) {
                        self.accountant.sample(now, self.activity(false));
                        pace.begun(now);
                    }
                }
                () = tokio::time::sleep_until(pace.next().into()), if metered => {
                    let now = Instant::now();
                    let activity = self.activity(routes.activity.any_since(&mut seen));
                    self.accountant.sample(now, activity);
                    pace.read(now, activity);
                }
                () = tokio::time::sleep(due) => self.handle_due(),
                () = notifier.due() => {
                    self.heart.beat();
                    notifier.alive();
                }
            }
        }
        self.close_windows();
        if self.restarts {
            return Ended::Restart;
        }
        notifier.stopping();
        Ended::Stopped
    }

    fn activity(&self, inferring: bool) -> Activity {
        match (inferring, self.guests.starting.is_empty()) {
            (true, _) => Activity::Inferring,
            (false, false) => Activity::Loading,
            (false, true) => Activity::Quiet,
        }
    }

    fn until_due(&self) -> Duration {
        let due = self.machine.next_deadline().map(|(at, _)| at);
        let due = due.into_iter().chain(self.backlog.next_deadline()).min();
        let due = due.map_or(LOOK_AGAIN, |at| at.since(clock::now()).min(LOOK_AGAIN));
        let update = self.updater.next_deadline();
        update.map_or(due, |at| at.since(clock::counted()).clamp(AT_LEAST, due))
    }

    fn handle_due(&mut self) {
        let due = self.machine.next_deadline();
        if due.is_some_and(|(at, _)| clock::now() >= at) {
            self.handle(DeviceEvent::Tick);
        } else if !self.backlog.is_empty() {
            self.work_off();
        }
        self.update(UpdateEvent::Tick);
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Event(event) => {
                if matches!(event, DeviceEvent::Assigned(..)) {
                    // It speaks for itself; a refusal is told again.
                    self.refused(None);
                    // What was served so far was served under the assignment before.
                    self.close_windows();
                }
                self.handle(event);
            }
            Input::Time { counted, time } => {
                self.wall.told(counted, time);
                self.handle(DeviceEvent::Tick);
            }
            Input::Refused(why) => {
                self.disk_fails = false;
                self.refused(Some(why));
            }
            Input::Started(key, ticket, result) => self.started(key, ticket, result),
            Input::Died(served, why) => self.died(&served, why),
            Input::Attached(is) => self.update(UpdateEvent::Attached(is)),
            Input::Staged(artefact, staged) => {
                self.update(UpdateEvent::Staged(artefact, staged));
            }
        }
    }

    /// Looks at battery, memory and temperature; climbs when that says so.
    fn look(&mut self) {
        let now = probe::conditions(&self.config);
        let models = self.machine.state().models.values();
        let ladders = models.filter_map(|s| s.active.as_ref()).map(|a| &a.ladder);
        // One power state for the device: the most careful of its deployments counts.
        let (low, critical) = ladders.fold((0, 0), |(l, c), ladder| {
            (ladder.low_percent.max(l), ladder.critical_percent.max(c))
        });
        let state = self.climber.observe(&now, low, critical);
        if state != self.machine.power_state() {
            tracing::info!(%state, "the power state changes");
            // A window tells of one rung.
            self.close_with(None);
            self.handle(DeviceEvent::PowerState(state));
        }
        self.observation.send_if_modified(|o| {
            let changed = o.conditions != now;
            o.conditions = now;
            changed
        });
    }

    fn handle(&mut self, event: DeviceEvent) {
        self.machine.trust(self.wall.time(clock::counted()));
        self.heart.busy(runner_of(&event));
        self.backlog
            .extend(self.machine.handle(clock::now(), event));
        self.work_off();
        self.heart.busy(None);
    }

    /// Performs what is to be done, and tells of it once all of it is done.
    fn work_off(&mut self) {
        while let Some(effect) = self.backlog.take(clock::now()) {
            if let Err(error) = self.perform(effect.clone()) {
                let why = chain(&error);
                tracing::error!("the disk fails, it is tried again: {why}");
                self.backlog.failed(clock::now(), effect);
                // Nothing of it may be told as done; that it is not done may.
                self.refused(Some(format!("the disk of this device fails: {why}")));
                self.disk_fails = true;
            }
        }
        if self.backlog.is_empty() {
            if std::mem::take(&mut self.disk_fails) {
                self.refused(None);
            }
            self.report();
        }
        self.tell_updater();
    }

    fn perform(&mut self, effect: DeviceEffect) -> Result<(), DepotError> {
        match effect {
            DeviceEffect::Persist => self.depot.save_state(self.machine.state())?,
            DeviceEffect::Fetch { artefacts, .. } => self.fetcher.request(artefacts),
            DeviceEffect::StopFetch { artefacts } => self.fetcher.stop(&artefacts),
            DeviceEffect::StartRunner {
                model,
                version,
                variant,
                self_test,
            } => self.start((model, version, variant), self_test),
            DeviceEffect::Switch {
                model,
                version,
                variant,
            } => self.switch(&(model, version, variant)),
            DeviceEffect::StopRunner {
                model,
                version,
                variant,
            } => self.stop(&(model, version, variant)),
            DeviceEffect::Report => {}
            DeviceEffect::Collect => self.collect(),
            DeviceEffect::Refuse(refusal) => {
                self.disk_fails = false;
                self.refused(Some(refusal.to_string()));
            }
        }
        Ok(())
    }

    /// Deletes artefacts that nobody needs.
    fn collect(&self) {
        let mut live = self.machine.live_artefacts();
        live.extend(self.updater.needed_in_depot());
        self.fetcher.keep_only(&live);
        // Also what is about to end: its partial file is in use until then.
        let mut keep = self.fetcher.under_way();
        keep.extend(live);
        // What stays behind takes room and does no harm; the next time it goes.
        if let Err(error) = self.depot.collect(&keep) {
            tracing::warn!(
                "artefacts that nobody needs stay on the disk: {}",
                chain(&error)
            );
        }
    }

    /// An assignment that is refused, or cannot be kept, changes nothing but what is reported.
    fn refused(&self, why: Option<String>) {
        if let Some(why) = &why {
            tracing::error!("an assignment is not in force: {why}");
        }
        self.observation
            .send_if_modified(|o| std::mem::replace(&mut o.refused, why) != o.refused);
        self.show();
    }

    fn report(&self) {
        let state = self.machine.state();
        let models = self.machine.statuses();
        self.observation.send_if_modified(|o| {
            let changed = o.generation != state.generation || o.models != models;
            o.generation = state.generation;
            o.models = models;
            changed
        });
        self.routes.expect(expected(&self.machine));
        self.show();
    }

    /// For `status`.
    fn show(&self) {
        let status = serde_json::to_value(&*self.observation.borrow());
        self.routes.set_status(status.unwrap_or_default());
    }

    fn fetched(&mut self, event: DeviceEvent) {
        let old = match &event {
            // It was collected between its last byte and this word: nobody wanted it. Whoever
            // wants it now has asked for it since.
            DeviceEvent::Fetched(artefact) => !self.depot.has(*artefact),
            // It was asked for again since, or is about to be, and is answered anew.
            DeviceEvent::FetchFailed { artefact, .. } => {
                self.backlog.will_fetch(*artefact)
                    || self.fetcher.under_way().contains(&artefact.digest)
            }
            _ => false,
        };
        if old {
            return;
        }
        match self.update_fetched(&event) {
            Some(ours) => self.update(ours),
            None => self.handle(event),
        }
    }

    fn close_windows(&mut self) {
        self.close_with(None);
    }

    /// Closes the windows of all that serve, and of one that has ceased to. All at once, since
    /// the energy since the last time is split among them.
    fn close_with(&mut self, ceased: Option<Arc<Served>>) {
        let mut all = self.routes.all();
        all.extend(ceased);
        let tallies: Vec<Tally> = all.iter().map(|s| s.take_tally()).collect();
        let cpu: Vec<u64> = tallies.iter().map(Tally::cpu_us).collect();
        let energies = self.accountant.settle(&cpu);
        for ((served, tally), energy) in all.iter().zip(tallies).zip(energies) {
            if tally.is_empty() {
                continue;
            }
            let ServedBy {
                model,
                version,
                variant,
                ..
            } = &served.by;
            let by = ServedBy {
                power_state: self.machine.rung_of(model, version, variant),
                generation: self.machine.state().generation,
                ..served.by.clone()
            };
            let window = tally.close(&by, clock::now(), energy);
            self.heart.busy(Some(guests::key_of(&served.by)));
            let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = ring.push(window) {
                tracing::error!("a telemetry window is lost: {}", chain(&error));
            }
        }
        self.heart.busy(None);
    }
}

/// The runner that an event speaks of.
fn runner_of(event: &DeviceEvent) -> Option<Key> {
    match event {
        DeviceEvent::RunnerReady {
            model,
            version,
            variant,
        }
        | DeviceEvent::RunnerFailed {
            model,
            version,
            variant,
            ..
        }
        | DeviceEvent::RunnerDied {
            model,
            version,
            variant,
            ..
        } => Some((model.clone(), version.clone(), variant.clone())),
        _ => None,
    }
}
