//! The device's clocks, in one place.

use sandpiper_core::time::Millis;
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the machine was started, sleep included. Nobody can set it.
pub fn counted() -> Millis {
    let since = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(since.tv_sec).unwrap_or(0);
    let rest = u64::try_from(since.tv_nsec).unwrap_or(0) / 1_000_000;
    Millis(seconds.saturating_mul(1_000).saturating_add(rest))
}

/// Milliseconds since the Unix epoch by the device's clock, which may be wrong: it decides
/// nothing about trust.
pub fn now() -> Millis {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
