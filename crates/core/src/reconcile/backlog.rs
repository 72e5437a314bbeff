//! Effects on their way to the driver, in order. One that fails is tried again, and nothing
//! overtakes it: what follows a write that failed must not happen, nor be told, before the write
//! has been made good.

use super::state::DeviceEffect;
use crate::mutants::{self, Mutant};
use crate::time::Millis;
use std::collections::VecDeque;
use std::time::Duration;

/// Wait after a failure. A disk that is full or fails does not change from one second to the next.
pub const TRY_AGAIN: Duration = Duration::from_secs(10);

/// Effects that have not been performed yet.
#[derive(Debug, Default)]
pub struct Backlog {
    effects: VecDeque<DeviceEffect>,
    retry_at: Option<Millis>,
}

impl Backlog {
    /// Adds the effects of one event. While a write waits for its retry no second one is needed:
    /// it writes the state as it is then.
    pub fn extend(&mut self, effects: Vec<DeviceEffect>) {
        let writes = self.effects.front() == Some(&DeviceEffect::Persist);
        let needed = |e: &DeviceEffect| !(writes && *e == DeviceEffect::Persist);
        self.effects.extend(effects.into_iter().filter(needed));
    }

    /// What is to be performed now.
    pub fn next(&self, now: Millis) -> Option<&DeviceEffect> {
        // A clock that was set back must not hold the backlog for longer than the wait.
        let waits = self
            .retry_at
            .is_some_and(|at| now < at && at.since(now) <= TRY_AGAIN);
        self.effects.front().filter(|_| !waits)
    }

    /// It was performed.
    pub fn done(&mut self) {
        self.effects.pop_front();
        self.retry_at = None;
    }

    /// It failed, and is to be tried again.
    pub fn failed(&mut self, now: Millis) {
        if mutants::is(Mutant::ForgetBacklog) {
            self.effects.clear();
            return;
        }
        self.retry_at = Some(now.plus(TRY_AGAIN));
    }

    /// Whether everything has been performed, so that the state may be told.
    pub fn is_empty(&self) -> bool {
        self.effects.is_empty()
    }

    /// When what failed is tried again.
    pub fn next_deadline(&self) -> Option<Millis> {
        self.retry_at.filter(|_| !self.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_overtakes_what_failed() {
        let mut backlog = Backlog::default();
        let at = Millis(1_000);
        backlog.extend(vec![DeviceEffect::Persist, DeviceEffect::Report]);
        assert_eq!(backlog.next(at), Some(&DeviceEffect::Persist));
        backlog.failed(at);
        backlog.extend(vec![DeviceEffect::Persist, DeviceEffect::Collect]);
        assert_eq!(backlog.next(at.plus(TRY_AGAIN / 2)), None);
        assert_eq!(backlog.next_deadline(), Some(at.plus(TRY_AGAIN)));
        let later = at.plus(TRY_AGAIN);
        let mut done = Vec::new();
        while let Some(effect) = backlog.next(later) {
            done.push(effect.clone());
            backlog.done();
        }
        let all = [
            DeviceEffect::Persist,
            DeviceEffect::Report,
            DeviceEffect::Collect,
        ];
        assert_eq!(done, all, "one write is enough");
        assert!(backlog.is_empty() && backlog.next_deadline().is_none());
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_hold_it() {
        let mut backlog = Backlog::default();
        backlog.extend(vec![DeviceEffect::Persist]);
        backlog.failed(Millis(1_700_000_000_000));
        assert_eq!(backlog.next(Millis(5)), Some(&DeviceEffect::Persist));
    }
}
