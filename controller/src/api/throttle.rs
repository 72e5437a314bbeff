//! Makes fetches wait for the bandwidth that their budgets leave: the driver of
//! [`sandpiper_core::bandwidth`].

use sandpiper_core::bandwidth::{Budget, Shaper, Ticket};
use sandpiper_core::names::DeviceName;
use sandpiper_core::time::Millis;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot};

/// Longest sleep of the pace maker while nobody waits.
const IDLE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Desk {
    shaper: Shaper,
    waiting: BTreeMap<Ticket, oneshot::Sender<()>>,
}

/// Who may send how much now, over all fetches of the controller.
pub struct Throttle {
    desk: Mutex<Desk>,
    asked: Notify,
    begun: Instant,
}

/// A request that waits. Dropping it takes it back.
struct Asked<'a> {
    throttle: &'a Throttle,
    ticket: Ticket,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let mut desk = self.throttle.desk();
        desk.waiting.remove(&self.ticket);
        desk.shaper.forget(self.ticket);
    }
}

impl Desk {
    fn grant(&mut self, now: Millis) {
        for ticket in self.shaper.poll(now) {
            if let Some(waits) = self.waiting.remove(&ticket) {
                // Whoever has gone meanwhile leaves his share unused.
                let _ = waits.send(());
            }
        }
    }
}

impl Throttle {
    /// One for all fetches, with a task of its own that ends with it.
    pub fn new() -> Arc<Self> {
        let throttle = Arc::new(Self {
            desk: Mutex::default(),
            asked: Notify::new(),
            begun: Instant::now(),
        });
        tokio::spawn(keep_pace(Arc::downgrade(&throttle)));
        throttle
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts from the start: a wall clock that is set must not give or take bandwidth.
    fn now(&self) -> Millis {
        Millis(u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// Waits until a device may be sent so many bytes, at most a chunk. Without budgets at once.
    pub async fn pass(&self, device: &DeviceName, budgets: &[Budget], bytes: usize) {
        if budgets.is_empty() {
            return;
        }
        let (waits, turn) = oneshot::channel();
        let asked = {
            let (mut desk, now) = (self.desk(), self.now());
            let ticket = desk.shaper.ask(now, device, budgets, bytes);
            desk.waiting.insert(ticket, waits);
            desk.grant(now);
            Asked {
                throttle: self,
                ticket,
            }
        };
        self.asked.notify_one();
        // Its other end is dropped only after it was used.
        let _ = turn.await;
        drop(asked);
    }
}

async fn keep_pace(throttle: Weak<Throttle>) {
    loop {
        let Some(here) = throttle.upgrade() else {
            return;
        };
        let wait = {
            let (mut desk, now) = (here.desk(), here.now());
            desk.grant(now);
            let next = desk.shaper.next_deadline(now);
            next.map_or(IDLE, |at| at.since(now))
        };
        tokio::select! {
            () = here.asked.notified() => {}
            () = tokio::time::sleep(wait.min(IDLE)) => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn device(number: usize) -> DeviceName {
        DeviceName::new(format!("pi-{number}")).unwrap()
    }

    #[tokio::test]
    async fn all_get_their_turn_and_who_goes_leaves_his_place() {
        let throttle = Throttle::new();
        let budgets = [Budget {
            name: "all".into(),
            bytes_per_s: 1 << 40,
        }];
        let passed = Arc::new(AtomicUsize::new(0));
        let mut tasks = Vec::new();
        for number in 0..4 {
            let (throttle, passed) = (Arc::clone(&throttle), Arc::clone(&passed));
            let budgets = budgets.clone();
            tasks.push(tokio::spawn(async move {
                for _ in 0..10 {
                    throttle.pass(&device(number), &budgets, 1 << 16).await;
                    passed.fetch_add(1, Ordering::SeqCst);
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(passed.load(Ordering::SeqCst), 40);
        // One that asks for more than there is for hours and gives up is forgotten.
        let slow = [Budget {
            name: "slow".into(),
            bytes_per_s: 1_024,
        }];
        throttle.pass(&device(0), &slow, 1 << 16).await;
        let other = device(1);
        let gone = throttle.pass(&other, &slow, 1 << 16);
        tokio::select! {
            biased;
            () = gone => panic!("nothing was left"),
            () = std::future::ready(()) => {}
        }
        assert!(throttle.desk().shaper.waiting().is_empty());
        assert!(throttle.desk().waiting.is_empty());
    }

    #[tokio::test]
    async fn without_budgets_nothing_waits() {
        let throttle = Throttle::new();
        throttle.pass(&device(0), &[], 1 << 16).await;
        assert!(throttle.desk().waiting.is_empty());
    }
}
