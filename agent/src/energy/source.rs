//! What a source of energy figures is.

use sandpiper_core::energy::EnergyScope;
use sandpiper_core::energy::ledger::Meter;

/// Most power that a device of this kind can draw, in watts: more is a broken reading.
pub(super) const MAX_POWER_W: f64 = 1000.0;

/// What a source says when it is read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Reading {
    /// Power now, in watts.
    Power(f64),
    /// So much energy went in the time that ends now.
    Interval {
        /// The time, in microseconds.
        elapsed_us: u64,
        /// The energy, in microjoules.
        energy_uj: u64,
    },
    /// A counter in coarse steps has not moved yet.
    Wait,
    /// Nothing can be said of the time since the reading before.
    Gap,
}

/// A meter of the device.
pub(super) trait Source: std::fmt::Debug + Send {
    /// For example `rapl:package`, `hwmon:ina219`.
    fn name(&self) -> String;
    /// What it covers, and how exact it is.
    fn meter(&self) -> Meter;
    /// Reads it at this time of a steady clock in microseconds.
    fn read(&mut self, at_us: u64) -> Reading;
}

/// A meter with this scope and relative gain error.
pub(super) const fn meter(scope: EnergyScope, gain_error: f64) -> Meter {
    Meter { scope, gain_error }
}

/// A power reading that a device can have.
pub(super) fn plausible(watts: f64) -> Reading {
    if (0.0..=MAX_POWER_W).contains(&watts) {
        Reading::Power(watts)
    } else {
        Reading::Gap
    }
}
