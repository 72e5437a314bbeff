//! Watches over a prefix.

use std::sync::Arc;
use tokio::sync::broadcast;

/// Changes that wait for a slow watcher. One that falls further behind is told so, because
/// memory must not grow with the slowest.
pub(super) const BACKLOG: usize = 4096;

/// A change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: Vec<u8>,
    /// Its new value; `None` when it was deleted.
    pub value: Option<Vec<u8>>,
}

/// Why a watch gives no change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// Changes were missed: read the state anew and go on.
    #[error("{0} changes were missed by a slow reader")]
    Lagged(u64),
    /// The store is gone.
    #[error("the store is closed")]
    Closed,
}

/// Changes under a prefix.
#[derive(Debug)]
pub struct Watch {
    prefix: Vec<u8>,
    changes: broadcast::Receiver<Arc<Change>>,
}

impl Watch {
    pub(super) fn new(prefix: &[u8], changes: broadcast::Receiver<Arc<Change>>) -> Self {
        Self {
            prefix: prefix.to_vec(),
            changes,
        }
    }

    /// Waits for the next change. Cancel-safe.
    ///
    /// # Errors
    /// [`WatchError`].
    pub async fn next(&mut self) -> Result<Arc<Change>, WatchError> {
        loop {
            match self.changes.recv().await {
                Ok(change) if change.key.starts_with(&self.prefix) => return Ok(change),
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    return Err(WatchError::Lagged(missed));
                }
                Err(broadcast::error::RecvError::Closed) => return Err(WatchError::Closed),
            }
        }
    }

    /// The next change, if there is one already.
    ///
    /// # Errors
    /// [`WatchError`].
    pub fn try_next(&mut self) -> Result<Option<Arc<Change>>, WatchError> {
        loop {
            match self.changes.try_recv() {
                Ok(change) if change.key.starts_with(&self.prefix) => return Ok(Some(change)),
                Ok(_) => {}
                Err(broadcast::error::TryRecvError::Empty) => return Ok(None),
                Err(broadcast::error::TryRecvError::Lagged(missed)) => {
                    return Err(WatchError::Lagged(missed));
                }
                Err(broadcast::error::TryRecvError::Closed) => return Err(WatchError::Closed),
            }
        }
    }
}
