//! What every store must do: each check runs against every store.

use crate::store::*;
use std::sync::Arc;

fn each(check: impl Fn(Arc<dyn Store>)) {
    check(Arc::new(MemoryStore::default()));
    let dir = tempfile::tempdir().unwrap();
    check(Arc::new(SledStore::open(&dir.path().join("db")).unwrap()));
}

fn put(store: &dyn Store, key: &str, value: &str) {
    store
        .transact(Transaction::default().put(key, value))
        .unwrap();
}

fn keys(entries: Vec<Entry>) -> Vec<String> {
    entries
        .into_iter()
        .map(|(key, _)| String::from_utf8(key).unwrap())
        .collect()
}

#[test]
fn what_is_put_is_got_and_what_is_deleted_is_gone() {
    each(|store| {
        assert_eq!(store.get(b"a").unwrap(), None);
        put(&*store, "a", "1");
        assert_eq!(store.get(b"a").unwrap(), Some(b"1".to_vec()));
        put(&*store, "a", "");
        assert_eq!(
            store.get(b"a").unwrap(),
            Some(Vec::new()),
            "empty is not absent"
        );
        let both = Transaction::default()
            .delete("a")
            .put("a", "2")
            .delete("absent");
        store.transact(both).unwrap();
        assert_eq!(
            store.get(b"a").unwrap(),
            Some(b"2".to_vec()),
            "a put beats a delete"
        );
        store.transact(Transaction::default().delete("a")).unwrap();
        assert_eq!(store.get(b"a").unwrap(), None);
    });
}

#[test]
fn a_range_is_ordered_and_keeps_to_its_prefix() {
    each(|store| {
        for key in [
            "device/b",
            "device/a",
            "device",
            "device0",
            "devicf/",
            "device/a/x",
        ] {
            put(&*store, key, "");
        }
        let found = keys(store.range(b"device/").unwrap());
        assert_eq!(found, ["device/a", "device/a/x", "device/b"]);
        assert_eq!(store.range(b"").unwrap().len(), 6);
        let end = Transaction::default()
            .put(vec![0xff, 0xff], "last")
            .put(vec![0xff], "");
        store.transact(end).unwrap();
        assert_eq!(
            store.range(&[0xff]).unwrap().len(),
            2,
            "a prefix without a successor"
        );
    });
}

#[test]
fn an_expectation_that_fails_changes_nothing() {
    each(|store| {
        put(&*store, "a", "1");
        let mut watch = store.watch(b"");
        let wrong = [Some(b"2".to_vec()), None];
        for expected in wrong {
            let attempt = Transaction::default()
                .expect("a", expected)
                .put("b", "x")
                .delete("a");
            let refused = store.transact(attempt);
            assert!(matches!(refused, Err(StoreError::Conflict { key }) if key == b"a"));
        }
        assert_eq!(keys(store.range(b"").unwrap()), ["a"]);
        assert_eq!(watch.try_next().unwrap(), None);
        let right = Transaction::default()
            .expect("a", Some(b"1".to_vec()))
            .expect("b", None);
        store.transact(right.put("b", "x")).unwrap();
        assert_eq!(store.get(b"b").unwrap(), Some(b"x".to_vec()));
    });
}

#[test]
fn bounds_are_kept_and_named() {
    each(|store| {
        let value = Transaction::default().put("a", vec![0; MAX_VALUE_BYTES + 1]);
        let key = Transaction::default().delete(vec![0; MAX_KEY_BYTES + 1]);
        let delete = vec![b"a".to_vec(); MAX_TRANSACTION_KEYS + 1];
        let many = Transaction {
            delete,
            ..Transaction::default()
        };
        for (attempt, name) in [(value, "a value"), (key, "a key"), (many, "a transaction")] {
            let refused = store.transact(attempt).unwrap_err();
            assert!(matches!(refused, StoreError::TooLarge { what, .. } if what == name));
        }
        store
            .transact(Transaction::default().put("a", vec![7; MAX_VALUE_BYTES]))
            .unwrap();
        assert_eq!(store.get(b"a").unwrap().unwrap().len(), MAX_VALUE_BYTES);
    });
}

#[test]
fn a_watch_shows_every_change_of_its_prefix_in_order() {
    each(|store| {
        put(&*store, "x/0", "before");
        let mut watch = store.watch(b"x/");
        put(&*store, "x/1", "a");
        put(&*store, "y/1", "b");
        store
            .transact(Transaction::default().put("x/2", "c").delete("x/1"))
            .unwrap();
        let mut seen = Vec::new();
        while let Some(change) = watch.try_next().unwrap() {
            seen.push((
                String::from_utf8(change.key.clone()).unwrap(),
                change.value.clone(),
            ));
        }
        let some = |text: &str| Some(text.as_bytes().to_vec());
        let want = [("x/1", some("a")), ("x/1", None), ("x/2", some("c"))];
        assert_eq!(seen, want.map(|(key, value)| (key.to_owned(), value)));
        drop(store);
        assert_eq!(watch.try_next(), Err(WatchError::Closed));
    });
}

#[test]
fn a_watcher_that_falls_behind_is_told() {
    let store = MemoryStore::default();
    let mut watch = store.watch(b"");
    for n in 0..5000 {
        put(&store, "a", &n.to_string());
    }
    assert!(matches!(watch.try_next(), Err(WatchError::Lagged(missed)) if missed >= 904));
    assert!(watch.try_next().unwrap().is_some(), "and goes on");
}

#[test]
fn of_many_that_count_at_once_none_is_lost() {
    const THREADS: u64 = 8;
    const EACH: u64 = 25;
    each(|store| {
        let mut watch = store.watch(b"count");
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| (0..EACH).for_each(|_| count_up(&*store)));
            }
        });
        assert_eq!(
            number(store.get(b"count").unwrap().as_deref()),
            THREADS * EACH
        );
        for want in 1..=THREADS * EACH {
            let change = watch.try_next().unwrap().unwrap();
            assert_eq!(
                number(change.value.as_deref()),
                want,
                "told in the order of commits"
            );
        }
    });
}

fn number(value: Option<&[u8]>) -> u64 {
    value.map_or(0, |bytes| {
        std::str::from_utf8(bytes).unwrap().parse().unwrap()
    })
}

fn count_up(store: &dyn Store) {
    loop {
        let old = store.get(b"count").unwrap();
        let next = (number(old.as_deref()) + 1).to_string();
        let attempt = Transaction::default()
            .expect("count", old)
            .put("count", next);
        match store.transact(attempt) {
            Ok(()) => return,
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}
