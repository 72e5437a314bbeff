//! The only module that stores things: artefacts by digest, the device's state, partial
//! downloads. Every step survives a power cut.
//!
//! ```text
//! STATE/artefacts/DIGEST   whole and verified
//! STATE/partial/DIGEST     chunks so far, each at its place; verified anew when resumed
//! STATE/partial/DIGEST.tree  its chunk tree
//! STATE/state.json         what the reconciler remembers
//! ```

use sandpiper_core::chunks::{CHUNK_BYTES, ChunkTree, chunk_count};
use sandpiper_core::digest::{ArtefactRef, Digest};
use sandpiper_core::reconcile::DeviceState;
use sandpiper_transport::fsio::{self, Disk, DiskFile, FsError, How};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Free space left on the disk when an artefact is reserved, for the system to live.
pub(crate) const RESERVE_BYTES: u64 = 16 << 20;

/// Why something could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum DepotError {
    /// A file operation failed.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An atomic write failed.
    #[error("cannot write to the state directory")]
    Write(#[from] FsError),
    /// No room.
    #[error(
        "{need} bytes are needed and {free} are free (of which {RESERVE_BYTES} stay free): free some space on the disk of the state directory"
    )]
    Full {
        /// Bytes to hold.
        need: u64,
        /// Bytes free.
        free: u64,
    },
    /// The whole is not what its name says.
    #[error("artefact {0} does not have the content that its name says")]
    Corrupt(Digest),
    /// The state file does not parse.
    #[error("{} is damaged: {why}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// The state directory.
#[derive(Debug, Clone)]
pub struct Depot {
    root: PathBuf,
    disk: Arc<dyn Disk>,
}

/// A download under way.
#[derive(Debug)]
pub struct Partial {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    tree: ChunkTree,
    /// Whether each chunk is on the disk and verified.
    have: Vec<bool>,
}

fn io_at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DepotError {
    let path = path.to_owned();
    move |source| DepotError::Io { what, path, source }
}

impl Depot {
    /// Opens a state directory of this machine, creating what is missing.
    ///
    /// # Errors
    /// [`DepotError::Write`].
    pub fn open(root: &Path) -> Result<Self, DepotError> {
        Self::open_on(fsio::system(), root)
    }

