//! What the program that runs does about an order, and about its own trial.

use super::record::{Outcome, SETTLED_AFTER, Staged, Trial, UpdateRecord};
use super::release::{AgentOrder, AgentRelease, AgentVersion, MAX_AGENT_BYTES};
use super::status::{AgentStatus, UpdatePhase};
use crate::digest::{ArtefactRef, Digest};
use crate::names::ModelName;
use crate::target::Arch;
use crate::time::Millis;
use std::collections::BTreeSet;
use std::time::Duration;

/// Wait after a fetch or a write that failed: what was wrong with a disk or a controller does not
/// change from one second to the next.
const TRY_AGAIN: Duration = Duration::from_secs(300);

/// The models of the device at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Models {
    /// Those that are assigned.
    pub assigned: BTreeSet<ModelName>,
    /// Those that serve.
    pub serving: BTreeSet<ModelName>,
    /// A model is being installed or started, or something is still to be written: no moment to end.
    pub busy: bool,
}

/// Why a program does not lie ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StageFailure {
    /// It is no program for this device: it will never be one.
    Unfit(String),
    /// The disk is full or fails: it is tried again.
    Disk(String),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdateEvent {
    /// What the accepted assignment says of the agent. Signatures have been verified.
    Ordered(Option<AgentOrder>),
    /// A program is in the depot, whole and verified.
    Fetched(ArtefactRef),
    /// It could not be fetched or kept.
    FetchFailed(ArtefactRef, String),
    /// A program lies ready to be started, or not.
    Staged(ArtefactRef, Result<(), StageFailure>),
    /// The controller has taken this device's hello, with its report; or that stream has ended.
    Attached(bool),
    /// The models changed.
    Models(Models),
    /// Time passed.
    Tick,
}

/// What the driver does, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdateEffect {
    /// Write [`UpdateRecord`] so that it survives a power loss, before anything that follows.
    Persist,
    /// Have this program in the depot, and answer.
    Fetch(ArtefactRef),
    /// Nobody waits for it any more.
    StopFetch(ArtefactRef),
    /// Look at the program in the depot, put it where it can be started from, and answer.
    Stage(ArtefactRef),
    /// Delete programs that no start may choose any more.
    Collect,
    /// Answer the requests in flight, end the runners, and start what the record chooses, in this
    /// process. The last effect.
    Restart,
}

/// Drives the agent of one device towards its order.
#[derive(Debug, Clone)]
pub struct Updater {
    record: UpdateRecord,
    /// What runs: this program of a release, or the installed one.
    running: Option<Digest>,
    /// What the program that runs calls itself.
    program: String,
    arch: Arch,
    /// The owner of the device lets releases take the place of the installed program.
    accepts: bool,
    deadline: Duration,
    order: Option<AgentOrder>,
    /// Programs that lie ready.
    ready: BTreeSet<Digest>,
    fetching: Option<ArtefactRef>,
    staging: Option<ArtefactRef>,
    retry_at: Option<Millis>,
    trouble: Option<String>,
    began: Option<Millis>,
    attached: bool,
    was_attached: bool,
    /// Unknown before the first look.
    models: Option<Models>,
    restarts: bool,
}

/// Nothing is deleted that the record on the disk may still name.
fn in_order(mut effects: Vec<UpdateEffect>) -> Vec<UpdateEffect> {
    let all = effects.len();
    effects.retain(|effect| *effect != UpdateEffect::Collect);
    if effects.len() < all {
        let restarts = effects.last() == Some(&UpdateEffect::Restart);
        effects.insert(effects.len() - usize::from(restarts), UpdateEffect::Collect);
    }
    effects
}

impl Updater {
    /// A machine over the record that was persisted, in a program that calls itself `program` and
    /// is either that of a release (`running`) or the installed one.
    pub fn new(record: UpdateRecord, running: Option<Digest>, program: &str, arch: Arch) -> Self {
        Self {
            record,
            running,
            program: program.to_owned(),
            arch,
            accepts: true,
            deadline: Duration::from_secs(180),
            order: None,
            ready: BTreeSet::new(),
            fetching: None,
            staging: None,
            retry_at: None,
            trouble: None,
            began: None,
            attached: false,
            was_attached: false,
            models: None,
            restarts: false,
        }
    }

    /// Whether releases are taken at all, and how long a trial may last from its start on.
    #[must_use]
    pub fn with(mut self, accepts: bool, deadline: Duration) -> Self {
        self.accepts = accepts;
        self.deadline = deadline;
        self
    }

