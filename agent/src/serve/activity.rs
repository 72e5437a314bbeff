//! Whether anything is inferred now: tells the meter how often to look.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tokio::sync::Notify;

/// Counts inferences that run and that have begun.
#[derive(Debug, Default)]
pub struct Activity {
    running: AtomicUsize,
    begun: AtomicU64,
    wake: Notify,
}

/// An inference that runs until this is dropped, also when its caller goes away.
#[derive(Debug)]
pub struct Running<'a>(&'a Activity);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Activity {
    /// An inference begins.
    pub fn begin(&self) -> Running<'_> {
        self.running.fetch_add(1, Ordering::AcqRel);
        self.begun.fetch_add(1, Ordering::AcqRel);
        self.wake.notify_one();
        Running(self)
    }

    /// Whether an inference runs now.
    pub fn is_running(&self) -> bool {
        self.running.load(Ordering::Acquire) > 0
    }

    /// Resolves when an inference has begun since the last time this resolved.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Whether anything ran since `seen` was the count, which is brought up to date.
    pub fn any_since(&self, seen: &mut u64) -> bool {
        let begun = self.begun.load(Ordering::Acquire);
        let before = std::mem::replace(seen, begun);
        begun != before || self.running.load(Ordering::Acquire) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_began_or_still_runs_is_activity() {
        let activity = Activity::default();
        let mut seen = 0;
        assert!(!activity.any_since(&mut seen));
        let long = activity.begin();
        assert!(activity.any_since(&mut seen));
        assert!(activity.any_since(&mut seen), "it runs on");
        drop(long);
        assert!(!activity.any_since(&mut seen));
        drop(activity.begin());
        assert!(activity.any_since(&mut seen), "it began and ended");
        assert!(!activity.any_since(&mut seen));
    }
}
