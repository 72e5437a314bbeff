//! What an operator asks for, and what is wrong with it.

use super::approval::Approval;
use super::gate::Gates;
use crate::names::{DeploymentName, VersionName};
use serde::{Deserialize, Serialize};

/// How many of the fitting devices a wave brings the rollout to or takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaveSize {
    /// After this wave so many percent of all devices have moved.
    Percent(u8),
    /// This wave takes so many devices.
    Count(u32),
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
        "wave {0} takes no device: percentages are cumulative, must rise and end at 100 at most; counts must be positive"
    )]
    EmptyWave(usize),
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
        }
    }

    /// Every mistake in it.
    pub fn mistakes(&self) -> Vec<SpecError> {
        let mut all = Vec::new();
        self.check_waves(&mut all);
        self.check_bounds(&mut all);
        all
    }

    fn check_waves(&self, all: &mut Vec<SpecError>) {
        if self.waves.len() > MAX_WAVES {
            all.push(SpecError::TooManyWaves(self.waves.len()));
        }
        let mut reached = 0;
        for (index, wave) in self.waves.iter().enumerate() {
            match *wave {
                WaveSize::Percent(p) if p > reached && p <= 100 => reached = p,
                WaveSize::Count(n) if n > 0 => {}
                WaveSize::Percent(_) | WaveSize::Count(_) => {
                    all.push(SpecError::EmptyWave(index + 1));
                }
            }
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
