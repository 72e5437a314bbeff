//! Writes of one job as one step, however many there are.
//!
//! A store bounds its transactions, and a wave may move more devices than one holds. Then every
//! write first goes to a place of its own (the journal); once all are there one key says that
//! they count, and only then are they moved to where they belong. A crash before that key
//! leaves nothing of the job, a crash after it is made good at the next start. So a rollout
//! never remembers devices that were not assigned, nor the other way round.
//!
//! Every transaction expects the term of the controller that makes it (`core::fleet::Term`): one
//! that another has taken over from writes nothing any more.

use crate::store::{MAX_TRANSACTION_KEYS, Store, StoreError, Transaction};
use sandpiper_core::fleet::{Row, Term, Writes};

/// Values to come.
const PUT: &[u8] = b"j/+";
/// Keys to go.
const DELETE: &[u8] = b"j/-";
/// That both count.
const MARK: &[u8] = b"J";

/// Keys of one transaction besides the one that it expects.
const AT_ONCE: usize = MAX_TRANSACTION_KEYS - 1;
/// Moving an entry touches its place in the journal and where it belongs; the mark is one more.
const MOVED_AT_ONCE: usize = AT_ONCE / 2 - 1;

/// A store as one controller may write to it: while the term lasts in which it acts.
pub(super) struct Fenced<'a> {
    pub(super) store: &'a dyn Store,
    /// What the store must hold; nothing in tests without a term.
    pub(super) expect: Option<Row>,
}

impl Fenced<'_> {
    fn transact(&self, mut transaction: Transaction) -> Result<(), StoreError> {
        if let Some((key, value)) = &self.expect {
            transaction = transaction.expect(key.clone(), Some(value.clone()));
        }
        self.store.transact(transaction).map_err(taken_over)
    }
}

/// Nothing but the term is expected of the store.
fn taken_over(error: StoreError) -> StoreError {
    match error {
        StoreError::Conflict { key } if key == Term::KEY => StoreError::TakenOver,
        other => other,
    }
}

/// Begins the next term: from here on nobody who began an earlier one can write.
///
/// # Errors
/// [`StoreError`], also when another controller begins one at this moment.
pub(super) fn take_over(store: &dyn Store) -> Result<Term, StoreError> {
    let stored = store.get(Term::KEY)?;
    let term = Term::after(stored.as_deref()).map_err(|e| StoreError::Read(Box::new(e)))?;
    let (key, value) = term.row();
    let begin = Transaction::default().expect(key.clone(), stored);
    store.transact(begin.put(key, value)).map_err(taken_over)?;
    Ok(term)
}

/// Makes all writes durable, or, with an error, possibly none. Without writes it only asks whether
/// this controller still acts.
///
/// # Errors
/// [`StoreError::TakenOver`] when another controller acts on the store, or what the store says.
pub(super) fn commit(store: &Fenced<'_>, writes: Writes) -> Result<(), StoreError> {
    if writes.len() <= AT_ONCE {
        return store.transact(direct(writes));
    }
    write_down(store, writes)?;
    store.transact(Transaction::default().put(MARK, *b"1"))?;
    carry_out(store)
}

fn direct(writes: Writes) -> Transaction {
    let mut transaction = Transaction::default();
    for (key, value) in writes {
        transaction = match value {
            Some(value) => transaction.put(key, value),
            None => transaction.delete(key),
        };
    }
    transaction
}

fn write_down(store: &Fenced<'_>, writes: Writes) -> Result<(), StoreError> {
    let mut open = Transaction::default();
    for (key, value) in writes {
        let (prefix, value) = match value {
            Some(value) => (PUT, value),
            None => (DELETE, Vec::new()),
        };
        open = open.put([prefix, &key].concat(), value);
        if open.put.len() == AT_ONCE {
            store.transact(std::mem::take(&mut open))?;
        }
    }
    store.transact(open)
}

/// Moves what the journal holds to where it belongs. The order does not matter: every key is in
/// it once.
fn carry_out(store: &Fenced<'_>) -> Result<(), StoreError> {
    let puts = store.store.range(PUT)?.into_iter();
    let puts = puts.map(|(key, value)| (key, Some(value)));
    let deletes = store.store.range(DELETE)?.into_iter();
    let deletes = deletes.map(|(key, _)| (key, None));
    let mut open = Transaction::default();
    let mut count = 0;
    for (place, value) in puts.chain(deletes) {
        // Both prefixes have the same length.
        let key = place[PUT.len()..].to_vec();
        open = match value {
            Some(value) => open.put(key, value),
            None => open.delete(key),
        };
        open = open.delete(place);
        count += 1;
        if count == MOVED_AT_ONCE {
            store.transact(std::mem::take(&mut open))?;
            count = 0;
        }
    }
    store.transact(open.delete(MARK))
}

