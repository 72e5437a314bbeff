//! Deployments: which devices shall run which model, and what "best" means there.

use crate::names::{DeploymentName, ModelName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Most labels of one device: more than any inventory needs, few enough to send around.
pub const MAX_LABELS: usize = 64;

/// Labels of a device.
pub type Labels = BTreeMap<String, String>;

/// What to optimise among the variants that satisfy every limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Objective {
    /// Highest accuracy; ties (closer than `tie_points`) go to the lowest energy.
    #[default]
    Accuracy,
    /// Lowest energy per inference.
    Energy,
    /// Lowest latency.
    Latency,
}

/// Limits and objective of a deployment. A missing limit does not limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// What to optimise on mains and on a well-filled battery.
    pub objective: Objective,
    /// Lowest accuracy accepted, 0..=1.
    pub accuracy_floor: Option<f64>,
    /// Accuracies closer than this many percentage points count as equal.
    pub tie_points: f64,
    /// An inference shall finish within this time with probability 0.95.
    pub latency_slo_us: Option<u32>,
    /// Most energy that one inference may take, in microjoules.
    pub energy_budget_uj: Option<u64>,
    /// The battery shall last this long at `inferences_per_hour`.
    pub battery_life_hours: Option<f64>,
    /// Expected load of a device, used with `battery_life_hours`.
    pub inferences_per_hour: f64,
    /// Battery percentage below which the `low` rung is taken.
    pub low_percent: u8,
    /// Battery percentage below which the `critical` rung is taken.
    pub critical_percent: u8,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            objective: Objective::Accuracy,
            accuracy_floor: None,
            tie_points: 0.4,
            latency_slo_us: None,
            energy_budget_uj: None,
            battery_life_hours: None,
            inferences_per_hour: 3600.0,
            low_percent: 40,
            critical_percent: 15,
        }
    }
}

/// One requirement of a label selector.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Requirement {
    /// `key=value`
    Equals(String, String),
    /// `key!=value` (also true without the key)
    NotEquals(String, String),
    /// `key`
    Exists(String),
    /// `!key`
    Absent(String),
}

/// A label selector: every requirement must hold. Empty selects all. Text form: requirements
/// joined by commas, `site=north,!lab,board!=pi5`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Selector(Vec<Requirement>);

/// Why a text is not a selector or label.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// Not `key=value`, `key!=value`, `key` or `!key`.
    #[error("`{0}` is not a label requirement: write key=value, key!=value, key or !key")]
    Requirement(String),
    /// Malformed key.
    #[error(
        "`{0}` is not a label key: use 1 to 63 of a-z, A-Z, 0-9, `-`, `_`, `.`, `/`, beginning and ending with a letter or digit"
    )]
    Key(String),
    /// Malformed value.
    #[error(
        "`{0}` is not a label value: use up to 63 of a-z, A-Z, 0-9, `-`, `_`, `.`, `/`, `+`, `:`"
    )]
    Value(String),
}

/// Values may also name time zones and addresses.
fn value_char(c: char) -> bool {
    label_char(c) || matches!(c, '/' | '+' | ':')
}

fn label_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// Checks a label key.
///
/// # Errors
/// [`LabelError::Key`].
pub fn check_label_key(key: &str) -> Result<(), LabelError> {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let ok = key.len() <= 63
        && edge(key.chars().next())
        && edge(key.chars().last())
        && key.chars().all(|c| label_char(c) || c == '/');
    if ok {
        Ok(())
    } else {
        Err(LabelError::Key(key.chars().take(80).collect()))
    }
}

/// Checks a label value.
///
/// # Errors
/// [`LabelError::Value`].
pub fn check_label_value(value: &str) -> Result<(), LabelError> {
    let ok = value.len() <= 63 && value.chars().all(value_char);
    if ok {
        Ok(())
    } else {
        Err(LabelError::Value(value.chars().take(80).collect()))
    }
}

impl Selector {
    /// Whether a device with these labels is selected.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|r| match r {
            Requirement::Equals(k, v) => labels.get(k) == Some(v),
            Requirement::NotEquals(k, v) => labels.get(k) != Some(v),
            Requirement::Exists(k) => labels.contains_key(k),
            Requirement::Absent(k) => !labels.contains_key(k),
        })
    }
}

impl std::str::FromStr for Selector {
    type Err = LabelError;
    fn from_str(text: &str) -> Result<Self, LabelError> {
        let parts = text.split(',').map(str::trim).filter(|p| !p.is_empty());
        parts
            .map(parse_requirement)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

fn parse_requirement(part: &str) -> Result<Requirement, LabelError> {
    let (key, value, equals) = if let Some((k, v)) = part.split_once("!=") {
        (k, Some(v), false)
    } else if let Some((k, v)) = part.split_once('=') {
        (k, Some(v.strip_prefix('=').unwrap_or(v)), true)
    } else {
        (part, None, true)
    };
    let Some(value) = value else {
        let (name, absent) = part.strip_prefix('!').map_or((part, false), |n| (n, true));
        check_label_key(name).map_err(|_| LabelError::Requirement(part.to_owned()))?;
        let name = name.to_owned();
        return Ok(if absent {
            Requirement::Absent(name)
        } else {
            Requirement::Exists(name)
        });
    };
    let (key, value) = (key.trim(), value.trim());
    check_label_key(key)?;
    check_label_value(value)?;
    let (key, value) = (key.to_owned(), value.to_owned());
    Ok(if equals {
        Requirement::Equals(key, value)
    } else {
        Requirement::NotEquals(key, value)
    })
}

impl TryFrom<String> for Selector {
    type Error = LabelError;
    fn try_from(text: String) -> Result<Self, LabelError> {
        text.parse()
    }
}

impl From<Selector> for String {
    fn from(selector: Selector) -> String {
        selector.to_string()
    }
}

impl std::fmt::Display for Selector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, r) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            match r {
                Requirement::Equals(k, v) => write!(f, "{k}={v}")?,
                Requirement::NotEquals(k, v) => write!(f, "{k}!={v}")?,
                Requirement::Exists(k) => write!(f, "{k}")?,
                Requirement::Absent(k) => write!(f, "!{k}")?,
            }
        }
        Ok(())
    }
}

/// "These devices shall run this model under this policy." Which version runs is the business
/// of the deployment's rollouts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    /// Name.
    pub name: DeploymentName,
    /// The model.
    pub model: ModelName,
    /// The devices.
    #[serde(default)]
    pub selector: Selector,
    /// Limits and objective.
    #[serde(default)]
    pub policy: Policy,
}
