//! A disk in memory, and what a power cut can leave on one as a starting point.

use sandpiper_transport::fsio::{Disk, DiskFile, How};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// Room that it says it has.
const FREE_BYTES: u64 = 1 << 30;

/// Directories and files below a root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tree {
    pub(crate) dirs: BTreeSet<PathBuf>,
    pub(crate) files: BTreeMap<PathBuf, Arc<Vec<u8>>>,
}

impl Tree {
    /// Makes a real one in an empty directory.
    pub(crate) fn make(&self, root: &Path) {
        for dir in &self.dirs {
            std::fs::create_dir_all(root.join(dir)).unwrap();
        }
        for (path, bytes) in &self.files {
            std::fs::write(root.join(path), bytes.as_slice()).unwrap();
        }
    }
}

#[derive(Debug)]
struct Names {
    dirs: BTreeSet<PathBuf>,
    files: BTreeMap<PathBuf, Arc<Content>>,
}

type Content = Mutex<Arc<Vec<u8>>>;

/// A disk in memory, shared by its handles.
#[derive(Debug, Clone)]
pub(crate) struct MemoryDisk {
    root: PathBuf,
    names: Arc<Mutex<Names>>,
}

fn missing() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOENT)
}

impl MemoryDisk {
    pub(crate) fn new(root: &Path, tree: Tree) -> Self {
        let files = tree.files.into_iter();
        let files = files.map(|(path, bytes)| (path, Arc::new(Mutex::new(bytes))));
        let names = Names {
            dirs: tree.dirs,
            files: files.collect(),
        };
        Self {
            root: root.to_owned(),
            names: Arc::new(Mutex::new(names)),
        }
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap()
    }

    fn below(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).unwrap().to_owned()
    }

    /// The path, if its directory is there.
    fn at_home(&self, names: &Names, path: &Path) -> io::Result<PathBuf> {
        let path = self.below(path);
        let parent = path.parent().ok_or_else(missing)?;
        if parent.as_os_str().is_empty() || names.dirs.contains(parent) {
            return Ok(path);
        }
        Err(missing())
    }
}

impl Disk for MemoryDisk {
    fn make_dir(&self, dir: &Path) -> io::Result<bool> {
        let mut names = self.names();
        let dir = self.at_home(&names, dir)?;
        Ok(names.dirs.insert(dir))
    }

    fn open(&self, path: &Path, how: How) -> io::Result<Box<dyn DiskFile>> {
        let mut names = self.names();
        let path = self.at_home(&names, path)?;
        let content = match (names.files.get(&path), how) {
            (Some(content), _) => content.clone(),
            (None, How::Read) => return Err(missing()),
            (None, How::Resume | How::Replace { .. }) => {
                let content: Arc<Content> = Arc::default();
                names.files.insert(path, content.clone());
                content
            }
        };
        if matches!(how, How::Replace { .. }) {
            *content.lock().unwrap() = Arc::default();
        }
        Ok(Box::new(MemoryFile(content)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut names = self.names();
        let to = self.at_home(&names, to)?;
        let file = names.files.remove(&self.below(from));
        names.files.insert(to, file.ok_or_else(missing)?);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let removed = self.names().files.remove(&self.below(path));
        removed.map(drop).ok_or_else(missing)
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<OsString>> {
        let (names, dir) = (self.names(), self.below(dir));
        if !names.dirs.contains(&dir) {
            return Err(missing());
        }
        let inside = |p: &&PathBuf| p.parent() == Some(&dir);
        let files = names.files.keys().filter(inside);
        let name = |p: &PathBuf| p.file_name().unwrap().to_owned();
        Ok(files.map(name).collect())
    }

    fn length(&self, path: &Path) -> io::Result<u64> {
        let names = self.names();
        let content = names.files.get(&self.below(path)).ok_or_else(missing)?;
        Ok(content.lock().unwrap().len() as u64)
    }

    fn free_bytes(&self, _: &Path) -> u64 {
        FREE_BYTES
    }
}

#[derive(Debug)]
struct MemoryFile(Arc<Content>);

impl DiskFile for MemoryFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = self.0.lock().unwrap();
        let from = content.len().min(usize::try_from(offset).unwrap());
        let n = buffer.len().min(content.len() - from);
        buffer[..n].copy_from_slice(&content[from..from + n]);
        Ok(n)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut content = self.0.lock().unwrap();
        write(Arc::make_mut(&mut content), bytes, offset);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes at a place; what lies before and was never written is zero.
pub(crate) fn write(content: &mut Vec<u8>, bytes: &[u8], offset: u64) {
    let from = usize::try_from(offset).unwrap();
    let to = from + bytes.len();
    if content.len() < to {
        content.resize(to, 0);
    }
    content[from..to].copy_from_slice(bytes);
}
