//! How long a device takes from the assignment until it serves, from how long it took before.

use super::plan::PlannedDevice;
use crate::energy::Provenance;
use crate::energy::board::BoardModel;
use crate::names::RolloutName;
use crate::profile::DeviceProfile;
use serde::{Deserialize, Serialize};

/// A download smaller than this says nothing about the rate of a link: what takes its time are
/// the steps around it.
const LEAST_BYTES: u64 = 64 << 10;

/// How a device moved last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// In which rollout.
    pub rollout: RolloutName,
    /// Bytes that it had to fetch.
    pub bytes: u64,
    /// Milliseconds from the assignment until it was seen serving.
    pub took_ms: u64,
}

/// A predicted duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Duration {
    /// Milliseconds.
    pub ms: u64,
    /// `Measured` when it rests on the device's own past, `Modelled` when on that of others.
    pub provenance: Provenance,
}

/// How fast devices move.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Pace {
    /// Milliseconds of a move with hardly anything to fetch.
    fixed_ms: Option<u64>,
    /// Bytes per millisecond of the others.
    bytes_per_ms: Option<f64>,
}

impl Pace {
    /// The medians of moves.
    pub fn of<'a>(moves: impl IntoIterator<Item = &'a Move>) -> Self {
        let (mut fixed, mut rates) = (Vec::new(), Vec::new());
        for one in moves {
            match one.bytes < LEAST_BYTES {
                true => fixed.push(one.took_ms),
                false => rates.push(one.bytes as f64 / one.took_ms.max(1) as f64),
            }
        }
        fixed.sort_unstable();
        rates.sort_by(f64::total_cmp);
        Self {
            fixed_ms: fixed.get(fixed.len() / 2).copied(),
            bytes_per_ms: rates.get(rates.len() / 2).copied(),
        }
    }

    fn ms(&self, bytes: u64) -> Option<u64> {
        let fixed = self.fixed_ms.unwrap_or(0);
        if bytes < LEAST_BYTES {
            // At the rate of the others that much takes at least this long.
            let least = self.bytes_per_ms.map(|rate| (bytes as f64 / rate) as u64);
            return self.fixed_ms.or(least);
        }
        Some(fixed.max((bytes as f64 / self.bytes_per_ms?) as u64))
    }

    /// How long a device takes to fetch so many bytes and to serve: by its own last move if that
    /// says so, otherwise as the median of the fleet. Nothing when nobody has moved yet.
    pub fn predict(&self, own: Option<&Move>, bytes: u64) -> Option<Duration> {
        let own = own.and_then(|own| Self::of([own]).ms(bytes));
        let measured = own.map(|ms| (ms, Provenance::Measured));
        let modelled = || Some((self.ms(bytes)?, Provenance::Modelled));
        let (ms, provenance) = measured.or_else(modelled)?;
        Some(Duration { ms, provenance })
    }
}

/// Energy in microjoules of a move: one busy core for as long as it takes, by the published model
/// of the board. Nothing for a board without one.
pub(super) fn move_uj(profile: &DeviceProfile, takes: Duration) -> Option<f64> {
    let model = BoardModel::of(&profile.board)?;
    Some(model.marginal_uj(takes.ms as f64 / 1e3, profile.cores))
}

impl PlannedDevice {
    /// What the device does when it moves: the bytes and how long it took.
    pub(super) fn moved(&self, rollout: &RolloutName, took_ms: u64) -> Move {
        Move {
            rollout: rollout.clone(),
            bytes: self.download_bytes,
            took_ms,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn moved(bytes: u64, took_ms: u64) -> Move {
        Move {
            rollout: RolloutName::new("activity-1").unwrap(),
            bytes,
            took_ms,
        }
    }

    #[test]
    fn a_device_is_measured_by_its_own_past_and_by_the_fleet_without_one() {
        let fleet = Pace::of(&[moved(1 << 20, 1_000), moved(1 << 20, 4_000), moved(0, 50)]);
        let slow = moved(1 << 20, 8_000);
        let own = fleet.predict(Some(&slow), 2 << 20).unwrap();
        assert_eq!((own.ms, own.provenance), (16_000, Provenance::Measured));
        let others = fleet.predict(None, 2 << 20).unwrap();
        assert_eq!(
            (others.ms, others.provenance),
            (2_000, Provenance::Modelled)
        );
        assert_eq!(fleet.predict(None, 0).unwrap().ms, 50);
    }

    #[test]
    fn a_move_without_a_download_says_nothing_about_the_link() {
        let none = Pace::of(&[]);
        assert_eq!(none.predict(None, 1 << 20), None);
        assert_eq!(none.predict(Some(&moved(10, 70)), 1 << 20), None);
        assert_eq!(none.predict(Some(&moved(10, 70)), 10).unwrap().ms, 70);
    }
}
