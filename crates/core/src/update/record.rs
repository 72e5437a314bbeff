//! What a device remembers of its agent, and which program a start runs.

use super::release::AgentVersion;
use crate::digest::ArtefactRef;
use crate::names::ModelName;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// Starts that a program on trial has. One may be lost to a power cut, another to a second one.
pub const MAX_TRIAL_STARTS: u32 = 3;
/// Starts in a row after which a confirmed program is given up, when each ended before it had
/// attached or lived for [`SETTLED_AFTER`]. More than those of a trial: it has worked, so what ends
/// it is more likely something else on the device.
pub const MAX_STARTS: u32 = 8;
/// After this time a start has not come to nothing, also without a controller.
pub const SETTLED_AFTER: Duration = Duration::from_secs(60);

/// A program in the state directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// Its release.
    pub version: AgentVersion,
    /// Its bytes.
    pub artefact: ArtefactRef,
}

/// A program that has to show that it works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// The order that asked for it.
    pub order: u64,
    /// The program.
    pub program: Staged,
    /// What its publisher calls the oldest version; counts once it is confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<AgentVersion>,
    /// Models that served when it was begun, and shall serve again.
    pub served: BTreeSet<ModelName>,
    /// Starts that were counted so far.
    pub starts: u32,
}

/// How an order ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// What was wanted runs and works.
    Confirmed,
    /// It was tried and did not work.
    FellBack,
    /// It was not tried.
    Refused,
    /// Another program was installed on the device, and that runs.
    Replaced,
}

/// An order that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// Its number.
    pub order: u64,
    /// How.
    pub outcome: Outcome,
    /// Why, in words; empty when there is nothing to say.
    pub why: String,
}

/// What survives a power cut. Written before what follows from it is done.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct UpdateRecord {
    /// What the installed program said of itself when a release first took its place.
    pub installed: String,
    /// The release that works, and runs; the installed program when missing.
    pub confirmed: Option<Staged>,
    /// Starts in a row of `confirmed` that may have come to nothing.
    pub starts: u32,
    /// What is tried.
    pub trial: Option<Trial>,
    /// The newest order that has ended.
    pub settled: Option<Settled>,
    /// The oldest version that may be run from now on. Never falls.
    pub floor: Option<AgentVersion>,
}

/// What a start runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// The program that is installed: the one that asks.
    Installed,
    /// The confirmed release. If the record cannot be written, it runs all the same.
    Confirmed(Staged),
    /// The program on trial. It must not run before the record is written: nobody else would know
    /// of the attempt.
    Trial(Staged),
}

impl UpdateRecord {
    /// What this start runs, for an installed program that calls itself `installed`. Counts the
    /// start: the record is to be written before it happens.
    pub fn choose(&mut self, installed: &str) -> Start {
        let others = self.confirmed.is_some() || self.trial.is_some();
        if others && self.installed != installed {
            self.replaced(installed);
        }
        if let Some(trial) = &mut self.trial {
            if trial.starts < MAX_TRIAL_STARTS {
                trial.starts += 1;
                return Start::Trial(trial.program.clone());
            }
            self.give_up(&format!(
                "it was started {MAX_TRIAL_STARTS} times and ended each time before it had shown that it works"
            ));
        }
        if let Some(confirmed) = &self.confirmed {
            if self.starts < MAX_STARTS {
                self.starts += 1;
                return Start::Confirmed(confirmed.clone());
            }
            let why = format!(
                "release {} ended within {} s of its start {MAX_STARTS} times in a row; the installed program runs",
                confirmed.version,
                SETTLED_AFTER.as_secs()
            );
            self.drop_confirmed(why);
        }
        Start::Installed
    }

    /// What was chosen last cannot be started at all. The next choice is another one.
    pub fn could_not_start(&mut self, start: &Start, why: &str) {
        match start {
            Start::Installed => {}
            Start::Trial(_) => self.give_up(&format!("it could not be started: {why}")),
            Start::Confirmed(program) => {
                let version = &program.version;
                let why = format!(
                    "release {version} can no longer be started ({why}); the installed program runs"
                );
                self.drop_confirmed(why);
            }
        }
    }

    /// Whoever installs a program on the device has decided what runs there, for better or worse.
    fn replaced(&mut self, installed: &str) {
        let order = self.newest_order();
        let why = format!(
            "another program was installed on the device ({installed} in the place of {}), and runs",
            self.installed
        );
        self.trial = None;
        self.drop_program();
        self.settle(order, Outcome::Replaced, why);
    }

    fn newest_order(&self) -> u64 {
        let tried = self.trial.as_ref().map_or(0, |t| t.order);
        tried.max(self.settled.as_ref().map_or(0, |s| s.order))
    }

    /// The trial has failed; the program before is to run.
    pub(super) fn give_up(&mut self, why: &str) {
        if let Some(trial) = self.trial.take() {
            let why = format!("release {} fell back: {why}", trial.program.version);
            self.settle(trial.order, Outcome::FellBack, why);
        }
    }

    fn drop_confirmed(&mut self, why: String) {
        let order = self.newest_order();
        self.drop_program();
        self.settle(order, Outcome::FellBack, why);
    }

    fn drop_program(&mut self) {
        self.confirmed = None;
        self.starts = 0;
    }

    /// The program on trial works.
    pub(super) fn confirm(&mut self) {
        if let Some(trial) = self.trial.take() {
            self.confirmed = Some(trial.program);
            self.starts = 0;
            self.floor = self.floor.take().max(trial.oldest);
            self.settle(trial.order, Outcome::Confirmed, String::new());
        }
    }

    /// The installed program is wanted again.
    pub(super) fn back_to_installed(&mut self, order: u64) {
        self.trial = None;
        self.drop_program();
        self.settle(order, Outcome::Confirmed, String::new());
    }

    pub(super) fn settle(&mut self, order: u64, outcome: Outcome, why: String) {
        self.settled = Some(Settled {
            order,
            outcome,
            why,
        });
    }
}