/// Finishes or forgets what a crash interrupted. Call it before anything is read.
///
/// # Errors
/// [`StoreError`].
pub(super) fn recover(store: &Fenced<'_>) -> Result<(), StoreError> {
    if store.store.get(MARK)?.is_some() {
        return carry_out(store);
    }
    for prefix in [PUT, DELETE] {
        let left: Vec<_> = store
            .store
            .range(prefix)?
            .into_iter()
            .map(|(k, _)| k)
            .collect();
        for part in left.chunks(AT_ONCE) {
            let delete = part.to_vec();
            store.transact(Transaction {
                delete,
                ..Transaction::default()
            })?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::store::{Entry, MemoryStore, Watch};
    use std::sync::Mutex;

    /// A store that a power cut takes away after so many transactions.
    struct Cut<'a> {
        store: &'a MemoryStore,
        left: Mutex<usize>,
    }

    impl Store for Cut<'_> {
        fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
            self.store.get(key)
        }
        fn range(&self, prefix: &[u8]) -> Result<Vec<Entry>, StoreError> {
            self.store.range(prefix)
        }
        fn transact(&self, transaction: Transaction) -> Result<(), StoreError> {
            let mut left = self.left.lock().unwrap();
            if *left == 0 {
                return Err(StoreError::Broken("cut".to_owned()));
            }
            *left -= 1;
            self.store.transact(transaction)
        }
        fn watch(&self, prefix: &[u8]) -> Watch {
            self.store.watch(prefix)
        }
    }

    fn free(store: &dyn Store) -> Fenced<'_> {
        Fenced {
            store,
            expect: None,
        }
    }

    fn key(number: usize) -> Vec<u8> {
        format!("d/{number:05}").into_bytes()
    }

    /// 25,000 devices whose value changes, and one record that goes.
    fn job() -> Writes {
        let mut writes: Writes = (0..25_000)
            .map(|n| (key(n), Some(b"new".to_vec())))
            .collect();
        writes.insert(b"r/old".to_vec(), None);
        writes
    }

    fn old() -> MemoryStore {
        let store = MemoryStore::default();
        store
            .transact(
                Transaction::default()
                    .put("r/old", "old")
                    .put(key(3), "old"),
            )
            .unwrap();
        store
    }

    #[test]
    fn more_than_one_transaction_holds_is_written() {
        let store = old();
        commit(&free(&store), job()).unwrap();
        let all = store.range(b"").unwrap();
        assert_eq!(all.len(), 25_000, "nothing of the journal is left");
        assert!(all.iter().all(|(_, value)| value == b"new"));
    }

    #[test]
    fn a_power_cut_leaves_all_of_a_job_or_nothing() {
        let mut outcomes = [0, 0];
        for cut_after in 0.. {
            let store = old();
            let before = store.range(b"").unwrap();
            let cut = Cut {
                store: &store,
                left: Mutex::new(cut_after),
            };
            let ended = commit(&free(&cut), job());
            recover(&free(&store)).unwrap();
            let after = store.range(b"").unwrap();
            let whole = after.len() == 25_000 && after.iter().all(|(_, v)| v == b"new");
            assert!(whole || after == before, "cut after {cut_after}");
            outcomes[usize::from(whole)] += 1;
            if ended.is_ok() {
                assert!(whole);
                break;
            }
        }
        assert!(outcomes[0] > 3 && outcomes[1] > 3, "{outcomes:?}");
    }

    #[test]
    fn who_was_taken_over_from_writes_nothing_however_large_the_job() {
        let store = old();
        let lead = |term: Term| Fenced {
            store: &store,
            expect: Some(term.row()),
        };
        let first = take_over(&store).unwrap();
        let small = Writes::from([(b"r/one".to_vec(), Some(b"1".to_vec()))]);
        commit(&lead(first), small.clone()).unwrap();
        let second = take_over(&store).unwrap();
        let before = store.range(b"").unwrap();
        for writes in [small.clone(), job()] {
            let ended = commit(&lead(first), writes);
            assert!(matches!(ended, Err(StoreError::TakenOver)), "{ended:?}");
        }
        assert_eq!(store.range(b"").unwrap(), before);
        commit(&lead(second), job()).unwrap();
    }
}