    /// Opens a state directory on any disk, creating what is missing.
    ///
    /// # Errors
    /// [`DepotError::Write`].
    pub fn open_on(disk: Arc<dyn Disk>, root: &Path) -> Result<Self, DepotError> {
        for dir in ["artefacts", "partial"] {
            fsio::make_dir(&*disk, &root.join(dir))?;
        }
        Ok(Self {
            root: root.to_owned(),
            disk,
        })
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where an artefact lies once it is whole.
    pub fn path_of(&self, digest: Digest) -> PathBuf {
        self.root.join("artefacts").join(digest.to_string())
    }

    fn partial_path(&self, digest: Digest) -> PathBuf {
        self.root.join("partial").join(digest.to_string())
    }

    fn tree_path(&self, digest: Digest) -> PathBuf {
        self.root.join("partial").join(format!("{digest}.tree"))
    }

    /// Whether the artefact is there in full length. Its content was verified before it got its
    /// name; [`Depot::verify`] looks again.
    pub fn has(&self, artefact: ArtefactRef) -> bool {
        let found = self.disk.length(&self.path_of(artefact.digest));
        found.is_ok_and(|length| length == artefact.size_bytes)
    }

    /// Reads the artefact and compares its digest; a damaged one is deleted so that it is
    /// fetched anew.
    ///
    /// # Errors
    /// [`DepotError::Corrupt`], [`DepotError::Io`].
    pub fn verify(&self, artefact: ArtefactRef) -> Result<PathBuf, DepotError> {
        let path = self.path_of(artefact.digest);
        let opened = self.disk.open(&path, How::Read);
        let file = opened.map_err(io_at("open", &path))?;
        if digest_of(&*file, &path)? != artefact {
            drop(file);
            let removed = self.disk.remove(&path);
            removed.map_err(io_at("delete", &path))?;
            return Err(DepotError::Corrupt(artefact.digest));
        }
        Ok(path)
    }

    /// The bytes of a small artefact, which were [verified](Self::verify) just now.
    ///
    /// # Errors
    /// [`DepotError::Io`].
    pub fn read(&self, artefact: ArtefactRef) -> Result<Vec<u8>, DepotError> {
        let path = self.path_of(artefact.digest);
        fsio::read(&*self.disk, &path).map_err(io_at("read", &path))
    }

    /// Goes on with a download that was cut, if its chunk tree is on the disk. Reads and verifies
    /// what is there: to be called on a thread that may block.
    ///
    /// # Errors
    /// [`DepotError`].
    pub fn resume(&self, artefact: ArtefactRef) -> Result<Option<Partial>, DepotError> {
        let Ok(bytes) = fsio::read(&*self.disk, &self.tree_path(artefact.digest)) else {
            return Ok(None); // Never begun, or its tree is lost: it is sent again.
        };
        let (values, rest) = bytes.as_chunks::<32>();
        match ChunkTree::verified(artefact, values.to_vec()) {
            Ok(tree) if rest.is_empty() => self.open_partial(tree).map(Some),
            _ => Ok(None),
        }
    }

    /// Opens a download. Chunks on the disk that fit the tree are kept, wherever they are; the
    /// others are fetched again. To be called on a thread that may block.
    ///
    /// # Errors
    /// [`DepotError`]; [`DepotError::Full`] before anything is written.
    pub fn begin(&self, tree: ChunkTree) -> Result<Partial, DepotError> {
        let digest = tree.artefact().digest;
        self.check_room(tree.artefact())?;
        let (path, values) = (self.tree_path(digest), tree.values().concat());
        fsio::write_atomic_on(&*self.disk, &path, &values, 0o600)?;
        self.open_partial(tree)
    }

    /// Length of the partial file of an artefact, 0 without one: it grows as chunks arrive.
    pub fn partial_bytes(&self, artefact: ArtefactRef) -> u64 {
        let length = self.disk.length(&self.partial_path(artefact.digest));
        length.unwrap_or(0)
    }

    fn check_room(&self, artefact: ArtefactRef) -> Result<(), DepotError> {
        let need = artefact
            .size_bytes
            .saturating_sub(self.partial_bytes(artefact));
        let free = self.disk.free_bytes(&self.root);
        if free < need.saturating_add(RESERVE_BYTES) {
            return Err(DepotError::Full { need, free });
        }
        Ok(())
    }

    fn open_partial(&self, tree: ChunkTree) -> Result<Partial, DepotError> {
        let artefact = tree.artefact();
        self.check_room(artefact)?;
        let path = self.partial_path(artefact.digest);
        let opened = self.disk.open(&path, How::Resume);
        let file = opened.map_err(io_at("open", &path))?;
        let mut partial = Partial {
            have: vec![false; chunk_count(artefact.size_bytes)],
            file,
            path,
            tree,
        };
        partial.look()?;
        Ok(partial)
    }

    /// Makes a complete download an artefact: sync, verify the whole, rename, sync of the
    /// directory. To be called on a thread that may block; holds one chunk in memory.
    ///
    /// # Errors
    /// [`DepotError`]; what was downloaded is dropped when it cannot be synced, is not what its name
    /// says, or did not get its name durably: after a failed sync nobody knows what is on the disk.
    pub fn commit(&self, partial: Partial) -> Result<PathBuf, DepotError> {
        let artefact = partial.tree.artefact();
        let path = self.path_of(artefact.digest);
        let named = self.name_durably(&partial, &path);
        drop(partial);
        if named.is_err() {
            self.drop_file(&path);
        }
        self.drop_partial(artefact.digest);
        named.map(|()| path)
    }

    fn name_durably(&self, partial: &Partial, path: &Path) -> Result<(), DepotError> {
        let artefact = partial.tree.artefact();
        let synced = partial.file.sync();
        synced.map_err(io_at("sync", &partial.path))?;
        if digest_of(&*partial.file, &partial.path)? != artefact {
            return Err(DepotError::Corrupt(artefact.digest));
        }
        Ok(fsio::rename_on(&*self.disk, &partial.path, path)?)
    }

    fn drop_partial(&self, digest: Digest) {
        self.drop_file(&self.partial_path(digest));
        self.drop_file(&self.tree_path(digest));
    }

    fn drop_file(&self, path: &Path) {
        if let Err(error) = self.disk.remove(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "a file of a download stays behind");
        }
    }

    /// Deletes every artefact and partial file but those of `keep`: what is live and what is
    /// being fetched. Returns how many.
    ///
    /// # Errors
    /// [`DepotError::Io`].
    pub fn collect(&self, keep: &BTreeSet<Digest>) -> Result<usize, DepotError> {
        let mut deleted = 0;
        for dir in ["artefacts", "partial"] {
            let dir = self.root.join(dir);
            for name in self.disk.list(&dir).map_err(io_at("list", &dir))? {
                if digest_in(&name.to_string_lossy()).is_some_and(|d| keep.contains(&d)) {
                    continue;
                }
                let path = dir.join(name);
                match self.disk.remove(&path) {
                    Ok(()) => deleted += 1,
                    // A temporary file got its name in the meantime.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => return Err(io_at("delete", &path)(e)),
                }
            }
        }
        Ok(deleted)
    }

