//! When the certificate is renewed: at half of its life, by the clock of the world or by the time
//! that this program has held it, whichever says so first. A device whose clock is wrong renews
//! all the same, and not over and over.

use sandpiper_core::time::Millis;
use sandpiper_transport::pki::Validity;
use std::time::{Duration, Instant};

/// Longest time between two looks: the clock of the world may be set at any moment.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// A failed renewal is repeated after this share of the certificate's life: many attempts are
/// left in the second half, and a controller in trouble is left alone meanwhile.
const RETRY_SHARE: u32 = 50;

/// Follows one certificate.
#[derive(Debug, Clone, Copy)]
pub struct Renewal {
    validity: Validity,
    held_since: Instant,
    /// Not before this instant.
    patience: Instant,
}

impl Renewal {
    /// Of a certificate that was read from the disk: its age is known only by the clock.
    pub fn loaded(validity: Validity, now: Instant) -> Self {
        Self {
            validity,
            held_since: now,
            patience: now,
        }
    }

    /// Of a certificate that was issued at this moment: a clock that says it is old is wrong.
    pub fn issued(validity: Validity, now: Instant) -> Self {
        Self {
            validity,
            held_since: now,
            patience: now + Self::life(validity) / 4,
        }
    }

    /// The last attempt failed.
    pub fn failed(&mut self, now: Instant) {
        self.patience = now + Self::life(self.validity) / RETRY_SHARE;
    }

    fn life(validity: Validity) -> Duration {
        validity.to.since(validity.from)
    }

    /// Whether it is time.
    pub fn is_due(&self, wall: Millis, now: Instant) -> bool {
        let by_wall = wall >= self.validity.renew_at();
        let held = now.saturating_duration_since(self.held_since);
        now >= self.patience && (by_wall || held >= Self::life(self.validity) / 2)
    }

    /// How long until it is worth looking again.
    pub fn look_after(&self, wall: Millis, now: Instant) -> Duration {
        let patience = self.patience.saturating_duration_since(now);
        let by_wall = self.validity.renew_at().since(wall);
        by_wall.max(patience).min(LOOK_EVERY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn week() -> Validity {
        let from = Millis(1_000_000_000_000);
        let to = from.plus(7 * DAY);
        Validity { from, to }
    }

    #[test]
    fn half_of_the_life_is_enough_by_either_clock() {
        let now = Instant::now();
        let fresh = Renewal::loaded(week(), now);
        let start = week().from;
        assert!(!fresh.is_due(start.plus(3 * DAY), now));
        assert!(fresh.is_due(start.plus(4 * DAY), now));
        // The clock stands in 1970, but the program has run for four days.
        assert!(!fresh.is_due(Millis(0), now + 3 * DAY));
        assert!(fresh.is_due(Millis(0), now + 4 * DAY));
    }

    #[test]
    fn a_clock_in_the_future_does_not_make_it_renew_over_and_over() {
        let now = Instant::now();
        let far = week().to.plus(1000 * DAY);
        let mut renewal = Renewal::issued(week(), now);
        assert!(!renewal.is_due(far, now + DAY));
        assert!(renewal.is_due(far, now + 2 * DAY));
        renewal.failed(now + 2 * DAY);
        assert!(!renewal.is_due(far, now + 2 * DAY));
        assert!(renewal.is_due(far, now + 3 * DAY));
    }

    #[test]
    fn it_looks_often_enough_and_never_spins() {
        let now = Instant::now();
        let renewal = Renewal::loaded(week(), now);
        let close = Millis(week().renew_at().0 - 500);
        assert_eq!(renewal.look_after(close, now).as_millis(), 500);
        assert_eq!(renewal.look_after(Millis(0), now), LOOK_EVERY);
        let issued = Renewal::issued(week(), now);
        assert_eq!(issued.look_after(week().to, now), LOOK_EVERY);
    }
}
