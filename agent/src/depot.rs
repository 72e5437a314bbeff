//! The only module that stores things: artefacts by digest, the device's state, partial
//! downloads. Every step survives a power cut.
//!
//! ```text
//! STATE/artefacts/DIGEST   whole and verified
//! STATE/partial/DIGEST     verified chunks so far, in order
//! STATE/partial/DIGEST.tree  its chunk tree
//! STATE/state.json         what the reconciler remembers
//! ```

use sandpiper_core::chunks::{CHUNK_BYTES, ChunkTree, chunk_count};
use sandpiper_core::digest::{ArtefactRef, Digest};
use sandpiper_core::reconcile::DeviceState;
use sandpiper_transport::fsio::{self, FsError};
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Free space left on the disk when an artefact is reserved, for the system to live.
const RESERVE_BYTES: u64 = 16 << 20;

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
}

/// A download under way.
#[derive(Debug)]
pub struct Partial {
    file: File,
    path: PathBuf,
    tree: ChunkTree,
    next: usize,
}

fn io_at(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DepotError {
    let path = path.to_owned();
    move |source| DepotError::Io { what, path, source }
}

impl Depot {
    /// Opens a state directory, creating what is missing.
    ///
    /// # Errors
    /// [`DepotError::Io`].
    pub fn open(root: &Path) -> Result<Self, DepotError> {
        for dir in ["artefacts", "partial"] {
            let dir = root.join(dir);
            std::fs::create_dir_all(&dir).map_err(io_at("create", &dir))?;
        }
        Ok(Self {
            root: root.to_owned(),
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
        let found = std::fs::metadata(self.path_of(artefact.digest));
        found.is_ok_and(|m| m.is_file() && m.len() == artefact.size_bytes)
    }

    /// Reads the artefact and compares its digest; a damaged one is deleted so that it is
    /// fetched anew.
    ///
    /// # Errors
    /// [`DepotError::Corrupt`], [`DepotError::Io`].
    pub fn verify(&self, artefact: ArtefactRef) -> Result<PathBuf, DepotError> {
        let path = self.path_of(artefact.digest);
        let mut file = File::open(&path).map_err(io_at("open", &path))?;
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut length = 0;
        loop {
            let n = file.read(&mut buffer).map_err(io_at("read", &path))?;
            if n == 0 {
                break;
            }
            length += n as u64;
            hasher.update(&buffer[..n]);
        }
        let digest = Digest::from_bytes(*hasher.finalize().as_bytes());
        if digest != artefact.digest || length != artefact.size_bytes {
            std::fs::remove_file(&path).map_err(io_at("delete", &path))?;
            return Err(DepotError::Corrupt(artefact.digest));
        }
        Ok(path)
    }

    /// Bytes fetched of an artefact: all, or those of a partial download.
    pub fn fetched_bytes(&self, artefact: ArtefactRef) -> u64 {
        if self.has(artefact) {
            return artefact.size_bytes;
        }
        std::fs::metadata(self.partial_path(artefact.digest)).map_or(0, |m| m.len())
    }

    /// Chunks of a partial download that are kept, for the request to resume.
    pub fn resume_point(&self, artefact: ArtefactRef) -> u64 {
        let kept = self.fetched_bytes(artefact) / CHUNK_BYTES as u64;
        // At least the last chunk is fetched, so that the sender has something to end with.
        kept.min(chunk_count(artefact.size_bytes) as u64 - 1)
    }

    /// Opens a download. Chunks on the disk are verified against the tree; the first that does
    /// not fit, and what follows, is dropped.
    ///
    /// # Errors
    /// [`DepotError`]; [`DepotError::Full`] before anything is written.
    pub fn begin(&self, tree: ChunkTree) -> Result<Partial, DepotError> {
        let artefact = tree.artefact();
        let path = self.partial_path(artefact.digest);
        let need = artefact
            .size_bytes
            .saturating_sub(self.fetched_bytes(artefact));
        let free = free_bytes(&self.root);
        if free < need.saturating_add(RESERVE_BYTES) {
            return Err(DepotError::Full { need, free });
        }
        let values: Vec<u8> = tree.values().concat();
        fsio::write_atomic(&self.tree_path(artefact.digest), &values, 0o600)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(&path).map_err(io_at("open", &path))?;
        let mut partial = Partial {
            file,
            path,
            tree,
            next: 0,
        };
        partial.keep_what_is_right()?;
        Ok(partial)
    }

    /// Makes a complete download an artefact: fdatasync, verify the whole, rename, fsync of the
    /// directory.
    ///
    /// # Errors
    /// [`DepotError`]; on any the partial file is dropped.
    pub fn commit(&self, partial: Partial) -> Result<PathBuf, DepotError> {
        let artefact = partial.tree.artefact();
        let synced = partial
            .file
            .sync_data()
            .map_err(io_at("sync", &partial.path));
        if let Err(error) = synced {
            self.drop_partial(artefact.digest);
            return Err(error);
        }
        let whole = std::fs::read(&partial.path).map_err(io_at("read", &partial.path))?;
        if ArtefactRef::of(&whole) != artefact {
            self.drop_partial(artefact.digest);
            return Err(DepotError::Corrupt(artefact.digest));
        }
        let path = self.path_of(artefact.digest);
        fsio::rename(&partial.path, &path)?;
        self.drop_partial(artefact.digest);
        Ok(path)
    }

    fn drop_partial(&self, digest: Digest) {
        for path in [self.partial_path(digest), self.tree_path(digest)] {
            if let Err(error) = std::fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "a partial file stays behind");
            }
        }
    }

    /// Deletes every artefact and partial file that is not live. Returns how many.
    ///
    /// # Errors
    /// [`DepotError::Io`].
    pub fn collect(&self, live: &BTreeSet<Digest>) -> Result<usize, DepotError> {
        let mut deleted = 0;
        for dir in ["artefacts", "partial"] {
            let dir = self.root.join(dir);
            for entry in std::fs::read_dir(&dir).map_err(io_at("list", &dir))? {
                let entry = entry.map_err(io_at("list", &dir))?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let digest = name.trim_end_matches(".tree").parse::<Digest>().ok();
                if digest.is_some_and(|d| live.contains(&d)) {
                    continue;
                }
                let path = entry.path();
                std::fs::remove_file(&path).map_err(io_at("delete", &path))?;
                deleted += 1;
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
        let bytes = match std::fs::read(&path) {
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
        Ok(fsio::write_atomic(&path, &bytes, 0o600)?)
    }
}

impl Partial {
    fn keep_what_is_right(&mut self) -> Result<(), DepotError> {
        let count = chunk_count(self.tree.artefact().size_bytes);
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut kept = 0u64;
        while self.next < count {
            let chunk = &mut buffer[..self.tree.chunk_len(self.next)];
            if self.file.read_exact(chunk).is_err() || self.tree.verify(self.next, chunk).is_err() {
                break;
            }
            kept += chunk.len() as u64;
            self.next += 1;
        }
        self.file
            .set_len(kept)
            .map_err(io_at("truncate", &self.path))?;
        self.file
            .seek(SeekFrom::Start(kept))
            .map_err(io_at("seek in", &self.path))?;
        Ok(())
    }

    /// Index of the chunk that is needed next.
    pub fn next(&self) -> usize {
        self.next
    }

    /// Whether every chunk is there.
    pub fn is_complete(&self) -> bool {
        self.next >= chunk_count(self.tree.artefact().size_bytes)
    }

    /// Verifies the next chunk and writes it.
    ///
    /// # Errors
    /// [`DepotError::Corrupt`] when it does not fit the tree (nothing is written),
    /// [`DepotError::Io`].
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), DepotError> {
        if self.is_complete() || self.tree.verify(self.next, chunk).is_err() {
            return Err(DepotError::Corrupt(self.tree.artefact().digest));
        }
        self.file
            .write_all(chunk)
            .map_err(io_at("write", &self.path))?;
        self.next += 1;
        Ok(())
    }
}

/// Bytes free for unprivileged programs on the disk that holds `path`; 0 when unknown.
pub fn free_bytes(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(0, |s| s.f_bavail.saturating_mul(s.f_frsize))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn artefact(n: usize) -> (Vec<u8>, ChunkTree) {
        let bytes: Vec<u8> = (0..n).map(|i| (i * 7 % 251) as u8).collect();
        let tree = ChunkTree::of(&bytes);
        (bytes, tree)
    }

    #[test]
    fn a_download_that_was_cut_resumes_and_drops_a_damaged_chunk() {
        let dir = tempfile::tempdir().unwrap();
        let depot = Depot::open(dir.path()).unwrap();
        let (bytes, tree) = artefact(3 * CHUNK_BYTES + 100);
        let reference = tree.artefact();
        let mut partial = depot.begin(tree.clone()).unwrap();
        partial.push(&bytes[..CHUNK_BYTES]).unwrap();
        partial.push(&bytes[CHUNK_BYTES..2 * CHUNK_BYTES]).unwrap();
        drop(partial);
        assert_eq!(depot.resume_point(reference), 2);
        // Power is cut in the middle of the third chunk: a torn tail.
        let path = depot.partial_path(reference.digest);
        let mut torn = std::fs::read(&path).unwrap();
        torn.extend([9; 100]);
        torn[CHUNK_BYTES + 5] ^= 1;
        std::fs::write(&path, &torn).unwrap();
        let mut partial = depot.begin(tree).unwrap();
        assert_eq!(partial.next(), 1);
        assert!(partial.push(&[0; 10]).is_err());
        for chunk in bytes[CHUNK_BYTES..].chunks(CHUNK_BYTES) {
            assert!(!depot.has(reference));
            partial.push(chunk).unwrap();
        }
        assert!(partial.is_complete());
        depot.commit(partial).unwrap();
        assert!(depot.has(reference));
        depot.verify(reference).unwrap();
        assert_eq!(
            std::fs::read_dir(dir.path().join("partial"))
                .unwrap()
                .count(),
            0
        );
    }

    #[test]
    fn a_damaged_artefact_is_noticed_and_only_garbage_is_collected() {
        let dir = tempfile::tempdir().unwrap();
        let depot = Depot::open(dir.path()).unwrap();
        let mut refs = Vec::new();
        for n in [10, 20] {
            let (bytes, tree) = artefact(n);
            refs.push(tree.artefact());
            let mut partial = depot.begin(tree).unwrap();
            partial.push(&bytes).unwrap();
            depot.commit(partial).unwrap();
        }
        assert_eq!(depot.collect(&[refs[0].digest].into()).unwrap(), 1);
        assert!(depot.has(refs[0]) && !depot.has(refs[1]));
        std::fs::write(depot.path_of(refs[0].digest), [0; 10]).unwrap();
        assert!(matches!(depot.verify(refs[0]), Err(DepotError::Corrupt(_))));
        assert!(!depot.has(refs[0]));
    }

    #[test]
    fn the_state_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let depot = Depot::open(dir.path()).unwrap();
        assert!(depot.load_state().unwrap().is_none());
        let state = DeviceState {
            installation: 7,
            ..DeviceState::default()
        };
        depot.save_state(&state).unwrap();
        assert_eq!(depot.load_state().unwrap(), Some(state));
        std::fs::write(depot.state_path(), b"{").unwrap();
        assert!(matches!(depot.load_state(), Err(DepotError::State { .. })));
    }
}
