//! The controller's store: ordered keys, transactions that compare before they swap, and
//! watches over a prefix.
//!
//! What is acknowledged survives `kill -9` and a power cut. [`SledStore`] keeps it on disk,
//! [`MemoryStore`] in memory for tests and trials; both share `group`, which decides what a
//! transaction means, so they cannot differ in it.
//!
//! Calls block (a commit waits for the disk): asynchronous code calls them through
//! `tokio::task::spawn_blocking`.

mod group;
mod memory;
mod sled;
mod watch;

#[cfg(test)]
mod tests;

pub use memory::MemoryStore;
pub use sled::SledStore;
pub use watch::{Change, Watch, WatchError};

use std::path::PathBuf;

/// Longest key in bytes. Keys are paths of names, of which each has at most 63 bytes.
pub const MAX_KEY_BYTES: usize = 1024;
/// Largest value in bytes: a signed version with its golden input and output is the largest
/// thing stored; artefacts are files.
pub const MAX_VALUE_BYTES: usize = 4 << 20;
/// Most keys that one transaction expects, puts and deletes together.
pub const MAX_TRANSACTION_KEYS: usize = 10_000;

/// A key with its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A key does not hold what the transaction expects. Read again and decide anew.
    #[error("the key `{}` was changed meanwhile", .key.escape_ascii())]
    Conflict {
        /// The key.
        key: Vec<u8>,
    },
    /// Over the bounds of a key, value or transaction. Nothing was written.
    #[error("{what} of {have} is larger than the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        have: usize,
        /// The limit.
        limit: usize,
    },
    /// Another process has the store open.
    #[error("the store `{0}` is in use: is another controller running on it?")]
    InUse(PathBuf),
    /// The store cannot be opened.
    #[error("the store `{path}` cannot be opened")]
    Open {
        /// Where it is.
        path: PathBuf,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Reading failed.
    #[error("the store cannot be read")]
    Read(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Writing or syncing failed. What memory holds may not be on disk, so from now on every
    /// call fails with [`StoreError::Broken`].
    #[error("the store cannot be written")]
    Write(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The controller may not write any more.
    #[error(
        "another controller has taken over this store, so this one ends: run one controller for a fleet"
    )]
    TakenOver,
    /// An earlier write failed.
    #[error(
        "the store is closed since a write failed ({0}); check the disk and start the controller again"
    )]
    Broken(String),
}

/// Changes that happen together or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    /// What keys must hold; `None` for a key that must be absent.
    pub expect: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// What keys hold afterwards.
    pub put: Vec<Entry>,
    /// Keys that are absent afterwards. A key that is also put is put.
    pub delete: Vec<Vec<u8>>,
}

impl Transaction {
    /// Expects a key to hold a value, or to be absent.
    #[must_use]
    pub fn expect(mut self, key: impl Into<Vec<u8>>, value: Option<Vec<u8>>) -> Self {
        self.expect.push((key.into(), value));
        self
    }

    /// Puts a value.
    #[must_use]
    pub fn put(mut self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Self {
        self.put.push((key.into(), value.into()));
        self
    }

    /// Deletes a key.
    #[must_use]
    pub fn delete(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.delete.push(key.into());
        self
    }

    fn check_sizes(&self) -> Result<(), StoreError> {
        let at_most = |what, have, limit| match have > limit {
            true => Err(StoreError::TooLarge { what, have, limit }),
            false => Ok(()),
        };
        let count = self.expect.len() + self.put.len() + self.delete.len();
        at_most("a transaction", count, MAX_TRANSACTION_KEYS)?;
        let expected = self.expect.iter().map(|(key, _)| key);
        let put = self.put.iter().map(|(key, _)| key);
        for key in expected.chain(put).chain(&self.delete) {
            at_most("a key", key.len(), MAX_KEY_BYTES)?;
        }
        for (_, value) in &self.put {
            at_most("a value", value.len(), MAX_VALUE_BYTES)?;
        }
        Ok(())
    }
}

/// Ordered keys and values.
pub trait Store: Send + Sync {
    /// The value of a key. It may belong to a transaction that is still on its way to disk;
    /// whatever is written because of it is on disk only after it.
    ///
    /// # Errors
    /// [`StoreError::Read`], [`StoreError::Broken`].
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// All entries whose key begins with the prefix, by key.
    ///
    /// # Errors
    /// [`StoreError::Read`], [`StoreError::Broken`].
    fn range(&self, prefix: &[u8]) -> Result<Vec<Entry>, StoreError>;

    /// Does all of a transaction or nothing. When it returns, it is durable.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when an expectation fails, [`StoreError::TooLarge`] over a
    /// bound: nothing was written. [`StoreError::Write`] and [`StoreError::Broken`] when it is
    /// not known whether it is on disk.
    fn transact(&self, transaction: Transaction) -> Result<(), StoreError>;

    /// Every change under the prefix from now on, in the order of the commits, once durable.
    /// To follow a state: watch, then `range`, then apply the changes.
    fn watch(&self, prefix: &[u8]) -> Watch;
}
