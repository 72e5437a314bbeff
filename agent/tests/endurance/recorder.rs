//! Writes down what the agent has a disk do, and lets one operation fail.

use sandpiper_transport::fsio::{Disk, DiskFile, How};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// One operation that changed something or made it durable. Paths are those below the root.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    MakeDir(PathBuf),
    Open {
        path: PathBuf,
        how: How,
        handle: u64,
    },
    Write {
        handle: u64,
        offset: u64,
        bytes: Arc<[u8]>,
    },
    Sync(u64),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
    SyncDir(PathBuf),
}

impl Op {
    /// In words, for messages.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::MakeDir(dir) => format!("make {}", dir.display()),
            Self::Open { path, how, handle } => {
                format!("open {} {how:?} as {handle}", path.display())
            }
            Self::Write {
                handle,
                offset,
                bytes,
            } => format!("write {} bytes at {offset} of {handle}", bytes.len()),
            Self::Sync(handle) => format!("sync {handle}"),
            Self::Rename(from, to) => format!("rename {} to {}", from.display(), to.display()),
            Self::Remove(path) => format!("remove {}", path.display()),
            Self::SyncDir(dir) => format!("sync directory {}", dir.display()),
        }
    }
}

/// Which operation fails, and with what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    /// Operations that succeed before it.
    pub(crate) after: u64,
    /// Operations that fail from there on.
    pub(crate) count: u64,
    /// The error, such as `ENOSPC`.
    pub(crate) errno: i32,
}

#[derive(Debug, Default)]
struct Tape {
    log: Mutex<Vec<Op>>,
    handles: AtomicU64,
    /// Operations so far that could fail.
    done: AtomicU64,
    fault: Mutex<Option<Fault>>,
    /// What failed.
    failed: Mutex<Vec<String>>,
}

/// A disk between the agent and another one.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    inner: Arc<dyn Disk>,
    root: PathBuf,
    tape: Arc<Tape>,
}

impl Recorder {
    pub(crate) fn new(inner: Arc<dyn Disk>, root: &Path) -> Self {
        Self {
            inner,
            root: root.to_owned(),
            tape: Arc::default(),
        }
    }

    /// What was done so far.
    pub(crate) fn log(&self) -> Vec<Op> {
        self.tape.log.lock().unwrap().clone()
    }

    /// Operations so far that could fail.
    pub(crate) fn done(&self) -> u64 {
        self.tape.done.load(Ordering::SeqCst)
    }

    /// Lets operations fail; they are counted from now on.
    pub(crate) fn fail(&self, fault: Fault) {
        self.tape.done.store(0, Ordering::SeqCst);
        *self.tape.fault.lock().unwrap() = Some(fault);
    }

    /// Nothing fails any more.
    pub(crate) fn heal(&self) {
        *self.tape.fault.lock().unwrap() = None;
    }

    /// What failed so far.
    pub(crate) fn failed(&self) -> Vec<String> {
        self.tape.failed.lock().unwrap().clone()
    }

    fn below(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).unwrap().to_owned()
    }

    /// One operation: it fails, or is done and written down, and no other comes in between.
    fn act<T>(&self, op: Op, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.tape.act(op, act)
    }
}

impl Tape {
    fn act<T>(&self, op: Op, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let mut log = self.log.lock().unwrap();
        let number = self.done.fetch_add(1, Ordering::SeqCst);
        let fault = *self.fault.lock().unwrap();
        let fails = |f: &Fault| number >= f.after && number - f.after < f.count;
        // No room is an affair of what takes room.
        let takes_room = matches!(
            op,
            Op::Open { .. } | Op::Write { .. } | Op::MakeDir(_) | Op::Sync(_) | Op::Rename(..)
        );
        if let Some(fault) = fault.filter(fails)
            && (fault.errno != libc::ENOSPC || takes_room)
        {
            self.failed.lock().unwrap().push(op.name());
            return Err(io::Error::from_raw_os_error(fault.errno));
        }
        let done = act()?;
        log.push(op);
        Ok(done)
    }
}

impl Disk for Recorder {
    fn make_dir(&self, dir: &Path) -> io::Result<bool> {
        let mut log = self.tape.log.lock().unwrap();
        let made = self.inner.make_dir(dir)?;
        if made {
            log.push(Op::MakeDir(self.below(dir)));
        }
        Ok(made)
    }

    fn open(&self, path: &Path, how: How) -> io::Result<Box<dyn DiskFile>> {
        if how == How::Read {
            return self.inner.open(path, how);
        }
        let handle = self.tape.handles.fetch_add(1, Ordering::SeqCst);
        let op = Op::Open {
            path: self.below(path),
            how,
            handle,
        };
        let inner = self.act(op, || self.inner.open(path, how))?;
        Ok(Box::new(Taped {
            inner,
            handle,
            tape: self.tape.clone(),
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let op = Op::Rename(self.below(from), self.below(to));
        self.act(op, || self.inner.rename(from, to))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.act(Op::Remove(self.below(path)), || self.inner.remove(path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.act(Op::SyncDir(self.below(dir)), || self.inner.sync_dir(dir))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        self.inner.list(dir)
    }

    fn length(&self, path: &Path) -> io::Result<u64> {
        self.inner.length(path)
    }

    fn free_bytes(&self, dir: &Path) -> u64 {
        self.inner.free_bytes(dir)
    }
}

#[derive(Debug)]
struct Taped {
    inner: Box<dyn DiskFile>,
    handle: u64,
    tape: Arc<Tape>,
}

impl DiskFile for Taped {
    fn length(&self) -> io::Result<u64> {
        self.inner.length()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let op = Op::Write {
            handle: self.handle,
            offset,
            bytes: bytes.into(),
        };
        let write = || self.inner.write_all_at(bytes, offset);
        self.tape.act(op, write)
    }

    fn sync(&self) -> io::Result<()> {
        let sync = || self.inner.sync();
        self.tape.act(Op::Sync(self.handle), sync)
    }
}
