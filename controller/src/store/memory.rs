//! A store in memory, for tests and trials. Nothing survives it.

use super::group::{Engine, Group};
use super::watch::{Change, Watch};
use super::{Entry, Store, StoreError, Transaction};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// A store that lives as long as the process.
pub struct MemoryStore(Group<Memory>);

impl Default for MemoryStore {
    fn default() -> Self {
        Self(Group::new(Memory::default()))
    }
}

#[derive(Default)]
pub(super) struct Memory(RwLock<BTreeMap<Vec<u8>, Vec<u8>>>);

impl Engine for Memory {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let map = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Ok(map.get(key).cloned())
    }

    fn range(&self, prefix: &[u8]) -> Result<Vec<Entry>, StoreError> {
        let map = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let from_prefix = map.range(prefix.to_vec()..);
        let entries = from_prefix.take_while(|(key, _)| key.starts_with(prefix));
        Ok(entries
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }

    fn apply(&self, changes: &[Arc<Change>]) -> Result<(), StoreError> {
        let mut map = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for change in changes {
            match &change.value {
                Some(value) => map.insert(change.key.clone(), value.clone()),
                None => map.remove(&change.key),
            };
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.get(key)
    }

    fn range(&self, prefix: &[u8]) -> Result<Vec<Entry>, StoreError> {
        self.0.range(prefix)
    }

    fn transact(&self, transaction: Transaction) -> Result<(), StoreError> {
        self.0.transact(transaction)
    }

    fn watch(&self, prefix: &[u8]) -> Watch {
        self.0.watch(prefix)
    }
}