    /// Goes on with what an earlier start was told, and with the programs that lie ready since then.
    #[must_use]
    pub fn resumed(mut self, order: Option<AgentOrder>, ready: BTreeSet<Digest>) -> Self {
        (self.order, self.ready) = (order, ready);
        self
    }

    /// What is to be remembered.
    pub fn record(&self) -> &UpdateRecord {
        &self.record
    }

    /// Takes an event; the effects are to be performed in order. `now` counts from any origin and is
    /// never set.
    pub fn handle(&mut self, now: Millis, event: UpdateEvent) -> Vec<UpdateEffect> {
        let mut effects = Vec::new();
        if self.began.replace(self.began.unwrap_or(now)).is_none() {
            // What fell back lies there still.
            let live = self.live();
            if self.ready.iter().any(|digest| !live.contains(digest)) {
                effects.push(UpdateEffect::Collect);
            }
        }
        self.take(now, event, &mut effects);
        if !self.restarts {
            self.step(now, &mut effects);
        }
        in_order(effects)
    }

    fn take(&mut self, now: Millis, event: UpdateEvent, effects: &mut Vec<UpdateEffect>) {
        match event {
            UpdateEvent::Ordered(order) => {
                if self.order != order {
                    if let Some(old) = self.fetching.take() {
                        effects.push(UpdateEffect::StopFetch(old));
                    }
                    (self.order, self.trouble, self.retry_at) = (order, None, None);
                }
            }
            UpdateEvent::Fetched(artefact) if self.fetching == Some(artefact) => {
                (self.fetching, self.staging) = (None, Some(artefact));
                effects.push(UpdateEffect::Stage(artefact));
            }
            UpdateEvent::FetchFailed(artefact, why) if self.fetching == Some(artefact) => {
                self.fetching = None;
                self.later(now, why);
            }
            UpdateEvent::Fetched(_) | UpdateEvent::FetchFailed(..) => {}
            UpdateEvent::Staged(artefact, result) => self.staged(now, artefact, result, effects),
            UpdateEvent::Attached(is) => {
                self.attached = is;
                self.was_attached |= is;
            }
            UpdateEvent::Models(models) => self.models = Some(models),
            UpdateEvent::Tick => {}
        }
    }

    fn later(&mut self, now: Millis, why: String) {
        self.trouble = Some(why);
        self.retry_at = Some(now.plus(TRY_AGAIN));
    }

    fn staged(
        &mut self,
        now: Millis,
        artefact: ArtefactRef,
        result: Result<(), StageFailure>,
        effects: &mut Vec<UpdateEffect>,
    ) {
        if self.staging == Some(artefact) {
            self.staging = None;
        }
        let wanted = self.wanted().is_some_and(|w| w.artefact == artefact);
        match result {
            Ok(()) => {
                self.ready.insert(artefact.digest);
                self.trouble = None;
                effects.push(UpdateEffect::Collect);
            }
            Err(StageFailure::Disk(why)) if wanted => self.later(now, why),
            Err(StageFailure::Unfit(why)) if wanted => self.refuse(why, effects),
            Err(_) => {}
        }
    }

    /// The program that an open order asks for.
    fn wanted(&self) -> Option<Staged> {
        let release = self.open()?.release.as_ref()?;
        let artefact = *release.binaries.get(&self.arch)?;
        let version = release.version.clone();
        Some(Staged { version, artefact })
    }

    /// The order, while it has not ended.
    fn open(&self) -> Option<&AgentOrder> {
        let ended = self.record.settled.as_ref().map_or(0, |s| s.order);
        self.order.as_ref().filter(|o| o.number > ended)
    }

    fn step(&mut self, now: Millis, effects: &mut Vec<UpdateEffect>) {
        let tried = self.record.trial.as_ref();
        if tried.is_some_and(|t| Some(t.program.artefact.digest) == self.running) {
            self.step_trial(now, effects);
            return;
        }
        if self.record.starts > 0 && (self.was_attached || now >= self.settles_at(now)) {
            self.record.starts = 0;
            effects.push(UpdateEffect::Persist);
        }
        let Some(order) = self.open().cloned() else {
            if self.record.trial.is_some() {
                // Nobody wants any more what was about to be tried.
                self.record.trial = None;
                effects.push(UpdateEffect::Persist);
            }
            return;
        };
        match &order.release {
            None => self.step_back(&order, effects),
            Some(release) => self.step_forward(now, &order, release, effects),
        }
    }

