//! What an operator asks for, and what is wrong with it.

use super::approval::Approval;
use super::gate::Gates;
use super::phase::Deadlines;
use super::windows::{MAX_WAIT_S, Windows};
use crate::bandwidth::{Bandwidth, MAX_BYTES_PER_S, MIN_BYTES_PER_S};
use crate::names::{DeploymentName, VersionName};
use crate::policy::{LabelError, Selector, check_label_key};
use crate::window::MAX_WINDOWS;
use serde::{Deserialize, Serialize};

/// How many of the fitting devices a wave brings the rollout to or takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaveSize {
    /// After this wave so many percent of all devices have moved.
    Percent(u8),
    /// This wave takes so many devices.
    Count(u32),
    /// This wave takes so many, and each that follows twice as many as the one before it, until
    /// none is left. Always the last of a request.
    Double(u32),
    /// This wave takes every device with these labels that is left.
    Selector(Selector),
}

/// What an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutSpec {
    /// The deployment to move.
    pub deployment: DeploymentName,
    /// The version to move to.
    pub version: VersionName,
    /// Waves in order. Devices that no wave takes form a last one. Empty: one wave.
    #[serde(default)]
    pub waves: Vec<WaveSize>,
    /// A wave that has not succeeded after this long has failed. In seconds.
    #[serde(default = "default_deadline_s")]
    pub wave_deadline_s: u64,
    /// A device must have served this long before it counts as a success. In seconds.
    #[serde(default)]
    pub bake_s: u64,
    /// Failures in a wave that are tolerated.
    #[serde(default)]
    pub max_failures: u32,
    /// Inferences that a device must have served under the new code to count as a success.
    #[serde(default = "default_inferences")]
    pub min_inferences: u64,
    /// Most devices that were assigned the version and have not been seen serving it. No bound
    /// but the wave when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u32>,
    /// The same within groups of devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disruption: Option<DisruptionBudget>,
    /// What must hold of measured figures before the next wave begins. Nothing is compared when
    /// the deployment had no version before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gates: Option<Gates>,
    /// Waves that begin only when an operator has approved them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<Approval>,
    /// How long a device may stay in each phase.
    #[serde(default, skip_serializing_if = "Deadlines::is_derived")]
    pub deadlines: Deadlines,
    /// When devices may fetch and switch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub windows: Option<Windows>,
    /// How fast its devices may fetch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bandwidth>,
}

/// Most devices with the same value of a label that may be in flight at once. Devices without
/// the label form a group of their own. A rollback is not held back by it: what is known to be
/// bad goes at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DisruptionBudget {
    /// Key of the label.
    pub group_by: String,
    /// Most devices of one group in flight.
    pub max_unavailable: u32,
}

fn default_deadline_s() -> u64 {
    600
}

fn default_inferences() -> u64 {
    1
}

