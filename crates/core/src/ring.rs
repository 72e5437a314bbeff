//! Closed telemetry windows that wait for the controller: bounded, numbered for ever.

use crate::telemetry::TelemetryWindow;
use std::collections::BTreeMap;

/// Most windows kept. With one model and windows of 30 s this is a day and a half; at about
/// 2 KiB each the ring stays below 10 MiB. The oldest give way.
pub const MAX_WINDOWS: usize = 4096;

/// Where a ring is kept. What a call has written survives a power cut once it returns.
pub trait RingStore {
    /// Why it failed.
    type Error;

    /// Keeps the number that the next window gets.
    ///
    /// # Errors
    /// When it is not known to be durable.
    fn keep_next(&mut self, next: u64) -> Result<(), Self::Error>;

    /// Keeps a window under its number.
    ///
    /// # Errors
    /// When it is not known to be durable.
    fn keep(&mut self, window: &TelemetryWindow) -> Result<(), Self::Error>;

    /// Deletes a window, if it is there.
    ///
    /// # Errors
    /// When it may still be there.
    fn forget(&mut self, sequence: u64) -> Result<(), Self::Error>;
}

/// Windows until they are acknowledged. A window keeps its number for ever, so replays count
/// once.
#[derive(Debug)]
pub struct Ring {
    boot: u64,
    next: u64,
    windows: BTreeMap<u64, TelemetryWindow>,
    lost: u64,
    capacity: usize,
}

impl Ring {
    /// The ring of an installation from what its store holds: the number kept last and all
    /// windows. `lost` are those that could not be read.
    pub fn restored(
        boot: u64,
        next: u64,
        windows: impl IntoIterator<Item = TelemetryWindow>,
        lost: u64,
        capacity: usize,
    ) -> Self {
        let windows = windows.into_iter().map(|w| (w.sequence, w));
        let windows: BTreeMap<_, _> = windows.collect();
        let last = windows.keys().next_back().copied().unwrap_or(0);
        Self {
            boot,
            next: next.max(last + 1),
            windows,
            lost,
            capacity,
        }
    }

    /// Gives the window its number and keeps it durably. The number is used up in the store
    /// first, so that no crash can give it twice.
    ///
    /// # Errors
    /// Those of the store.
    pub fn push<S: RingStore>(
        &mut self,
        store: &mut S,
        mut window: TelemetryWindow,
    ) -> Result<u64, S::Error> {
        let sequence = self.next;
        store.keep_next(sequence + 1)?;
        self.next += 1;
        window.boot = self.boot;
        window.sequence = sequence;
        store.keep(&window)?;
        self.windows.insert(sequence, window);
        while self.windows.len() > self.capacity {
            let Some(oldest) = self.windows.keys().next().copied() else {
                break;
            };
            self.forget(store, oldest)?;
            self.lost += 1;
        }
        Ok(sequence)
    }

    /// Up to `max` windows after `after`, in order.
    pub fn pending(&self, after: u64, max: usize) -> Vec<TelemetryWindow> {
        let after = self.windows.range(after.saturating_add(1)..);
        after.take(max).map(|(_, w)| w.clone()).collect()
    }

    /// Forgets every window up to `sequence`, if `boot` is this installation.
    ///
    /// # Errors
    /// Those of the store.
    pub fn acknowledge<S: RingStore>(
        &mut self,
        store: &mut S,
        boot: u64,
        sequence: u64,
    ) -> Result<(), S::Error> {
        if boot != self.boot {
            return Ok(());
        }
        let done: Vec<u64> = self.windows.range(..=sequence).map(|(s, _)| *s).collect();
        done.into_iter().try_for_each(|s| self.forget(store, s))
    }

    fn forget<S: RingStore>(&mut self, store: &mut S, sequence: u64) -> Result<(), S::Error> {
        store.forget(sequence)?;
        self.windows.remove(&sequence);
        Ok(())
    }

    /// Windows not yet acknowledged.
    pub fn len(&self) -> usize {
        self.windows.len()
    }

    /// Whether all is acknowledged.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// Windows that gave way or were damaged since the start.
    pub fn lost(&self) -> u64 {
        self.lost
    }
}