    fn state_path(&self) -> PathBuf {
        self.root.join("state.json")
    }

    /// The persisted state; `None` before the first.
    ///
    /// # Errors
    /// [`DepotError`] when there is one that cannot be read.
    pub fn load_state(&self) -> Result<Option<DeviceState>, DepotError> {
        let path = self.state_path();
        let bytes = match fsio::read(&*self.disk, &path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io_at("read", &path)(e)),
        };
        let state = serde_json::from_slice(&bytes).map_err(|e| DepotError::State {
            path,
            why: e.to_string(),
        })?;
        Ok(Some(state))
    }

    /// Persists the state durably before it returns.
    ///
    /// # Errors
    /// [`DepotError`].
    pub fn save_state(&self, state: &DeviceState) -> Result<(), DepotError> {
        let path = self.state_path();
        let bytes = serde_json::to_vec(state).map_err(|e| DepotError::State {
            path: path.clone(),
            why: e.to_string(),
        })?;
        Ok(fsio::write_atomic_on(&*self.disk, &path, &bytes, 0o600)?)
    }
}

impl Partial {
    /// Verifies every chunk that is on the disk in full length.
    fn look(&mut self) -> Result<(), DepotError> {
        let length = self.file.length().map_err(io_at("read", &self.path))?;
        let whole = length >= self.tree.artefact().size_bytes;
        let mut buffer = vec![0; CHUNK_BYTES];
        for (index, have) in self.have.iter_mut().enumerate() {
            let start = offset(index);
            let chunk = &mut buffer[..self.tree.chunk_len(index)];
            // What a cut or torn write left behind ends before the chunk does.
            if !whole && start + chunk.len() as u64 > length {
                break;
            }
            let read = read_at(&*self.file, chunk, start);
            let read = read.map_err(io_at("read", &self.path))?;
            *have = read == chunk.len() && self.tree.verify(index, chunk).is_ok();
        }
        Ok(())
    }

    /// Index of the first chunk that is needed; the number of chunks when none is.
    pub fn first_missing(&self) -> usize {
        let missing = self.have.iter().position(|have| !have);
        missing.unwrap_or(self.have.len())
    }

    /// Whether this chunk has to be fetched.
    pub fn is_missing(&self, index: usize) -> bool {
        self.have.get(index) == Some(&false)
    }

    /// Number of chunks that are there.
    pub fn kept(&self) -> usize {
        self.have.iter().filter(|have| **have).count()
    }

    /// Whether every chunk is there.
    pub fn is_complete(&self) -> bool {
        self.have.iter().all(|have| *have)
    }

    /// Verifies a chunk and writes it to its place.
    ///
    /// # Errors
    /// [`DepotError::Corrupt`] when it does not fit the tree (nothing is written),
    /// [`DepotError::Io`].
    pub fn put(&mut self, index: usize, chunk: &[u8]) -> Result<(), DepotError> {
        if self.tree.verify(index, chunk).is_err() {
            return Err(DepotError::Corrupt(self.tree.artefact().digest));
        }
        self.file
            .write_all_at(chunk, offset(index))
            .map_err(io_at("write", &self.path))?;
        self.have[index] = true;
        Ok(())
    }
}

fn offset(index: usize) -> u64 {
    index as u64 * CHUNK_BYTES as u64
}

/// The digest that a file's name begins with: `DIGEST`, `DIGEST.tree`, `.DIGEST.tree.tmp`.
fn digest_in(name: &str) -> Option<Digest> {
    let name = name.trim_start_matches('.');
    name.split('.').next()?.parse().ok()
}

/// Reads as much as there is, up to the length of the buffer.
fn read_at(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut at = 0;
    while at < buffer.len() {
        match file.read_at(&mut buffer[at..], offset + at as u64)? {
            0 => break,
            n => at += n,
        }
    }
    Ok(at)
}

/// Digest and length of a file, reading one chunk at a time.
pub(crate) fn digest_of(file: &dyn DiskFile, path: &Path) -> Result<ArtefactRef, DepotError> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut size_bytes = 0;
    loop {
        let n = read_at(file, &mut buffer, size_bytes).map_err(io_at("read", path))?;
        size_bytes += n as u64;
        hasher.update(&buffer[..n]);
        if n < buffer.len() {
            break;
        }
    }
    let digest = Digest::from_bytes(*hasher.finalize().as_bytes());
    Ok(ArtefactRef { digest, size_bytes })
}

/// Bytes free for unprivileged programs on the disk that holds `path`; 0 when unknown.
pub fn free_bytes(path: &Path) -> u64 {
    fsio::SystemDisk.free_bytes(path)
}

#[cfg(test)]
mod tests;
