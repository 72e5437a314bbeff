//! Patience between attempts: exponential with full jitter, so that a fleet that lost its
//! controller at one instant does not come back at one instant.

use std::time::Duration;

/// Delays that are spread evenly between zero and a ceiling that doubles with every failure.
#[derive(Debug, Clone)]
pub struct FullJitter {
    base: Duration,
    cap: Duration,
    failures: u32,
}

/// A connection that held this long counts as healthy: the next failure starts anew.
pub const HEALTHY_AFTER: Duration = Duration::from_secs(60);

impl Default for FullJitter {
    /// One second doubling up to five minutes: 100,000 devices behind one controller come
    /// back at about 330 a second.
    fn default() -> Self {
        Self::new(Duration::from_secs(1), Duration::from_secs(300))
    }
}

impl FullJitter {
    /// A ceiling of `base` that doubles up to `cap`.
    pub fn new(base: Duration, cap: Duration) -> Self {
        Self {
            base,
            cap,
            failures: 0,
        }
    }

    /// How long to wait after one more failure. `dice` is uniform in 0.0..1.0; values outside
    /// are clamped.
    pub fn after_failure(&mut self, dice: f64) -> Duration {
        let ceiling = self.ceiling();
        self.failures = self.failures.saturating_add(1);
        let dice = if dice.is_finite() {
            dice.clamp(0.0, 1.0)
        } else {
            1.0
        };
        ceiling.mul_f64(dice)
    }

    /// The longest wait that the next failure can bring.
    pub fn ceiling(&self) -> Duration {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.cap)
    }

    /// Tells how long the last connection held; [`HEALTHY_AFTER`] forgets earlier failures.
    pub fn held_for(&mut self, span: Duration) {
        if span >= HEALTHY_AFTER {
            self.failures = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ceiling_doubles_up_to_the_cap_and_starts_anew_after_health() {
        let mut backoff = FullJitter::default();
        let ceilings: Vec<u64> = (0..40)
            .map(|_| backoff.after_failure(1.0).as_secs())
            .collect();
        assert_eq!(ceilings[..10], [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert!(ceilings[10..].iter().all(|&s| s == 300));
        backoff.held_for(Duration::from_secs(59));
        assert_eq!(backoff.ceiling().as_secs(), 300);
        backoff.held_for(HEALTHY_AFTER);
        assert_eq!(backoff.ceiling().as_secs(), 1);
    }

    #[test]
    fn dice_spread_the_wait() {
        let mut backoff = FullJitter::default();
        assert_eq!(backoff.after_failure(0.0), Duration::ZERO);
        assert_eq!(backoff.after_failure(0.5), Duration::from_secs(1));
        assert_eq!(backoff.after_failure(f64::NAN), Duration::from_secs(4));
        assert_eq!(backoff.after_failure(7.0), Duration::from_secs(8));
    }
}
