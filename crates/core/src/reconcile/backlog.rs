//! Effects on their way to the driver. One that fails is tried again, and what must not come before
//! it waits with it: while the state is not on the disk nothing is told, fetched or deleted. Runners
//! are not held up: a device with a full disk goes on serving, and falls back when it must. After a
//! power cut it then starts with the state before, whose files are all there still.

use super::state::DeviceEffect;
use crate::digest::ArtefactRef;
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

fn is_of_runners(effect: &DeviceEffect) -> bool {
    match effect {
        DeviceEffect::StartRunner { .. }
        | DeviceEffect::Switch { .. }
        | DeviceEffect::StopRunner { .. } => true,
        DeviceEffect::Persist
        | DeviceEffect::Fetch { .. }
        | DeviceEffect::StopFetch { .. }
        | DeviceEffect::Report
        | DeviceEffect::Collect
        | DeviceEffect::Refuse(_) => false,
    }
}

impl Backlog {
    /// Adds the effects of one event. While a write waits for its retry no second one is needed:
    /// it writes the state as it is then.
    pub fn extend(&mut self, effects: Vec<DeviceEffect>) {
        let writes = self.effects.front() == Some(&DeviceEffect::Persist);
        let needed = |e: &DeviceEffect| !(writes && *e == DeviceEffect::Persist);
        self.effects.extend(effects.into_iter().filter(needed));
    }

    /// What is to be performed now, in order; while a failure waits for its retry, only what
    /// concerns runners.
    pub fn take(&mut self, now: Millis) -> Option<DeviceEffect> {
        // A clock that was set back must not hold the backlog for longer than the wait.
        let waits = self
            .retry_at
            .is_some_and(|at| now < at && at.since(now) <= TRY_AGAIN);
        if waits {
            let index = self.effects.iter().position(is_of_runners)?;
            return self.effects.remove(index);
        }
        self.retry_at = None;
        self.effects.pop_front()
    }

    /// It failed, and is to be tried again.
    pub fn failed(&mut self, now: Millis, effect: DeviceEffect) {
        if mutants::is(Mutant::ForgetBacklog) {
            self.effects.clear();
            return;
        }
        self.effects.push_front(effect);
        self.retry_at = Some(now.plus(TRY_AGAIN));
    }

    /// Whether everything has been performed, so that the state may be told.
    pub fn is_empty(&self) -> bool {
        self.effects.is_empty()
    }

    /// Whether this artefact is still to be asked for: an answer that comes now is to an earlier
    /// question.
    pub fn will_fetch(&self, artefact: ArtefactRef) -> bool {
        let asks = |e: &DeviceEffect| match e {
            DeviceEffect::Fetch { artefacts, .. } => artefacts.contains(&artefact),
            _ => false,
        };
        self.effects.iter().any(asks)
    }

    /// When what failed is tried again.
    pub fn next_deadline(&self) -> Option<Millis> {
        self.retry_at.filter(|_| !self.is_empty())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing;

    fn stop() -> DeviceEffect {
        DeviceEffect::StopRunner {
            model: testing::model_name(),
            version: testing::version_name("v1"),
            variant: testing::variant_name("large"),
        }
    }

    #[test]
    fn nothing_is_told_before_the_write_that_failed_and_runners_go_on() {
        let mut backlog = Backlog::default();
        let at = Millis(1_000);
        backlog.extend(vec![DeviceEffect::Persist, stop(), DeviceEffect::Report]);
        let first = backlog.take(at).unwrap();
        assert_eq!(first, DeviceEffect::Persist);
        backlog.failed(at, first);
        backlog.extend(vec![DeviceEffect::Persist, DeviceEffect::Collect]);
        assert_eq!(backlog.take(at.plus(TRY_AGAIN / 2)), Some(stop()));
        assert_eq!(backlog.take(at.plus(TRY_AGAIN / 2)), None);
        assert_eq!(backlog.next_deadline(), Some(at.plus(TRY_AGAIN)));
        let later = at.plus(TRY_AGAIN);
        let done: Vec<_> = std::iter::from_fn(|| backlog.take(later)).collect();
        let all = [
            DeviceEffect::Persist,
            DeviceEffect::Report,
            DeviceEffect::Collect,
        ];
        assert_eq!(done, all, "one write is enough");
        assert!(backlog.is_empty() && backlog.next_deadline().is_none());
    }

    #[test]
    fn what_is_still_to_be_asked_for_is_known() {
        let mut backlog = Backlog::default();
        let [asked, other] = [b"asked", b"other"].map(|b| ArtefactRef::of(b));
        let fetch = DeviceEffect::Fetch {
            model: testing::model_name(),
            version: testing::version_name("v1"),
            artefacts: vec![asked],
        };
        backlog.extend(vec![DeviceEffect::Persist, fetch]);
        assert!(backlog.will_fetch(asked) && !backlog.will_fetch(other));
        while backlog.take(Millis(0)).is_some() {}
        assert!(!backlog.will_fetch(asked));
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_hold_it() {
        let mut backlog = Backlog::default();
        backlog.failed(Millis(1_700_000_000_000), DeviceEffect::Persist);
        assert_eq!(backlog.take(Millis(5)), Some(DeviceEffect::Persist));
    }
}
