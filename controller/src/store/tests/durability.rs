//! No acknowledged write is lost. A child process (this test binary, run again) writes and
//! acknowledges on its standard output; it is killed, or its system calls are watched.

use crate::store::*;
use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

const DIR: &str = "SANDPIPER_STORE_TEST_DIR";
const COUNT: &str = "SANDPIPER_STORE_TEST_COUNT";
/// Every so many transactions a value is large, so that sled keeps it in a file of its own.
const LARGE_EVERY: u64 = 5;
const LARGE_BYTES: usize = 700 << 10;
const ROUNDS: usize = 12;

fn value(number: u64) -> Vec<u8> {
    let bytes = if number.is_multiple_of(LARGE_EVERY) {
        LARGE_BYTES
    } else {
        100
    };
    let mut value = number.to_be_bytes().to_vec();
    value.resize(bytes, (number % 251) as u8);
    value
}

fn keys(number: u64) -> [String; 2] {
    [format!("a/{number:08}"), format!("b/{number:08}")]
}

/// Command that runs [`child`] on a directory.
fn child_command(program: &mut Command, dir: &Path) {
    program
        .args([
            "--exact",
            "store::tests::durability::child",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(DIR, dir)
        .stdin(Stdio::null())
        .stderr(Stdio::null());
}

/// Not a test of its own: does nothing unless another test runs it in a child process.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(DIR) else {
        return;
    };
    let count = std::env::var(COUNT).map_or(u64::MAX, |text| text.parse().unwrap());
    let store = SledStore::open(&Path::new(&dir).join("db")).unwrap();
    let first = store.range(b"a/").unwrap().len() as u64;
    let mut out = std::io::stdout();
    for number in first..first.saturating_add(count) {
        let [a, b] = keys(number);
        let both = Transaction::default()
            .put(a, value(number))
            .put(b, value(number));
        store
            .transact(both.put("last", number.to_string()))
            .unwrap();
        // One write call, so that an acknowledgement is seen whole or not at all.
        out.write_all(format!("\nack {number}\n").as_bytes())
            .unwrap();
        out.flush().unwrap();
    }
}

fn acknowledged(line: &str) -> Option<u64> {
    line.strip_prefix("ack ")?.parse().ok()
}

#[test]
fn kill_9_loses_no_acknowledged_write_and_tears_no_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let mut acked = BTreeSet::new();
    for round in 0..ROUNDS {
        let mut command = Command::new(std::env::current_exe().unwrap());
        child_command(&mut command, dir.path());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        // Round 0 kills right at the first, later ones at ever other places.
        let mut wanted = round * 3 + 1;
        while wanted > 0 {
            line.clear();
            assert_ne!(
                out.read_line(&mut line).unwrap(),
                0,
                "the child ended by itself"
            );
            if let Some(number) = acknowledged(line.trim_end()) {
                acked.insert(number);
                wanted -= 1;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        acked.extend(rest.lines().filter_map(acknowledged));
        check(&dir.path().join("db"), &acked);
    }
    assert!(acked.len() >= ROUNDS, "{}", acked.len());
}

/// Every acknowledged transaction is there, and every transaction is there whole.
fn check(path: &Path, acked: &BTreeSet<u64>) {
    let store = SledStore::open(path).unwrap();
    let (a, b) = (store.range(b"a/").unwrap(), store.range(b"b/").unwrap());
    assert_eq!(a.len(), b.len(), "a transaction was torn");
    for (number, ((key_a, value_a), (key_b, value_b))) in a.iter().zip(&b).enumerate() {
        let number = number as u64;
        let want = keys(number).map(String::into_bytes);
        assert_eq!(
            [key_a, key_b],
            [&want[0], &want[1]],
            "a transaction is missing"
        );
        assert!(
            *value_a == value(number) && *value_b == value(number),
            "{number} is damaged"
        );
    }
    if let Some(last) = acked.last() {
        assert!(
            *last < a.len() as u64,
            "acknowledged {last}, found {}",
            a.len()
        );
    }
    let last = store
        .get(b"last")
        .unwrap()
        .map(|text| String::from_utf8(text).unwrap());
    assert_eq!(last, a.len().checked_sub(1).map(|last| last.to_string()));
}

#[test]
fn a_store_in_use_or_cut_at_its_creation_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    // Left over from a creation that was cut.
    std::fs::create_dir(dir.path().join("db.new")).unwrap();
    std::fs::write(dir.path().join("db.new/conf"), b"half").unwrap();
    let store = SledStore::open(&path).unwrap();
    assert!(!dir.path().join("db.new").exists());
    assert!(matches!(SledStore::open(&path), Err(StoreError::InUse(_))));
    drop(store);
    SledStore::open(&path).unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    assert!(matches!(
        SledStore::open(&file),
        Err(StoreError::Open { .. })
    ));
}

