//! What a model's answers are like, counted: NaN, answers that do not depend on the input, the
//! winning class and how sure the model is of it. Of fixed size, whatever the model.
//!
//! The agent looks at every answer ([`Look`], [`Watch`]) and sends the counts with its telemetry
//! windows; the gates of a rollout compare those of two versions on one device.

mod agree;
mod look;

pub use agree::{RELATIVE_TOLERANCE, agree};
pub use look::{Glance, Look, Watch};

use serde::{Deserialize, Serialize};

/// Bins of a histogram. Class `c` falls into bin `c % BINS`: with more classes than bins a bin
/// stands for several, and a shift among these is not seen.
pub const BINS: usize = 32;

/// Counts by bin. Trailing empty bins are not kept, so an empty one costs nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Histogram(Vec<u32>);

impl Histogram {
    /// Counts one.
    pub fn record(&mut self, bin: usize) {
        let bin = bin % BINS;
        if self.0.len() <= bin {
            self.0.resize(bin + 1, 0);
        }
        self.0[bin] = self.0[bin].saturating_add(1);
    }

    /// Adds the counts of another. One from outside with more than [`BINS`] bins loses the excess.
    pub fn merge(&mut self, other: &Self) {
        let bins = other.0.len().min(BINS);
        if self.0.len() < bins {
            self.0.resize(bins, 0);
        }
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine = mine.saturating_add(*theirs);
        }
    }

    /// How many were counted.
    pub fn total(&self) -> u64 {
        self.0.iter().map(|n| u64::from(*n)).sum()
    }

    /// Count of a bin.
    pub fn count(&self, bin: usize) -> u32 {
        self.0.get(bin).copied().unwrap_or(0)
    }
}

/// Counts over a span of time. Those of two spans add up.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct OutputStats {
    /// Answers to another input than the one before.
    pub followed: u64,
    /// Of these, answers that are bit for bit those before.
    pub repeated: u64,
    /// Answers whose winning class is not that before: few in a row of like inputs, which says how
    /// many independent ones the histograms are worth.
    pub turns: u64,
    /// Winning classes, for models that tell classes apart.
    pub classes: Histogram,
    /// How sure the model was, by [`Glance::confidence`].
    pub confidence: Histogram,
    /// Answers that the version before was asked for too, in the shadow.
    pub compared: u64,
    /// Of these, those on which both [agree()].
    pub agreed: u64,
}

impl OutputStats {
    /// Adds the counts of another span.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.followed, other.followed),
            (&mut self.repeated, other.repeated),
            (&mut self.turns, other.turns),
            (&mut self.compared, other.compared),
            (&mut self.agreed, other.agreed),
        ] {
            *mine = mine.saturating_add(theirs);
        }
        self.classes.merge(&other.classes);
        self.confidence.merge(&other.confidence);
    }

    /// What can be counted of what comes from outside: no part above its whole, no more bins than
    /// a histogram of ours has.
    #[must_use]
    pub fn sane(&self) -> Self {
        let mut all = Self::default();
        all.merge(self);
        all.repeated = all.repeated.min(all.followed);
        all.agreed = all.agreed.min(all.compared);
        all.turns = all.turns.min(all.classes.total());
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_outside_is_cut_to_what_can_be() {
        let wild = OutputStats {
            followed: 3,
            repeated: 9,
            turns: 7,
            classes: Histogram(vec![1; 500]),
            agreed: 2,
            ..OutputStats::default()
        };
        let sane = wild.sane();
        assert_eq!((sane.repeated, sane.agreed), (3, 0));
        assert_eq!((sane.classes.total(), sane.turns), (32, 7));
        assert_eq!(sane.sane(), sane);
    }

    #[test]
    fn nothing_counted_is_nothing_sent() {
        let text = serde_json::to_string(&Histogram::default());
        assert_eq!(text.ok().as_deref(), Some("[]"));
    }
}
