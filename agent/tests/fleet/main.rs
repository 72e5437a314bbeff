//! The agent against a controller made for the tests, which does as it is told.
#![allow(clippy::unwrap_used)]

mod attaching;
#[path = "../../../crates/sandbox/tests/common/mod.rs"]
mod common;
mod controller;
mod device;
mod fetching;
mod hanging;
mod hostile;
mod moved;
mod serving;
mod updating;
mod windows;

use std::time::{Duration, Instant};

/// Longest wait for anything; reached only when something is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for what happens in its own time.
pub(crate) async fn eventually<T>(what: &str, mut done: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = done().await {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
