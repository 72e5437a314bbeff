//! Where workers wait for each other: between steps for microseconds, between jobs for long.

use rustix::thread::futex;
use std::sync::atomic::{AtomicU32, Ordering};

/// Looks at the round before sleeping: some 20 us, longer than most workers are apart, and shorter
/// than it takes the kernel to wake one up twice.
const LOOKS: u32 = 4000;

/// A barrier: nobody leaves [`Meeting::wait`] before all have come.
#[derive(Debug)]
pub(super) struct Meeting {
    expected: AtomicU32,
    arrived: AtomicU32,
    round: AtomicU32,
    sleepers: AtomicU32,
}

impl Meeting {
    /// A meeting of so many.
    pub(super) fn of(expected: u32) -> Self {
        Self {
            expected: AtomicU32::new(expected),
            arrived: AtomicU32::new(0),
            round: AtomicU32::new(0),
            sleepers: AtomicU32::new(0),
        }
    }

    /// So many will never come. The caller must not have waited yet.
    pub(super) fn absent(&self, count: u32) {
        self.expected.fetch_sub(count, Ordering::SeqCst);
    }

    /// Waits for all others. What they did before is visible afterwards.
    pub(super) fn wait(&self) {
        let round = self.round.load(Ordering::SeqCst);
        let arrived = self.arrived.fetch_add(1, Ordering::SeqCst) + 1;
        if arrived == self.expected.load(Ordering::SeqCst) {
            self.arrived.store(0, Ordering::SeqCst);
            self.round.fetch_add(1, Ordering::SeqCst);
            // Whoever adds itself after this look finds the round changed, and does not sleep.
            if self.sleepers.load(Ordering::SeqCst) > 0 {
                // It fails only for an address that is none.
                let _ = futex::wake(&self.round, futex::Flags::PRIVATE, i32::MAX as u32);
            }
            return;
        }
        for _ in 0..LOOKS {
            if self.round.load(Ordering::Acquire) != round {
                return;
            }
            std::hint::spin_loop();
        }
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while self.round.load(Ordering::SeqCst) == round {
            // Woken, interrupted, or the round was over: the loop looks again.
            let _ = futex::wait(&self.round, futex::Flags::PRIVATE, round, None);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}
