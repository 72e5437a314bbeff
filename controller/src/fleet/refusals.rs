//! How often refused enrolments are noted.

use sandpiper_core::time::Millis;
use std::time::Duration;

/// Refused enrolments noted one by one within [`REFUSAL_SPAN`].
pub(super) const MAX_REFUSALS: u32 = 60;
/// After this long refusals are noted again.
const REFUSAL_SPAN: Duration = Duration::from_secs(60);

/// How many enrolments were refused of late.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    since: Millis,
    count: u32,
}

impl Refusals {
    /// Counts one more; gives how many there were before it.
    pub(super) fn count(&mut self, now: Millis) -> u32 {
        // A clock that was set back begins a new span, too.
        if now < self.since || now.since(self.since) >= REFUSAL_SPAN {
            *self = Self {
                since: now,
                count: 0,
            };
        }
        let before = self.count;
        self.count = self.count.saturating_add(1);
        before
    }
}
