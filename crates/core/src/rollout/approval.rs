//! Which waves begin only once an operator has approved them, and who may.

use super::machine::RolloutEffect;
use super::state::{Rollout, RolloutState};
use crate::event::Severity;
use crate::mutants::{self, Mutant};
use crate::names::ActorName;
use crate::time::Millis;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Waves that ask for approval, by their number in the plan, counted from 1. Text form: `every`,
/// `after-first` or numbers such as `2,3`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum AskingWaves {
    /// Each.
    Every,
    /// Each but the first.
    AfterFirst,
    /// These.
    These(BTreeSet<u16>),
}

/// A text that names no waves.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` does not say which waves ask for approval: write every, after-first or 2,3")]
pub struct AskingError(String);

impl std::str::FromStr for AskingWaves {
    type Err = AskingError;
    fn from_str(text: &str) -> Result<Self, AskingError> {
        let bad = || AskingError(text.chars().take(80).collect());
        let number = |part: &str| match part.trim().parse() {
            Ok(number @ 1..) => Ok(number),
            _ => Err(bad()),
        };
        match text {
            "every" => Ok(Self::Every),
            "after-first" => Ok(Self::AfterFirst),
            numbers => Ok(Self::These(
                numbers.split(',').map(number).collect::<Result<_, _>>()?,
            )),
        }
    }
}

impl TryFrom<String> for AskingWaves {
    type Error = AskingError;
    fn try_from(text: String) -> Result<Self, AskingError> {
        text.parse()
    }
}

impl From<AskingWaves> for String {
    fn from(waves: AskingWaves) -> Self {
        match waves {
            AskingWaves::Every => "every".to_owned(),
            AskingWaves::AfterFirst => "after-first".to_owned(),
            AskingWaves::These(numbers) => {
                let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
                numbers.join(",")
            }
        }
    }
}

/// Waves that wait for the word of an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// Which.
    pub waves: AskingWaves,
    /// Operators who may approve; any when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub by: Vec<ActorName>,
}

impl Approval {
    /// Whether this wave, counted from 0, asks.
    pub fn asks(&self, wave: usize) -> bool {
        match &self.waves {
            AskingWaves::Every => true,
            AskingWaves::AfterFirst => wave > 0,
            AskingWaves::These(numbers) => {
                u16::try_from(wave + 1).is_ok_and(|number| numbers.contains(&number))
            }
        }
    }

    /// Whether this operator may approve.
    pub fn may(&self, operator: &ActorName) -> bool {
        self.by.is_empty() || self.by.contains(operator)
    }

    /// Who may approve, in words.
    pub fn who(&self) -> String {
        let names: Vec<String> = self.by.iter().map(ToString::to_string).collect();
        match names.is_empty() {
            true => "any operator".to_owned(),
            false => names.join(" or "),
        }
    }

    /// The largest number of a wave that is named; 0 when none is.
    pub(super) fn last_named(&self) -> usize {
        match &self.waves {
            AskingWaves::These(numbers) => numbers.last().map_or(0, |last| usize::from(*last)),
            AskingWaves::Every | AskingWaves::AfterFirst => 0,
        }
    }
}

impl Rollout {
    /// Whether a wave may not begin yet.
    pub fn lacks_approval(&self, wave: usize) -> bool {
        let asks = self.plan.spec.approval.as_ref();
        asks.is_some_and(|approval| approval.asks(wave)) && !self.approved.contains(&wave)
    }

    /// Begins a wave, or waits for its approval first.
    pub(super) fn reach_wave(
        &mut self,
        now: Millis,
        wave: usize,
        effects: &mut Vec<RolloutEffect>,
    ) {
        if !self.lacks_approval(wave) || mutants::is(Mutant::SkipApproval) {
            return self.start_wave(now, wave, effects);
        }
        self.state = RolloutState::AwaitingApproval { wave, since: now };
        let who = self.plan.spec.approval.as_ref().map(Approval::who);
        let text = format!(
            "wave {} of {} waits until {} approves it",
            wave + 1,
            self.plan.waves.len(),
            who.unwrap_or_default()
        );
        let severity = Severity::Warning;
        self.note(
            effects,
            now,
            severity,
            "controller",
            "AwaitingApproval",
            &text,
        );
    }

    /// An operator approves the wave that waits.
    pub(super) fn approve(
        &mut self,
        now: Millis,
        actor: &str,
        why: Option<&str>,
        effects: &mut Vec<RolloutEffect>,
    ) {
        if let RolloutState::AwaitingApproval { wave, since } = self.state {
            self.approved.insert(wave);
            let text = format!(
                "wave {} of {} approved after {} s{}",
                wave + 1,
                self.plan.waves.len(),
                now.since(since).as_secs(),
                why.map(|why| format!(": {why}")).unwrap_or_default(),
            );
            self.note(effects, now, Severity::Info, actor, "Approved", &text);
            self.start_wave(now, wave, effects);
        }
    }
}
