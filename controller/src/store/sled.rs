//! The embedded store: sled 0.34, made durable.
//!
//! sled's own flush ends in `sync_file_range`, which neither flushes the disk's cache nor
//! writes the file's length. So after every flush the files themselves are synced: first the
//! files of large values, then the log that refers to them, then the directories that name
//! them.

use super::group::{Engine, Group};
use super::watch::{Change, Watch};
use super::{Entry, Store, StoreError, Transaction};
use ::sled::{Batch, Config, Db, Error as SledError};
use sandpiper_transport::fsio;
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of memory that sled may use for pages. The whole state of a fleet of 10,000 devices
/// is smaller, and a controller on a Raspberry Pi must stay small.
const CACHE_BYTES: u64 = 64 << 20;

/// Name of sled's log in its directory.
const LOG: &str = "db";
/// Name of sled's directory of large values.
const BLOBS: &str = "blobs";

/// How long sled may take to release its lock after it was closed.
const RELEASE: Duration = Duration::from_secs(10);

/// A store on disk.
pub struct SledStore(Group<Engine034>);

impl SledStore {
    /// Opens the store in a directory, creating it when it is absent.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another process has it open, [`StoreError::Open`] otherwise.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let open_error = |source: Box<dyn std::error::Error + Send + Sync>| StoreError::Open {
            path: path.to_owned(),
            source,
        };
        let db = if path.exists() {
            open_sled(path)?
        } else {
            create(path).map_err(|error| match error {
                error @ StoreError::Open { .. } => error,
                other => open_error(other.into()),
            })?;
            open_released(path)?
        };
        let log = File::open(path.join(LOG)).map_err(|error| open_error(error.into()))?;
        let blobs = BlobSync {
            dir: path.join(BLOBS),
            synced: BTreeSet::new(),
        };
        let engine = Engine034 {
            db,
            log,
            dir: path.to_owned(),
            blobs: Mutex::new(blobs),
        };
        // What an earlier process wrote and did not acknowledge becomes durable now, since it
        // is seen from now on.
        engine.sync()?;
        Ok(Self(Group::new(engine)))
    }
}

/// Opens what this process has just closed: sled's own threads may hold the lock a moment longer.
fn open_released(path: &Path) -> Result<Db, StoreError> {
    let begun = Instant::now();
    loop {
        match open_sled(path) {
            Err(StoreError::InUse(_)) if begun.elapsed() < RELEASE => {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

/// Creates under another name: a store whose creation was cut would not open again.
fn create(path: &Path) -> Result<(), StoreError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| StoreError::Open {
        path: path.to_owned(),
        source,
    };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let unfinished = path.with_file_name(name);
    if unfinished.exists() {
        std::fs::remove_dir_all(&unfinished).map_err(|error| failed(error.into()))?;
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(|error| failed(error.into()))?;
    }
    let db = open_sled(&unfinished)?;
    db.flush().map_err(|error| failed(error.into()))?;
    drop(db);
    for entry in std::fs::read_dir(&unfinished).map_err(|error| failed(error.into()))? {
        let synced = entry
            .and_then(|entry| File::open(entry.path()))
            .and_then(|f| f.sync_all());
        synced.map_err(|error| failed(error.into()))?;
    }
    let named = fsio::sync_dir(&unfinished).and_then(|()| fsio::rename(&unfinished, path));
    named.map_err(|error| failed(error.into()))
}

fn open_sled(path: &Path) -> Result<Db, StoreError> {
    let config = Config::new()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        // Every commit flushes; a timer would only add a thread.
        .flush_every_ms(None);
    config.open().map_err(|error| match error {
        // sled gives no kind to a lock that is taken, only this text.
        SledError::Io(io) if io.to_string().contains("could not acquire lock") => {
            StoreError::InUse(path.to_owned())
        }
        other => StoreError::Open {
            path: path.to_owned(),
            source: other.into(),
        },
    })
}

fn read(error: SledError) -> StoreError {
    StoreError::Read(error.into())
}

fn write(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Write(error.into())
}

/// Files of large values, each written once and synced once.
struct BlobSync {
    dir: PathBuf,
    synced: BTreeSet<std::ffi::OsString>,
}

impl BlobSync {
    /// Syncs what is new, and then its names.
    fn sync(&mut self) -> Result<(), StoreError> {
        let mut present = BTreeSet::new();
        let mut news = false;
        for entry in std::fs::read_dir(&self.dir).map_err(write)? {
            let entry = entry.map_err(write)?;
            let name = entry.file_name();
            if !self.synced.contains(&name) {
                match File::open(entry.path()) {
                    Ok(file) => file.sync_all().map_err(write)?,
                    // sled removed it meanwhile: nothing refers to it any more.
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(write(error)),
                }
                news = true;
            }
            present.insert(name);
        }
        self.synced = present;
        if news {
            fsio::sync_dir(&self.dir).map_err(write)
        } else {
            Ok(())
        }
    }
}

struct Engine034 {
    db: Db,
    log: File,
    dir: PathBuf,
    blobs: Mutex<BlobSync>,
}

impl Engine for Engine034 {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.db.get(key).map_err(read)?.map(|value| value.to_vec()))
    }

    fn range(&self, prefix: &[u8]) -> Result<Vec<Entry>, StoreError> {
        let entries = self.db.scan_prefix(prefix);
        let copied = entries.map(|entry| entry.map(|(k, v)| (k.to_vec(), v.to_vec())));
        copied.collect::<Result<_, _>>().map_err(read)
    }

    fn apply(&self, changes: &[Arc<Change>]) -> Result<(), StoreError> {
        let mut batch = Batch::default();
        for change in changes {
            match &change.value {
                Some(value) => batch.insert(change.key.as_slice(), value.as_slice()),
                None => batch.remove(change.key.as_slice()),
            }
        }
        self.db.apply_batch(batch).map_err(write)
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.db.flush().map_err(write)?;
        self.blobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .sync()?;
        self.log.sync_data().map_err(write)?;
        // Snapshots, which sled renames into place without it.
        fsio::sync_dir(&self.dir).map_err(write)
    }
}

impl Store for SledStore {
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