    fn settles_at(&self, now: Millis) -> Millis {
        self.began.unwrap_or(now).plus(SETTLED_AFTER)
    }

    fn ends_at(&self, now: Millis) -> Millis {
        self.began.unwrap_or(now).plus(self.deadline)
    }

    /// This program is on trial: it works once it has attached and everything serves that served
    /// before.
    fn step_trial(&mut self, now: Millis, effects: &mut Vec<UpdateEffect>) {
        let (Some(trial), Some(models)) = (&self.record.trial, &self.models) else {
            return;
        };
        let due = trial.served.intersection(&models.assigned);
        let missing: Vec<&str> = due
            .filter(|m| !models.serving.contains(*m))
            .map(ModelName::as_str)
            .collect();
        if self.was_attached && missing.is_empty() {
            self.record.confirm();
            effects.extend([UpdateEffect::Persist, UpdateEffect::Collect]);
            return;
        }
        if now < self.ends_at(now) {
            return;
        }
        let seconds = self.deadline.as_secs();
        let why = match self.was_attached {
            false => format!("it did not attach to the controller within {seconds} s"),
            true => format!(
                "{} did not serve again within {seconds} s",
                missing.join(", ")
            ),
        };
        self.record.give_up(&why);
        self.restart(effects);
    }

    fn restart(&mut self, effects: &mut Vec<UpdateEffect>) {
        self.restarts = true;
        effects.extend([UpdateEffect::Persist, UpdateEffect::Restart]);
    }

    fn refuse(&mut self, why: String, effects: &mut Vec<UpdateEffect>) {
        let Some(number) = self.open().map(|o| o.number) else {
            return;
        };
        self.record.trial = None;
        self.record.settle(number, Outcome::Refused, why);
        effects.extend([UpdateEffect::Persist, UpdateEffect::Collect]);
    }

    /// Below the floor nothing runs that was not installed by hand.
    fn is_too_old(&self, version: &AgentVersion) -> Option<String> {
        let floor = self.record.floor.as_ref().filter(|f| version < f)?;
        Some(format!(
            "{version} is older than {floor}, the oldest version that the publisher allows on this device: import a newer release, or install a package on the device"
        ))
    }

    fn step_back(&mut self, order: &AgentOrder, effects: &mut Vec<UpdateEffect>) {
        if self.running.is_none() {
            self.record.back_to_installed(order.number);
            effects.extend([UpdateEffect::Persist, UpdateEffect::Collect]);
            return;
        }
        let installed = self.record.installed.parse::<AgentVersion>().ok();
        if let Some(why) = installed.and_then(|v| self.is_too_old(&v)) {
            self.refuse(why, effects);
        } else if self.is_good_moment() {
            self.record.back_to_installed(order.number);
            self.restart(effects);
        }
    }

    /// What shall be tried is tried while the controller is there to be attached to.
    fn is_good_moment(&self) -> bool {
        self.attached && self.models.as_ref().is_some_and(|m| !m.busy)
    }

    fn step_forward(
        &mut self,
        now: Millis,
        order: &AgentOrder,
        release: &AgentRelease,
        effects: &mut Vec<UpdateEffect>,
    ) {
        if let Some(why) = self.unfit(release) {
            self.refuse(why, effects);
            return;
        }
        let Some(wanted) = self.wanted() else {
            return;
        };
        if self.running == Some(wanted.artefact.digest) {
            // It was confirmed under an order before.
            self.record
                .settle(order.number, Outcome::Confirmed, String::new());
            self.record.floor = self.record.floor.take().max(release.oldest.clone());
            effects.extend([UpdateEffect::Persist, UpdateEffect::Collect]);
            return;
        }
        if self.ready.contains(&wanted.artefact.digest) {
            if self.is_good_moment() {
                if self.running.is_none() {
                    self.record.installed.clone_from(&self.program);
                }
                // Starts that were counted stay counted, when one could not be written down.
                let begun = self.record.trial.as_ref();
                let begun = begun.filter(|t| t.order == order.number && t.program == wanted);
                let starts = begun.map_or(0, |t| t.starts);
                self.record.trial = Some(Trial {
                    order: order.number,
                    program: wanted,
                    oldest: release.oldest.clone(),
                    served: self.models.iter().flat_map(|m| m.serving.clone()).collect(),
                    starts,
                });
                self.restart(effects);
            }
            return;
        }
        let waits = self.retry_at.is_some_and(|at| now < at);
        if self.fetching.is_none() && self.staging.is_none() && !waits {
            (self.fetching, self.retry_at) = (Some(wanted.artefact), None);
            effects.push(UpdateEffect::Fetch(wanted.artefact));
        }
    }

