//! Artefacts on disk: one file per digest, complete or absent, with its chunk tree beside it.

use sandpiper_core::chunks::{CHUNK_BYTES, ChunkTree};
use sandpiper_core::digest::{ArtefactRef, Digest};
use sandpiper_transport::fsio::{FsError, rename, write_atomic};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The directory of artefacts. All calls block.
#[derive(Debug)]
pub struct Blobs {
    dir: PathBuf,
    uploads: AtomicU64,
}

/// Why an artefact cannot be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// It is not here.
    #[error("the controller does not hold artefact {0}")]
    Absent(Digest),
    /// More or fewer bytes than announced.
    #[error("the upload has {have} bytes where {want} were announced")]
    Length {
        /// Bytes sent.
        have: u64,
        /// Bytes announced.
        want: u64,
    },
    /// The bytes are not those of the digest.
    #[error("the bytes sent are not those of artefact {0}: they were altered on the way")]
    Digest(Digest),
    /// The chunk tree on disk does not belong to the artefact.
    #[error("artefact {0} is damaged on the controller's disk: import the version again")]
    Damaged(Digest),
    /// A file operation failed.
    #[error("cannot {step} `{path}`")]
    Io {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A durable file operation failed.
    #[error("cannot keep the artefact")]
    Fs(#[from] FsError),
}

fn io(step: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> BlobError {
    let path = path.to_owned();
    move |source| BlobError::Io { step, path, source }
}

impl Blobs {
    /// Opens the directory, creates it if absent, and removes uploads that a crash cut.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn open(dir: PathBuf) -> Result<Self, BlobError> {
        std::fs::create_dir_all(&dir).map_err(io("create", &dir))?;
        for entry in std::fs::read_dir(&dir).map_err(io("list", &dir))? {
            let path = entry.map_err(io("list", &dir))?.path();
            if path.extension().is_some_and(|e| e == "upload") {
                std::fs::remove_file(&path).map_err(io("remove", &path))?;
            }
        }
        Ok(Self {
            dir,
            uploads: AtomicU64::new(0),
        })
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.to_string())
    }

    /// Those of the list that are not here.
    pub fn missing(&self, artefacts: &[ArtefactRef]) -> Vec<ArtefactRef> {
        let held = |a: &&ArtefactRef| {
            std::fs::metadata(self.path(&a.digest)).is_ok_and(|m| m.len() == a.size_bytes)
        };
        artefacts.iter().filter(|a| !held(a)).copied().collect()
    }

    /// Begins an upload.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn begin(&self, artefact: ArtefactRef) -> Result<Upload, BlobError> {
        let number = self.uploads.fetch_add(1, Ordering::Relaxed);
        let path = self
            .dir
            .join(format!("{number}-{}.upload", artefact.digest.short()));
        let file = File::create(&path).map_err(io("create", &path))?;
        Ok(Upload {
            target: self.path(&artefact.digest),
            artefact,
            path,
            file,
            written: 0,
            kept: false,
        })
    }

    /// Opens an artefact for reading from a chunk on, with its chunk tree.
    ///
    /// # Errors
    /// [`BlobError::Absent`], [`BlobError::Damaged`] or [`BlobError::Io`].
    pub fn open_at(
        &self,
        artefact: ArtefactRef,
        first_chunk: u64,
    ) -> Result<(ChunkTree, File), BlobError> {
        let path = self.path(&artefact.digest);
        let mut file = File::open(&path).map_err(|_| BlobError::Absent(artefact.digest))?;
        // A digest with another length names nothing that is here.
        let held = file.metadata().map_err(io("examine", &path))?.len();
        if held != artefact.size_bytes {
            return Err(BlobError::Absent(artefact.digest));
        }
        let tree = self.tree(artefact)?;
        let offset = first_chunk.saturating_mul(CHUNK_BYTES as u64);
        file.seek(SeekFrom::Start(offset))
            .map_err(io("seek in", &path))?;
        Ok((tree, file))
    }

    fn tree(&self, artefact: ArtefactRef) -> Result<ChunkTree, BlobError> {
        let path = self.path(&artefact.digest).with_extension("tree");
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(_) => {
                let blob = self.path(&artefact.digest);
                return write_tree(&blob, artefact);
            }
        };
        let (values, rest) = bytes.as_chunks::<32>();
        if !rest.is_empty() {
            return Err(BlobError::Damaged(artefact.digest));
        }
        ChunkTree::verified(artefact, values.to_vec())
            .map_err(|_| BlobError::Damaged(artefact.digest))
    }
}

