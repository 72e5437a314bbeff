//! How figures differ from window to window.

use serde::{Deserialize, Serialize};

/// How much a figure differs from window to window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Noise {
    /// Windows that the figure was taken in.
    pub windows: u32,
    /// Standard deviation of the logarithm of the figure over windows, in millionths; 0 of one.
    pub spread_ppm: u32,
}

/// Mean and squared distances from it of the logarithms of one figure over windows (Welford,
/// Technometrics 4, 1962).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Windows {
    count: u32,
    mean: f64,
    squares: f64,
}

impl Windows {
    pub(super) fn observe(&mut self, value: f64) {
        self.count = self.count.saturating_add(1);
        let log = value.ln();
        let off = log - self.mean;
        self.mean += off / f64::from(self.count);
        self.squares += off * (log - self.mean);
    }

    pub(super) fn noise(self) -> Noise {
        let freedom = f64::from(self.count.saturating_sub(1).max(1));
        Noise {
            windows: self.count,
            spread_ppm: ((self.squares / freedom).max(0.0).sqrt() * 1e6) as u32,
        }
    }
}