/// Whether this machine lets a process be traced.
fn strace_works() -> bool {
    let tried = Command::new("strace")
        .args(["-f", "-y", "-o", "/dev/null", "true"])
        .output();
    tried.is_ok_and(|output| output.status.success())
}

#[test]
#[allow(clippy::print_stderr)]
fn every_acknowledgement_comes_after_a_sync_of_all_that_was_written() {
    if !strace_works() {
        eprintln!("skipped 1 test: strace is absent or not permitted to trace");
        return;
    }
    const WRITES: usize = 12;
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("trace");
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let mut command = Command::new("strace");
    command
        .args(["-f", "-y", "-s", "32", "-e"])
        .arg("trace=fsync,fdatasync,pwrite64,write,rename,renameat,renameat2")
        .arg("-o")
        .arg(&trace)
        .arg(std::env::current_exe().unwrap())
        .env(COUNT, WRITES.to_string());
    child_command(&mut command, &data);
    let status = command.stdout(Stdio::null()).status().unwrap();
    assert!(status.success());
    let trace = std::fs::read_to_string(&trace).unwrap();
    let mut watched = Watched::new(&data);
    trace.lines().for_each(|line| watched.line(line));
    assert_eq!(watched.acks, WRITES, "acknowledgements seen in the trace");
    assert!(
        watched.large > 0,
        "some values were large enough for files of their own"
    );
}

/// What a trace has shown so far.
struct Watched {
    log: String,
    blobs: String,
    parent: String,
    /// Paths with writes that are not yet synced.
    dirty: BTreeSet<String>,
    /// The name of the store is durable.
    named: bool,
    /// Threads in the middle of a sync, and of which path.
    pending: std::collections::BTreeMap<String, String>,
    acks: usize,
    large: usize,
}

impl Watched {
    fn new(data: &Path) -> Self {
        let data = data.display();
        Self {
            log: format!("{data}/db/db"),
            blobs: format!("{data}/db/blobs/"),
            parent: data.to_string(),
            dirty: BTreeSet::new(),
            named: false,
            pending: Default::default(),
            acks: 0,
            large: 0,
        }
    }

    fn line(&mut self, line: &str) {
        let (thread, call) = line.split_once(char::is_whitespace).unwrap_or_default();
        let call = call.trim_start();
        let path = call
            .split_once('<')
            .and_then(|(_, rest)| rest.split_once('>'));
        let path = path.map(|(path, _)| path.to_owned()).unwrap_or_default();
        let sync = call.starts_with("fsync(") || call.starts_with("fdatasync(");
        if sync && call.contains("<unfinished") {
            self.pending.insert(thread.to_owned(), path);
        } else if sync && call.ends_with("= 0") {
            self.synced(&path);
        } else if call.contains("sync resumed") && call.ends_with("= 0") {
            let path = self.pending.remove(thread).unwrap();
            self.synced(&path);
        } else if call.starts_with("write(1<") && call.contains("ack ") {
            assert!(
                self.named,
                "acknowledged before the store's name was durable"
            );
            assert!(
                self.dirty.is_empty(),
                "acknowledged but not synced: {:?}",
                self.dirty
            );
            self.acks += 1;
        } else if call.starts_with("pwrite64(") || call.starts_with("write(") {
            if path.starts_with(&self.blobs) {
                self.large += usize::from(self.dirty.insert(path));
            } else if path == self.log {
                self.dirty.insert(path);
            }
        } else if call.starts_with("rename") && call.contains("db.new") {
            self.named = false;
        }
    }

    fn synced(&mut self, path: &str) {
        self.named |= path == self.parent;
        self.dirty.remove(path);
    }
}
