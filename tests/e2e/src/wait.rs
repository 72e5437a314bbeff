//! Waits with a bound.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// Between two looks: short against what is waited for, long against the cost of a look.
const PAUSE: Duration = Duration::from_millis(50);

/// Calls `look` until it gives a value, at most for `limit`.
///
/// # Errors
/// What `look` says, at once; or that `what` did not happen in time.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = look()? {
            return Ok(value);
        }
        if start.elapsed() > limit {
            bail!("waited {} s in vain: {what}", limit.as_secs());
        }
        std::thread::sleep(PAUSE);
    }
}
