//! What a transaction means, and group commit: transactions that arrive while the disk syncs
//! share the next sync.

use super::watch::{BACKLOG, Change, Watch};
use super::{Entry, Store, StoreError, Transaction};
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use tokio::sync::broadcast;

/// What holds the entries. Errors of it are errors of the medium.
pub(super) trait Engine: Send + Sync {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// Entries by prefix.
    fn range(&self, prefix: &[u8]) -> Result<Vec<Entry>, StoreError>;
    /// Applies changes atomically, not necessarily durably.
    fn apply(&self, changes: &[Arc<Change>]) -> Result<(), StoreError>;
    /// Makes everything applied before the call durable.
    fn sync(&self) -> Result<(), StoreError>;
}

#[derive(Default)]
struct State {
    /// Number of transactions applied.
    applied: u64,
    /// Number of transactions, of those applied, that are durable.
    durable: u64,
    /// One of the waiting callers syncs for all.
    syncing: bool,
    /// Why nothing is accepted any more.
    broken: Option<String>,
    /// Applied but not yet told to watchers: number of the transaction and its changes.
    untold: VecDeque<(u64, Vec<Arc<Change>>)>,
}

impl State {
    fn check(&self) -> Result<(), StoreError> {
        match &self.broken {
            Some(why) => Err(StoreError::Broken(why.clone())),
            None => Ok(()),
        }
    }
}

/// A store on top of an engine.
pub(super) struct Group<E> {
    engine: E,
    state: Mutex<State>,
    synced: Condvar,
    changes: broadcast::Sender<Arc<Change>>,
}

impl<E: Engine> Group<E> {
    pub(super) fn new(engine: E) -> Self {
        let (changes, _) = broadcast::channel(BACKLOG);
        Self {
            engine,
            state: Mutex::default(),
            synced: Condvar::new(),
            changes,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent between any two statements that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks and applies; gives the number of the transaction.
    fn apply(&self, transaction: Transaction) -> Result<u64, StoreError> {
        let mut state = self.lock();
        state.check()?;
        for (key, expected) in &transaction.expect {
            if &self.engine.get(key)? != expected {
                return Err(StoreError::Conflict { key: key.clone() });
            }
        }
        let changes = changes_of(transaction);
        if let Err(error) = self.engine.apply(&changes) {
            state.broken = Some(error.to_string());
            self.synced.notify_all();
            return Err(error);
        }
        state.applied += 1;
        let number = state.applied;
        state.untold.push_back((number, changes));
        Ok(number)
    }

    /// Waits until a transaction is durable, syncing when nobody else does.
    fn settle(&self, number: u64) -> Result<(), StoreError> {
        let mut state = self.lock();
        loop {
            // First: a transaction that became durable before the store broke has succeeded.
            if state.durable >= number {
                return Ok(());
            }
            state.check()?;
            if state.syncing {
                state = self
                    .synced
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.syncing = true;
            let up_to = state.applied;
            drop(state);
            let synced = self.engine.sync();
            state = self.lock();
            state.syncing = false;
            self.synced.notify_all();
            if let Err(error) = synced {
                // After a failed sync the kernel may have dropped the pages: what is in memory
                // is not what a later sync would make durable.
                state.broken = Some(error.to_string());
                return Err(error);
            }
            state.durable = up_to;
            self.tell(&mut state);
        }
    }

    /// Tells watchers of what is durable, in order.
    fn tell(&self, state: &mut State) {
        while state
            .untold
            .front()
            .is_some_and(|(number, _)| *number <= state.durable)
        {
            let Some((_, changes)) = state.untold.pop_front() else {
                return;
            };
            for change in changes {
                // Nobody watches: nothing to tell.
                let _ = self.changes.send(change);
            }
        }
    }
}

/// The last change of every key, puts over deletes, by key.
fn changes_of(transaction: Transaction) -> Vec<Arc<Change>> {
    let mut last = std::collections::BTreeMap::new();
    for key in transaction.delete {
        last.insert(key, None);
    }
    for (key, value) in transaction.put {
        last.insert(key, Some(value));
    }
    last.into_iter()
        .map(|(key, value)| Arc::new(Change { key, value }))
        .collect()
}

impl<E: Engine> Store for Group<E> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.lock().check()?;
        self.engine.get(key)
    }

    fn range(&self, prefix: &[u8]) -> Result<Vec<Entry>, StoreError> {
        // Under the lock, so that it shows all of a transaction or nothing of it.
        let state = self.lock();
        state.check()?;
        self.engine.range(prefix)
    }

    fn transact(&self, transaction: Transaction) -> Result<(), StoreError> {
        transaction.check_sizes()?;
        let number = self.apply(transaction)?;
        self.settle(number)
    }

    fn watch(&self, prefix: &[u8]) -> Watch {
        // Under the lock, so that no commit is told half to the new watcher.
        let _state = self.lock();
        Watch::new(prefix, self.changes.subscribe())
    }
}
