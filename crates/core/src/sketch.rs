//! A latency sketch of fixed cost: logarithmic buckets with a bounded relative error.

use serde::{Deserialize, Serialize};

/// Number of buckets. With [`GROWTH`] they span 1 µs to over 80 s.
pub const BUCKETS: usize = 192;
/// Ratio of neighbouring bucket bounds. A quantile is the geometric middle of its bucket, so
/// it is off by at most `sqrt(GROWTH) - 1`, that is 4.9 % (values are whole microseconds, to
/// which at most half a microsecond is added).
pub const GROWTH: f64 = 1.1;

/// Counts per logarithmic bucket. Merging is exact. Trailing empty buckets are not kept, so an
/// empty sketch costs nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LatencySketch {
    counts: Vec<u32>,
    sum_us: u64,
    max_us: u32,
}

fn bucket_of(us: u32) -> usize {
    let index = f64::from(us.max(1)).ln() / GROWTH.ln();
    // Truncation is the point: bucket i covers GROWTH^i .. GROWTH^(i+1).
    (index as usize).min(BUCKETS - 1)
}

impl LatencySketch {
    /// Counts one latency in microseconds.
    pub fn record(&mut self, us: u32) {
        let bucket = bucket_of(us);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        self.counts[bucket] = self.counts[bucket].saturating_add(1);
        self.sum_us = self.sum_us.saturating_add(u64::from(us));
        self.max_us = self.max_us.max(us);
    }

    /// Adds the counts of another sketch. A sketch from outside with more than [`BUCKETS`]
    /// buckets loses the excess.
    pub fn merge(&mut self, other: &Self) {
        let buckets = other.counts.len().min(BUCKETS);
        if self.counts.len() < buckets {
            self.counts.resize(buckets, 0);
        }
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine = mine.saturating_add(*theirs);
        }
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
        self.max_us = self.max_us.max(other.max_us);
    }

    /// Number of latencies counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|&n| u64::from(n)).sum()
    }

    /// Largest latency counted, in microseconds.
    pub fn max_us(&self) -> u32 {
        self.max_us
    }

    /// Mean in microseconds; `None` when empty.
    pub fn mean_us(&self) -> Option<f64> {
        let count = self.count();
        (count > 0).then(|| self.sum_us as f64 / count as f64)
    }

    /// The latency in microseconds below which the share `q` (0..=1) of all lies; `None` when
    /// empty.
    pub fn quantile(&self, q: f64) -> Option<u32> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = ((q.clamp(0.0, 1.0) * count as f64).ceil() as u64).clamp(1, count);
        let mut seen = 0;
        for (bucket, &n) in self.counts.iter().enumerate() {
            seen += u64::from(n);
            if seen >= rank {
                let middle = GROWTH.powf(bucket as f64 + 0.5).round() as u32;
                return Some(middle.clamp(1, self.max_us.max(1)));
            }
        }
        Some(self.max_us)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_sketch_knows_nothing() {
        let sketch = LatencySketch::default();
        assert_eq!(sketch.quantile(0.5), None);
        assert_eq!(sketch.mean_us(), None);
    }

    proptest! {
        #[test]
        fn a_quantile_is_within_five_percent(
            mut values in prop::collection::vec(1u32..10_000_000, 1..300),
            q in 0.01f64..1.0,
        ) {
            let mut sketch = LatencySketch::default();
            values.iter().for_each(|&v| sketch.record(v));
            values.sort_unstable();
            let rank = ((q * values.len() as f64).ceil() as usize).clamp(1, values.len());
            let exact = f64::from(values[rank - 1]);
            let found = f64::from(sketch.quantile(q).unwrap());
            prop_assert!((found - exact).abs() <= exact * 0.05 + 1.0, "{found} for {exact}");
        }

        #[test]
        fn merging_equals_counting_together(
            a in prop::collection::vec(1u32..1_000_000, 0..100),
            b in prop::collection::vec(1u32..1_000_000, 0..100),
        ) {
            let sketch = |values: &[u32]| {
                let mut s = LatencySketch::default();
                values.iter().for_each(|&v| s.record(v));
                s
            };
            let mut merged = sketch(&a);
            merged.merge(&sketch(&b));
            prop_assert_eq!(merged, sketch(&[a, b].concat()));
        }
    }
}
