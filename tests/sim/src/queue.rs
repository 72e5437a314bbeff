//! What is to happen, in order.

use crate::event::Happening;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Milliseconds of the world, which no clock in it shows.
pub type Time = u64;

struct Entry {
    at: Time,
    number: u64,
    what: Happening,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// The future. What is due at the same time happens in the order in which it was planned.
#[derive(Default)]
pub struct Queue {
    heap: BinaryHeap<Reverse<Entry>>,
    numbers: u64,
}

impl Queue {
    /// Plans something.
    pub fn at(&mut self, at: Time, what: Happening) {
        self.numbers += 1;
        let number = self.numbers;
        self.heap.push(Reverse(Entry { at, number, what }));
    }

    /// Takes what is next.
    pub fn take(&mut self) -> Option<(Time, Happening)> {
        self.heap.pop().map(|Reverse(entry)| (entry.at, entry.what))
    }
}
