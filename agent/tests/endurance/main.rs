//! What the agent keeps over power cuts, and over a disk that is full or fails.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[allow(dead_code)]
#[path = "../fleet/controller.rs"]
mod controller;
mod cuts;
mod device;
mod faults;
mod memory;
mod model;
mod recorder;
mod story;
mod world;

use std::time::{Duration, Instant};

/// Longest wait for anything; reached only when something is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for what happens in its own time; says what did not.
pub(crate) async fn within<T>(
    what: &str,
    mut done: impl AsyncFnMut() -> Option<T>,
) -> Result<T, String> {
    let begun = Instant::now();
    loop {
        if let Some(found) = done().await {
            return Ok(found);
        }
        if begun.elapsed() > PATIENCE {
            return Err(format!("waited in vain: {what}"));
        }
        tokio::time::sleep(Duration::from_micros(300)).await;
    }
}
