//! When a device may fetch and when it may switch, by the clock on its wall.
//!
//! A policy names [`Window`]s of local time. Who knows the time zone of a device and the rules of
//! daylight saving makes [`Spans`] of UTC of them, for as long as the device is waited for; these
//! travel in its assignment, so that a device needs no time zones, and works offline.
//!
//! | module | what it holds |
//! |---|---|
//! | `daily` | windows of local time and their text |
//! | `zone` | time zones by name, from data that is compiled in |
//! | `spans` | stretches of UTC, and what of them a device is told |
//! | `wall` | what a device knows of the time of the day, and when it knows nothing |

mod daily;
mod spans;
mod wall;
mod zone;

pub use daily::{MAX_WINDOWS, Window, WindowError};
pub use spans::{MAX_SPANS, Opening, Schedule, Spans};
pub use wall::{TRUSTED_FOR, Wall};
pub use zone::{ZONE_LABEL, Zone, ZoneError};
