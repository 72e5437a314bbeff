//! A latency sketch of fixed cost: logarithmic buckets with a bounded relative error.

use serde::{Deserialize, Serialize};

/// Number of buckets. With [`GROWTH`] they span 1 µs to over 100 s.
pub const BUCKETS: usize = 192;
/// Ratio of neighbouring bucket bounds; a quantile is off by at most half of this in log space,
/// that is ±5 %.
pub const GROWTH: f64 = 1.1;

/// Counts per logarithmic bucket. Merging is exact; 0 stands for an empty sketch of no buckets.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LatencySketch {
    counts: Vec<u32>,
    sum_us: u64,
    max_us: u32,
}
