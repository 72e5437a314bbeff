//! Energy in microjoules, always with its provenance.

pub mod board;
pub mod counter;
pub mod ledger;

use serde::{Deserialize, Serialize};

/// How a figure came about.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Provenance {
    /// Read from a meter with enough samples.
    Measured,
    /// Computed from a model of the board.
    Modelled,
    /// Not known.
    #[default]
    Unknown,
}

/// What a figure covers.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum EnergyScope {
    /// The whole board.
    #[default]
    Board,
    /// The CPU package.
    Package,
    /// Some supply rails.
    Rails,
    /// What the battery gave.
    Battery,
}

/// An energy with what must be known to judge it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Energy {
    /// Microjoules above idle.
    pub energy_uj: u64,
    /// Standard error in microjoules.
    pub standard_error_uj: u64,
    /// How it came about.
    pub provenance: Provenance,
    /// What it covers.
    pub scope: EnergyScope,
}

macro_rules! text {
    ($type:ident { $($variant:ident = $text:literal),* }) => {
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(match self { $(Self::$variant => $text),* })
            }
        }
    };
}

text!(Provenance { Measured = "measured", Modelled = "modelled", Unknown = "unknown" });
text!(EnergyScope { Board = "board", Package = "package", Rails = "rails", Battery = "battery" });