/// Computes and keeps the chunk tree of a file.
fn write_tree(blob: &Path, artefact: ArtefactRef) -> Result<ChunkTree, BlobError> {
    let bytes = std::fs::read(blob).map_err(io("read", blob))?;
    let tree = ChunkTree::of(&bytes);
    if tree.artefact() != artefact {
        return Err(BlobError::Digest(artefact.digest));
    }
    write_atomic(&blob.with_extension("tree"), &tree.values().concat(), 0o644)?;
    Ok(tree)
}

/// An upload under way. Dropped before [`Upload::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct Upload {
    artefact: ArtefactRef,
    path: PathBuf,
    target: PathBuf,
    file: File,
    written: u64,
    kept: bool,
}

impl Upload {
    /// Appends bytes.
    ///
    /// # Errors
    /// [`BlobError::Length`] as soon as there are more than announced, [`BlobError::Io`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.written += bytes.len() as u64;
        if self.written > self.artefact.size_bytes {
            return Err(BlobError::Length {
                have: self.written,
                want: self.artefact.size_bytes,
            });
        }
        self.file.write_all(bytes).map_err(io("write", &self.path))
    }

    /// Verifies the whole, makes it durable and gives it its name. When this returns, the
    /// artefact survives a power cut.
    ///
    /// # Errors
    /// [`BlobError`].
    pub fn finish(mut self) -> Result<(), BlobError> {
        if self.written != self.artefact.size_bytes {
            return Err(BlobError::Length {
                have: self.written,
                want: self.artefact.size_bytes,
            });
        }
        let mut hasher = blake3::Hasher::new();
        let mut file = File::open(&self.path).map_err(io("open", &self.path))?;
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let n = file.read(&mut buffer).map_err(io("read", &self.path))?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
        }
        if *hasher.finalize().as_bytes() != *self.artefact.digest.as_bytes() {
            return Err(BlobError::Digest(self.artefact.digest));
        }
        self.file.sync_all().map_err(io("sync", &self.path))?;
        rename(&self.path, &self.target)?;
        self.kept = true;
        write_tree(&self.target, self.artefact).map(|_| ())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.kept {
            // What cannot be removed now is removed at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_the_announced_bytes_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path().join("blobs")).unwrap();
        let bytes = vec![7; 150_000];
        let artefact = ArtefactRef::of(&bytes);
        let mut wrong = blobs.begin(artefact).unwrap();
        wrong.write(&vec![8; 150_000]).unwrap();
        assert!(matches!(wrong.finish(), Err(BlobError::Digest(_))));
        let short = blobs.begin(artefact).unwrap();
        assert!(matches!(short.finish(), Err(BlobError::Length { .. })));
        assert_eq!(blobs.missing(&[artefact]), [artefact]);
        let mut right = blobs.begin(artefact).unwrap();
        right.write(&bytes).unwrap();
        right.finish().unwrap();
        assert!(blobs.missing(&[artefact]).is_empty());
        let (tree, mut file) = blobs.open_at(artefact, 1).unwrap();
        let mut rest = Vec::new();
        file.read_to_end(&mut rest).unwrap();
        assert_eq!(rest.len(), 150_000 - CHUNK_BYTES);
        tree.verify(1, &rest[..CHUNK_BYTES]).unwrap();
    }
}