    fn unfit(&self, release: &AgentRelease) -> Option<String> {
        if !self.accepts {
            return Some(
                "this device takes no releases ([update] accept = false in its configuration)"
                    .to_owned(),
            );
        }
        if let Some(why) = self.is_too_old(&release.version) {
            return Some(why);
        }
        let version = &release.version;
        let Some(artefact) = release.binaries.get(&self.arch) else {
            let arch = self.arch;
            return Some(format!(
                "release {version} has no program for {arch}, which this device is"
            ));
        };
        let size = artefact.size_bytes;
        (size > MAX_AGENT_BYTES).then(|| {
            format!(
                "the program of release {version} has {size} bytes; at most {MAX_AGENT_BYTES} are taken"
            )
        })
    }

    /// When time alone changes something, as far as it is known.
    pub fn next_deadline(&self) -> Option<Millis> {
        let began = self.began?;
        let tried = self.record.trial.as_ref();
        let trial = tried.filter(|t| Some(t.program.artefact.digest) == self.running);
        let trial = trial.map(|_| self.ends_at(began));
        let settles = (self.record.starts > 0).then(|| self.settles_at(began));
        let waits = self.open().and(self.retry_at);
        [trial, settles, waits].into_iter().flatten().min()
    }

    /// What must stay in the depot.
    pub fn needed_in_depot(&self) -> Option<Digest> {
        let wanted = self.wanted()?.artefact.digest;
        (!self.ready.contains(&wanted)).then_some(wanted)
    }

    /// Programs that a start may choose, that runs, or that will be tried.
    pub fn live(&self) -> BTreeSet<Digest> {
        let record = &self.record;
        let confirmed = record.confirmed.as_ref();
        let tried = record.trial.as_ref().map(|t| &t.program);
        let held = confirmed.into_iter().chain(tried);
        let mut all: BTreeSet<Digest> = held.map(|p| p.artefact.digest).collect();
        all.extend(self.running);
        all.extend(self.wanted().map(|w| w.artefact.digest));
        all.extend(self.staging.map(|a| a.digest));
        all
    }

    /// Programs were deleted.
    pub fn collected(&mut self) {
        let live = self.live();
        self.ready.retain(|digest| live.contains(digest));
    }

    /// What is told of it.
    pub fn status(&self) -> AgentStatus {
        let record = &self.record;
        let held = [
            record.confirmed.as_ref(),
            record.trial.as_ref().map(|t| &t.program),
        ];
        let ours = held.into_iter().flatten();
        let ours = ours.filter(|p| Some(p.artefact.digest) == self.running);
        let version = ours.map(|p| p.version.to_string()).next();
        let settled = record.settled.as_ref();
        let (phase, why) = match (self.open(), settled) {
            (Some(_), _) => (Some(self.phase()), self.trouble.clone()),
            (None, Some(settled)) => {
                let phase = match settled.outcome {
                    Outcome::Confirmed => UpdatePhase::Confirmed,
                    Outcome::FellBack => UpdatePhase::FellBack,
                    Outcome::Refused => UpdatePhase::Refused,
                    Outcome::Replaced => UpdatePhase::Replaced,
                };
                (Some(phase), Some(settled.why.clone()))
            }
            (None, None) => (None, None),
        };
        AgentStatus {
            running: version.unwrap_or_else(|| self.program.clone()),
            installed: self.running.is_none(),
            order: self.order.as_ref().map_or(0, |o| o.number),
            wanted: self.order.as_ref().and_then(|o| o.version().cloned()),
            phase,
            why: why.filter(|w| !w.is_empty()),
        }
    }

    fn phase(&self) -> UpdatePhase {
        let tried = self
            .record
            .trial
            .as_ref()
            .map(|t| t.program.artefact.digest);
        if tried.is_some() && tried == self.running {
            return UpdatePhase::Trying;
        }
        let ready = self
            .wanted()
            .is_none_or(|w| self.ready.contains(&w.artefact.digest));
        match ready {
            true => UpdatePhase::Staged,
            false => UpdatePhase::Fetching,
        }
    }
}
