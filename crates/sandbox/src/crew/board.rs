//! The board on which the caller writes which step is to be done, and from which whoever has time
//! takes a part. A worker that the system does not let run holds nobody up: the others take what it
//! has not begun.

use rustix::thread::futex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// Looks at the board before sleeping: some 20 us, longer than most steps are apart, and shorter than
/// it takes the kernel to wake one up twice.
const LOOKS: u32 = 4000;

/// A part of a step for one item of the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Task {
    pub(super) step: u32,
    pub(super) item: u32,
    pub(super) part: u32,
}

/// One step at a time, in parts.
#[derive(Debug)]
pub(super) struct Board {
    parts: u32,
    /// Item and step, 32 bits each. They change only when all parts are done.
    what: AtomicU64,
    /// The number of the step since the beginning, and the next part that nobody has: 32 bits each.
    next: AtomicU64,
    done: AtomicU32,
    /// The caller sleeps until `done` changes.
    awaited: AtomicBool,
    /// Workers that sleep, or are about to, and what they sleep on.
    sleepers: AtomicU32,
    bell: AtomicU32,
    closed: AtomicBool,
}

impl Board {
    /// An empty board for steps in so many parts.
    pub(super) fn of(parts: u32) -> Self {
        Self {
            parts,
            what: AtomicU64::new(0),
            next: AtomicU64::new(u64::from(parts)),
            done: AtomicU32::new(parts),
            awaited: AtomicBool::new(false),
            sleepers: AtomicU32::new(0),
            bell: AtomicU32::new(0),
            closed: AtomicBool::new(false),
        }
    }

    /// The caller's: writes a step on the board. All parts of the one before are done.
    pub(super) fn write(&self, step: u32, item: u32) {
        self.done.store(0, Ordering::SeqCst);
        let what = u64::from(item) << 32 | u64::from(step);
        self.what.store(what, Ordering::SeqCst);
        let number = (self.next.load(Ordering::SeqCst) >> 32).wrapping_add(1);
        self.next.store(number << 32, Ordering::SeqCst);
        self.ring();
    }

    /// Whoever goes to sleep after this look at the sleepers finds the board changed, and does not.
    fn ring(&self) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            self.bell.fetch_add(1, Ordering::SeqCst);
            // It fails only for an address that is none.
            let _ = futex::wake(&self.bell, futex::Flags::PRIVATE, i32::MAX as u32);
        }
    }

    /// Takes a part, if there is one that nobody has. It must be given back with [`Board::finish`].
    pub(super) fn take(&self) -> Option<Task> {
        let mut next = self.next.load(Ordering::SeqCst);
        loop {
            let part = next as u32;
            if part >= self.parts {
                return None;
            }
            let taken =
                self.next
                    .compare_exchange_weak(next, next + 1, Ordering::SeqCst, Ordering::SeqCst);
            match taken {
                Ok(_) => {
                    // Not the next step's: that is not written before this part is done.
                    let what = self.what.load(Ordering::SeqCst);
                    let (step, item) = (what as u32, (what >> 32) as u32);
                    return Some(Task { step, item, part });
                }
                Err(now) => next = now,
            }
        }
    }

    /// A part that was taken is done. What was done before is visible to whoever takes one later.
    pub(super) fn finish(&self) {
        self.done.fetch_add(1, Ordering::SeqCst);
        if self.awaited.load(Ordering::SeqCst) {
            let _ = futex::wake(&self.done, futex::Flags::PRIVATE, 1);
        }
    }

    /// The caller's: waits until all parts are done.
    pub(super) fn wait_done(&self) {
        let all_done = || self.done.load(Ordering::SeqCst) == self.parts;
        for _ in 0..LOOKS {
            if all_done() {
                return;
            }
            std::hint::spin_loop();
        }
        self.awaited.store(true, Ordering::SeqCst);
        loop {
            let done = self.done.load(Ordering::SeqCst);
            if done == self.parts {
                break;
            }
            // Woken, interrupted, or one more is done already: the loop looks again.
            let _ = futex::wait(&self.done, futex::Flags::PRIVATE, done, None);
        }
        self.awaited.store(false, Ordering::SeqCst);
    }

    /// A worker's: waits for a part and takes it; `None` when the board is closed.
    pub(super) fn wait_task(&self) -> Option<Task> {
        loop {
            for _ in 0..LOOKS {
                if let Some(task) = self.take() {
                    return Some(task);
                }
                if self.closed.load(Ordering::SeqCst) {
                    return None;
                }
                std::hint::spin_loop();
            }
            self.sleepers.fetch_add(1, Ordering::SeqCst);
            let bell = self.bell.load(Ordering::SeqCst);
            let task = self.take();
            if task.is_none() && !self.closed.load(Ordering::SeqCst) {
                let _ = futex::wait(&self.bell, futex::Flags::PRIVATE, bell, None);
            }
            self.sleepers.fetch_sub(1, Ordering::SeqCst);
            if task.is_some() {
                return task;
            }
        }
    }

    /// Sends the workers home.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.ring();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds what it did to `sum`; what belongs to another step counts as wrong.
    fn perform(board: &Board, task: Task, now: u32, (sum, wrong): (&AtomicU64, &AtomicU64)) {
        let of = if task.step == now { sum } else { wrong };
        of.fetch_add(u64::from(task.part + 1), Ordering::SeqCst);
        board.finish();
    }

    #[test]
    fn every_part_of_every_step_is_done_once_and_in_order() {
        const STEPS: u32 = 3000;
        for parts in [1, 2, 3, 5] {
            let (board, now) = (Board::of(parts), AtomicU32::new(0));
            let (sum, wrong) = (AtomicU64::new(0), AtomicU64::new(0));
            let counts = (&sum, &wrong);
            std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        while let Some(task) = board.wait_task() {
                            perform(&board, task, now.load(Ordering::SeqCst), counts);
                        }
                    });
                }
                for step in 0..STEPS {
                    now.store(step, Ordering::SeqCst);
                    board.write(step, 0);
                    // Now and then the caller does nothing, so that the others must do it all.
                    while step % 3 != 0
                        && let Some(task) = board.take()
                    {
                        perform(&board, task, step, counts);
                    }
                    board.wait_done();
                    if step % 500 == 0 {
                        // Long enough for the others to go to sleep.
                        std::thread::sleep(std::time::Duration::from_millis(2));
                    }
                }
                board.close();
            });
            let once = u64::from(parts * (parts + 1) / 2);
            assert_eq!(sum.into_inner(), once * u64::from(STEPS));
            assert_eq!(wrong.into_inner(), 0);
        }
    }
}
