//! What happens when the medium fails.

use crate::store::group::{Engine, Group};
use crate::store::memory::Memory;
use crate::store::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;

/// A medium whose syncs can be made to fail, or to wait for a permit.
struct Faulty {
    memory: Memory,
    fails: Arc<AtomicBool>,
    syncs: Arc<AtomicUsize>,
    permits: Option<std::sync::Mutex<mpsc::Receiver<()>>>,
}

impl Engine for Faulty {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.memory.get(key)
    }
    fn range(&self, prefix: &[u8]) -> Result<Vec<Entry>, StoreError> {
        self.memory.range(prefix)
    }
    fn apply(&self, changes: &[Arc<Change>]) -> Result<(), StoreError> {
        self.memory.apply(changes)
    }
    fn sync(&self) -> Result<(), StoreError> {
        self.syncs.fetch_add(1, Ordering::SeqCst);
        if let Some(permits) = &self.permits {
            permits.lock().unwrap().recv().unwrap();
        }
        match self.fails.load(Ordering::SeqCst) {
            true => Err(StoreError::Write(
                std::io::Error::from_raw_os_error(5).into(),
            )),
            false => Ok(()),
        }
    }
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_or_told() {
    let fails = Arc::new(AtomicBool::new(false));
    let (memory, syncs) = (Memory::default(), Arc::default());
    let store = Group::new(Faulty {
        memory,
        fails: fails.clone(),
        syncs,
        permits: None,
    });
    let mut watch = store.watch(b"");
    store
        .transact(Transaction::default().put("a", "1"))
        .unwrap();
    assert!(watch.try_next().unwrap().is_some());
    fails.store(true, Ordering::SeqCst);
    let failed = store.transact(Transaction::default().put("a", "2"));
    assert!(matches!(failed, Err(StoreError::Write(_))));
    // Even when the disk claims to be well again: nobody knows what it holds.
    fails.store(false, Ordering::SeqCst);
    let refused = store.transact(Transaction::default().put("a", "3"));
    assert!(matches!(refused, Err(StoreError::Broken(_))));
    assert!(matches!(store.get(b"a"), Err(StoreError::Broken(_))));
    assert!(matches!(store.range(b""), Err(StoreError::Broken(_))));
    assert_eq!(watch.try_next().unwrap(), None);
}

#[test]
fn transactions_that_wait_share_one_sync() {
    let (allow, permits) = mpsc::channel();
    let syncs = Arc::new(AtomicUsize::new(0));
    let store = Group::new(Faulty {
        memory: Memory::default(),
        fails: Arc::default(),
        syncs: syncs.clone(),
        permits: Some(std::sync::Mutex::new(permits)),
    });
    const FOLLOWERS: usize = 10;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            store
                .transact(Transaction::default().put("first", ""))
                .unwrap()
        });
        while syncs.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        for n in 0..FOLLOWERS {
            let one = Transaction::default().put(format!("more/{n}"), "");
            let store = &store;
            scope.spawn(move || store.transact(one).unwrap());
        }
        while store.range(b"more/").unwrap().len() < FOLLOWERS {
            std::thread::yield_now();
        }
        allow.send(()).unwrap();
        allow.send(()).unwrap();
    });
    assert_eq!(
        syncs.load(Ordering::SeqCst),
        2,
        "one for the first, one for all the others"
    );
}
