//! What operators are shown. The JSON of these types is the stable interface of `-o json`:
//! fields are added, never renamed or removed. Units are in the names.
//!
//! The controller builds the documents, the command line renders them; neither decides anything
//! by them.

mod agent;
mod catalogue;
mod device;
mod rollout;

pub use agent::{AgentOrdersDoc, AgentReleaseDoc, PassedByDoc};
pub use catalogue::{DeploymentDoc, JoinTokenDoc, ModelDoc, VariantDoc, VariantUse, VersionDoc};
pub use device::{DeviceDoc, DeviceModelDoc, LearnedDoc};
pub use rollout::{DeviceRolloutDoc, InRolloutDoc, PlanDoc, RolloutDoc};

use crate::policy::Policy;
use crate::selection::Selection;
use crate::telemetry::Serving;
use serde::{Deserialize, Serialize};

/// An event, as `get events` shows it.
pub type EventDoc = crate::event::Event;

/// Kinds of resources that can be listed and watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// [`DeviceDoc`].
    Devices,
    /// [`ModelDoc`].
    Models,
    /// [`VariantDoc`].
    Variants,
    /// [`DeploymentDoc`].
    Deployments,
    /// [`RolloutDoc`].
    Rollouts,
    /// [`EventDoc`].
    Events,
    /// [`JoinTokenDoc`].
    JoinTokens,
    /// [`AgentReleaseDoc`].
    AgentReleases,
}

/// A text that names no kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a kind of resource; known: devices, models, variants, deployments, rollouts, events, join-tokens, agent-releases"
)]
pub struct UnknownKind(String);

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Devices,
        Self::Models,
        Self::Variants,
        Self::Deployments,
        Self::Rollouts,
        Self::Events,
        Self::JoinTokens,
        Self::AgentReleases,
    ];

    /// Name in requests, plural.
    pub fn name(self) -> &'static str {
        match self {
            Self::Devices => "devices",
            Self::Models => "models",
            Self::Variants => "variants",
            Self::Deployments => "deployments",
            Self::Rollouts => "rollouts",
            Self::Events => "events",
            Self::JoinTokens => "join-tokens",
            Self::AgentReleases => "agent-releases",
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for Kind {
    type Err = UnknownKind;
    /// Takes the plural and the singular.
    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        let named = |k: &Self| k.name() == text || k.name().strip_suffix('s') == Some(text);
        let unknown = || UnknownKind(text.chars().take(80).collect());
        Self::ALL.into_iter().find(named).ok_or_else(unknown)
    }
}

/// Why a device has the variant it has: every candidate with its figures and misfits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExplainDoc {
    /// The decision as it would be made now.
    pub selection: Selection,
    /// The policy it was made under.
    pub policy: Policy,
    /// What serves, if anything.
    pub current: Option<Serving>,
    /// The rollout that is moving it, and where it stands there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving: Option<InRolloutDoc>,
}