/// A mistake in a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A wave takes nothing or percentages do not rise.
    #[error(
        "wave {0} takes no device: percentages are cumulative, must rise and end at 100 at most; counts must be positive; a selector names labels"
    )]
    EmptyWave(usize),
    /// Waves after one that doubles until none is left.
    #[error("wave {0} takes no device: waves that double take all that are left")]
    AfterDouble(usize),
    /// A deadline that ends before anything can have happened.
    #[error("deadlines.{0} is 0, so that every device would fail: leave it out or give at least 1")]
    NoTime(&'static str),
    /// A deadline that ends before the bake time.
    #[error(
        "deadlines.prove_s is {prove_s}, less than the bake time of {bake_s}: no device could succeed"
    )]
    ProveBeforeBake {
        /// The deadline in seconds.
        prove_s: u64,
        /// The bake time in seconds.
        bake_s: u64,
    },
    /// A rate that nothing could be sent at, or that is none.
    #[error("bandwidth.{0} is {1}: give {MIN_BYTES_PER_S} to {MAX_BYTES_PER_S}, or leave it out")]
    Rate(&'static str, u64),
    /// A budget of bandwidth without a rate.
    #[error("bandwidth names no rate: leave it out or give bytes_per_s or per_group")]
    NoRate,
    /// A label that cannot be one.
    #[error("{0}: {1}")]
    Label(&'static str, LabelError),
    /// Windows without a window.
    #[error("windows names neither a download nor a switch window: leave it out or give one")]
    NoWindow,
    /// More windows than anybody means.
    #[error("there are {1} {0} windows: give at most {MAX_WINDOWS}")]
    TooManyWindows(&'static str, usize),
    /// A wait of no time, or of more than is kept.
    #[error("windows.wait_s is {0}: give 1 to {MAX_WAIT_S}")]
    Wait(u64),
    /// A bound that lets nothing move.
    #[error("{0} is 0, so that no device could ever move: leave it out or give at least 1")]
    NothingMoves(&'static str),
    /// More waves than anybody watches.
    #[error("there are {0} waves: give at most {MAX_WAVES}")]
    TooManyWaves(usize),
}

/// Most waves of a request. Each is looked at at every report.
pub const MAX_WAVES: usize = 64;

impl RolloutSpec {
    /// A rollout in one wave without any bound but the defaults.
    pub fn new(deployment: DeploymentName, version: VersionName) -> Self {
        Self {
            deployment,
            version,
            waves: Vec::new(),
            wave_deadline_s: default_deadline_s(),
            bake_s: 0,
            max_failures: 0,
            min_inferences: default_inferences(),
            max_in_flight: None,
            disruption: None,
            gates: None,
            approval: None,
            deadlines: Deadlines::default(),
            windows: None,
            bandwidth: None,
        }
    }

    /// Every mistake in it.
    pub fn mistakes(&self) -> Vec<SpecError> {
        let mut all = Vec::new();
        self.check_waves(&mut all);
        self.check_bounds(&mut all);
        self.check_times(&mut all);
        self.check_bandwidth(&mut all);
        all
    }

    fn check_waves(&self, all: &mut Vec<SpecError>) {
        if self.waves.len() > MAX_WAVES {
            all.push(SpecError::TooManyWaves(self.waves.len()));
        }
        let mut reached = 0;
        for (index, wave) in self.waves.iter().enumerate() {
            if self.waves[..index]
                .iter()
                .any(|w| matches!(w, WaveSize::Double(_)))
            {
                all.push(SpecError::AfterDouble(index + 1));
                continue;
            }
            match wave {
                WaveSize::Percent(p) if *p > reached && *p <= 100 => reached = *p,
                WaveSize::Count(n) | WaveSize::Double(n) if *n > 0 => {}
                WaveSize::Selector(selector) if *selector != Selector::default() => {}
                WaveSize::Percent(_)
                | WaveSize::Count(_)
                | WaveSize::Double(_)
                | WaveSize::Selector(_) => {
                    all.push(SpecError::EmptyWave(index + 1));
                }
            }
        }
    }

    fn check_times(&self, all: &mut Vec<SpecError>) {
        let Deadlines {
            fetch_s,
            switch_s,
            prove_s,
        } = self.deadlines;
        let phases = [
            ("fetch_s", fetch_s),
            ("switch_s", switch_s),
            ("prove_s", prove_s),
        ];
        let none = phases.into_iter().filter(|(_, time)| *time == Some(0));
        all.extend(none.map(|(name, _)| SpecError::NoTime(name)));
        let bake_s = self.bake_s;
        if let Some(prove_s) = prove_s.filter(|prove| *prove > 0 && *prove < bake_s) {
            all.push(SpecError::ProveBeforeBake { prove_s, bake_s });
        }
        let Some(windows) = &self.windows else {
            return;
        };
        if windows.download.is_empty() && windows.switch.is_empty() {
            all.push(SpecError::NoWindow);
        }
        for (name, of) in [("download", &windows.download), ("switch", &windows.switch)] {
            if of.len() > MAX_WINDOWS {
                all.push(SpecError::TooManyWindows(name, of.len()));
            }
        }
        if !(1..=MAX_WAIT_S).contains(&windows.wait_s) {
            all.push(SpecError::Wait(windows.wait_s));
        }
    }

    fn check_bandwidth(&self, all: &mut Vec<SpecError>) {
        let Some(bandwidth) = &self.bandwidth else {
            return;
        };
        let group = bandwidth.per_group.as_ref();
        let rates = [
            ("bytes_per_s", bandwidth.bytes_per_s),
            ("per_group.bytes_per_s", group.map(|g| g.bytes_per_s)),
        ];
        if rates.iter().all(|(_, rate)| rate.is_none()) {
            all.push(SpecError::NoRate);
        }
        for (name, rate) in rates {
            let within = |rate: &u64| (MIN_BYTES_PER_S..=MAX_BYTES_PER_S).contains(rate);
            all.extend(
                rate.filter(|r| !within(r))
                    .map(|r| SpecError::Rate(name, r)),
            );
        }
        let key = group.map(|g| check_label_key(&g.group_by));
        if let Some(Err(why)) = key {
            all.push(SpecError::Label("bandwidth.per_group.group_by", why));
        }
    }

    fn check_bounds(&self, all: &mut Vec<SpecError>) {
        let budget = self.disruption.as_ref().map(|b| b.max_unavailable);
        let bounds = [
            ("max_in_flight", self.max_in_flight),
            ("max_unavailable", budget),
        ];
        let zero = bounds.into_iter().filter(|(_, bound)| *bound == Some(0));
        all.extend(zero.map(|(name, _)| SpecError::NothingMoves(name)));
    }
}
