//! The version before, asked in the shadow of a new one: after an answer was given, on a sample of
//! requests, while nothing else is asked. What it says reaches nobody but the counts.

use super::routes::{Routes, Served};
use sandpiper_core::outputs::agree;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Of so many requests at most one is asked again.
const ONE_OF: u32 = 32;
/// Where requests are rare, one is asked again when none was for this long: an idle device has the
/// time, and its few requests are all there is to compare.
const RARELY: Duration = Duration::from_secs(2);
/// From when an answer is handed to its connection until the model may be asked again, and between
/// two looks whether it rests.
const STEP: Duration = Duration::from_millis(2);
/// Looks until it is given up: what has no rest for so long is busy.
const LOOKS: u32 = 25;

/// Whose turn it is.
#[derive(Debug, Default)]
struct Turn {
    /// Requests since the last that was asked again.
    asked: u32,
    /// When that was.
    last: Option<Instant>,
    /// One waits or runs: there is never a second.
    pending: bool,
}

/// Chooses the requests of one guest that are asked again.
#[derive(Debug, Default)]
pub struct Sampler(Mutex<Turn>);

impl Sampler {
    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this request is asked again. If so, [`Self::done`] must follow.
    pub fn takes(&self, now: Instant) -> bool {
        let mut turn = self.turn();
        turn.asked = turn.asked.saturating_add(1);
        let rare = turn.last.is_none_or(|last| now - last >= RARELY);
        let takes = !turn.pending && (rare || turn.asked >= ONE_OF);
        turn.pending |= takes;
        takes
    }

    /// The last one that was taken has ended; `ran`: it was asked again, and not given up.
    pub fn done(&self, now: Instant, ran: bool) {
        let mut turn = self.turn();
        turn.pending = false;
        if ran {
            turn.asked = 0;
            turn.last = Some(now);
        }
    }
}

/// A request that was answered by a new version, and that the version before is asked too.
pub struct Shadow {
    /// Who answered.
    pub served: Arc<Served>,
    /// The version before.
    pub spare: Arc<Served>,
    /// Number of items.
    pub batch: u32,
    /// What was asked.
    pub inputs: Vec<Vec<u8>>,
    /// What was answered.
    pub outputs: Vec<Vec<u8>>,
}

impl Shadow {
    /// Asks, once the model rests; to be called when the answer is on its way.
    pub fn follow(self, routes: &Arc<Routes>) {
        let routes = routes.clone();
        tokio::spawn(async move {
            let served = self.served.clone();
            let ran = self.ask(&routes).await;
            served.sampler.done(Instant::now(), ran);
        });
    }

    async fn ask(self, routes: &Routes) -> bool {
        let mut looks = 0;
        loop {
            tokio::time::sleep(STEP).await;
            if !routes.activity.is_running() {
                break;
            }
            looks += 1;
            if looks == LOOKS {
                return false;
            }
        }
        // The meter counts it as work, and its energy goes where its time on the processor goes.
        let running = routes.activity.begin();
        let answer = self.spare.guest.infer(self.batch, self.inputs).await;
        drop(running);
        let Ok(answer) = answer else {
            return false;
        };
        self.spare.shadowed(answer.cpu_us);
        let look = &self.served.look;
        let agreed = agree(look, self.batch, &answer.outputs, &self.outputs);
        self.served.compared(self.batch, agreed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_many_is_taken_and_never_two_at_once() {
        let (sampler, now) = (Sampler::default(), Instant::now());
        assert!(sampler.takes(now), "the first");
        assert!((0..100).all(|_| !sampler.takes(now)), "one waits");
        sampler.done(now, true);
        let mut taken = 0;
        for _ in 0..3 * ONE_OF {
            if sampler.takes(now) {
                taken += 1;
                sampler.done(now, true);
            }
        }
        assert_eq!(taken, 3);
    }

    #[test]
    fn where_requests_are_rare_each_is_taken_and_one_given_up_leaves_its_turn() {
        let (sampler, now) = (Sampler::default(), Instant::now());
        assert!(sampler.takes(now));
        sampler.done(now, false);
        assert!(sampler.takes(now), "the first was given up");
        sampler.done(now, true);
        assert!(!sampler.takes(now));
        assert!(sampler.takes(now + RARELY));
    }
}
