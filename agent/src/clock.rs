//! The device's clocks, in one place.

use sandpiper_core::time::Millis;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds by which the clock is made to be wrong.
static OFFSET_MS: AtomicI64 = AtomicI64::new(0);

/// Makes the clock wrong by so many seconds in the whole process, as an emulated board has it.
pub fn set_wrong_by(seconds: i64) {
    OFFSET_MS.store(seconds.saturating_mul(1000), Ordering::Relaxed);
}

/// Milliseconds since the machine was started, sleep included. Nobody can set it.
pub fn counted() -> Millis {
    let since = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(since.tv_sec).unwrap_or(0);
    let rest = u64::try_from(since.tv_nsec).unwrap_or(0) / 1_000_000;
    Millis(seconds.saturating_mul(1_000).saturating_add(rest))
}

/// Milliseconds since the Unix epoch by the device's clock, which may be wrong: it decides
/// nothing about trust. One before the epoch reads as the epoch.
pub fn now() -> Millis {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let right = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    Millis(right.saturating_add_signed(OFFSET_MS.load(Ordering::Relaxed)))
}
