//! How often the meter is read: ten times a second while something is inferred, every ten
//! seconds otherwise.

use crate::energy::Activity;
use std::time::{Duration, Instant};

/// Time between two readings while inferring.
const BUSY_EVERY: Duration = Duration::from_millis(100);
/// Time between two readings at rest.
const QUIET_EVERY: Duration = Duration::from_secs(10);
/// Quiet readings after which it is rest: a program that asks once in a while keeps its pace.
const QUIET_READINGS: u32 = 10;

/// When the next reading is due.
#[derive(Debug)]
pub(super) struct Pace {
    next: Instant,
    quiet: u32,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            next: now,
            quiet: QUIET_READINGS,
        }
    }

    /// At rest, so that the begin of an inference is to be told with [`Pace::begun`].
    pub(super) fn rests(&self) -> bool {
        self.quiet >= QUIET_READINGS
    }

    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// A reading was taken.
    pub(super) fn read(&mut self, now: Instant, activity: Activity) {
        self.quiet = match activity {
            Activity::Quiet => self.quiet.saturating_add(1),
            Activity::Inferring | Activity::Loading => 0,
        };
        self.next = now
            + if self.rests() {
                QUIET_EVERY
            } else {
                BUSY_EVERY
            };
    }

    /// An inference has begun, and a reading was taken at its begin.
    pub(super) fn begun(&mut self, now: Instant) {
        self.quiet = 0;
        self.next = now + BUSY_EVERY;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_while_inferring_and_a_second_longer() {
        let begin = Instant::now();
        let mut pace = Pace::new(begin);
        pace.read(begin, Activity::Quiet);
        assert!(pace.rests());
        assert_eq!(pace.next() - begin, QUIET_EVERY);
        let mut now = begin + Duration::from_secs(3);
        pace.begun(now);
        let mut fast = 0;
        while !pace.rests() {
            now = pace.next();
            pace.read(
                now,
                if fast < 5 {
                    Activity::Inferring
                } else {
                    Activity::Quiet
                },
            );
            fast += 1;
        }
        assert_eq!(fast, 5 + QUIET_READINGS);
        assert_eq!(pace.next() - now, QUIET_EVERY);
    }
}
