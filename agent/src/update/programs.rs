//! What lies in `STATE/agent`. Every step survives a power cut.

use crate::depot::{Depot, DepotError, RESERVE_BYTES, digest_of};
use crate::words::chain;
use sandpiper_core::chunks::CHUNK_BYTES;
use sandpiper_core::digest::{ArtefactRef, Digest};
use sandpiper_core::target::Arch;
use sandpiper_core::update::{AgentVersion, StageFailure, UpdateRecord, elf};
use sandpiper_transport::fsio::{self, Disk, FsError, How};
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Whoever looks at the list of processes sees this name, which fits there exactly.
const NAME: &str = "sandpiper-agent-";
/// Only the agent's own user reads or starts a program.
const MODE: u32 = 0o700;

/// Why a program does not lie ready.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// It is none for this device.
    #[error("{0}")]
    Unfit(String),
    /// It is not what its name says.
    #[error("the program does not have the content that its digest says")]
    Damaged,
    /// It is not there, or cannot be read or written.
    #[error("cannot {what} the program")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A durable write failed.
    #[error("the program cannot be kept")]
    Write(#[from] FsError),
    /// The depot fails.
    #[error(transparent)]
    Depot(#[from] DepotError),
}

impl From<StageError> for StageFailure {
    fn from(error: StageError) -> Self {
        match error {
            StageError::Unfit(why) => Self::Unfit(why),
            other => Self::Disk(chain(&other)),
        }
    }
}

fn io_at(what: &'static str) -> impl FnOnce(io::Error) -> StageError {
    move |source| StageError::Io { what, source }
}

/// The directory of programs.
#[derive(Debug, Clone)]
pub struct Programs {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
}

impl Programs {
    /// Those of a state directory. Nothing is made yet.
    pub fn of(disk: Arc<dyn Disk>, state_dir: &Path) -> Self {
        let dir = state_dir.join("agent");
        Self { dir, disk }
    }

    fn record_path(&self) -> PathBuf {
        self.dir.join("update.json")
    }

    /// Where a program lies once it is ready.
    pub fn path_of(&self, digest: Digest) -> PathBuf {
        self.dir.join(format!("{NAME}{digest}"))
    }

    /// What was remembered; nothing before the first update. A record that cannot be read must not
    /// keep a device from starting: then the installed program `installed` runs, and nothing that
    /// is older is taken from then on, since nobody knows any more where the floor was.
    pub fn load(&self, installed: &str) -> UpdateRecord {
        let read = fsio::read(&*self.disk, &self.record_path());
        let why = match read {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return UpdateRecord::default(),
            Err(error) => error.to_string(),
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(record) => return record,
                Err(error) => error.to_string(),
            },
        };
        let path = self.record_path();
        tracing::error!(
            "{} cannot be read ({why}): the installed program runs, and no older release is taken",
            path.display()
        );
        UpdateRecord {
            floor: installed.parse::<AgentVersion>().ok(),
            ..UpdateRecord::default()
        }
    }

    /// Remembers durably before it returns.
    ///
    /// # Errors
    /// [`FsError`].
    pub fn save(&self, record: &UpdateRecord) -> Result<(), FsError> {
        fsio::make_dir(&*self.disk, &self.dir)?;
        // Names, numbers and digests: they have a JSON form.
        let bytes = serde_json::to_vec(record).unwrap_or_default();
        fsio::write_atomic_on(&*self.disk, &self.record_path(), &bytes, 0o600)
    }

    /// The program, if it is there and is what its digest says: to be called right before it is
    /// started. A damaged one is deleted.
    ///
    /// # Errors
    /// [`StageError`].
    pub fn verify(&self, artefact: ArtefactRef) -> Result<PathBuf, StageError> {
        let path = self.path_of(artefact.digest);
        let file = self.disk.open(&path, How::Read).map_err(io_at("open"))?;
        if digest_of(&*file, &path)? != artefact {
            drop(file);
            self.disk.remove(&path).map_err(io_at("delete"))?;
            return Err(StageError::Damaged);
        }
        Ok(path)
    }

    /// Programs that lie ready, by their names.
    pub fn ready(&self) -> BTreeSet<Digest> {
        let names = self.disk.list(&self.dir).unwrap_or_default();
        let digest = |n: std::ffi::OsString| n.to_str()?.strip_prefix(NAME)?.parse().ok();
        names.into_iter().filter_map(digest).collect()
    }

    /// Copies a program out of the depot to where it can be started from, once it was looked at.
    /// To be called on a thread that may block.
    ///
    /// # Errors
    /// [`StageError`]; nothing is left behind.
    pub fn stage(
        &self,
        depot: &Depot,
        artefact: ArtefactRef,
        arch: Arch,
    ) -> Result<(), StageError> {
        let from = depot.verify(artefact)?;
        let from = self.disk.open(&from, How::Read).map_err(io_at("open"))?;
        let mut buffer = vec![0; CHUNK_BYTES];
        let read = from.read_at(&mut buffer, 0).map_err(io_at("read"))?;
        elf::check(&buffer[..read], arch).map_err(StageError::Unfit)?;
        fsio::make_dir(&*self.disk, &self.dir)?;
        let (need, free) = (artefact.size_bytes, self.disk.free_bytes(&self.dir));
        if free < need.saturating_add(RESERVE_BYTES) {
            return Err(DepotError::Full { need, free }.into());
        }
        let to = self.path_of(artefact.digest);
        let temporary = self.dir.join(format!(".{NAME}{}.tmp", artefact.digest));
        let copied = self.copy(&*from, &temporary, artefact, &mut buffer);
        let named = copied.and_then(|()| Ok(fsio::rename_on(&*self.disk, &temporary, &to)?));
        if named.is_err() {
            // The first failure is what matters.
            let _ = self.disk.remove(&temporary);
        }
        named
    }

    fn copy(
        &self,
        from: &dyn fsio::DiskFile,
        to: &Path,
        artefact: ArtefactRef,
        buffer: &mut [u8],
    ) -> Result<(), StageError> {
        let opened = self.disk.open(to, How::Replace { mode: MODE });
        let file = opened.map_err(io_at("write"))?;
        let (mut hasher, mut at) = (blake3::Hasher::new(), 0);
        loop {
            let read = from.read_at(buffer, at).map_err(io_at("read"))?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
            let written = file.write_all_at(&buffer[..read], at);
            written.map_err(io_at("write"))?;
            at += read as u64;
        }
        file.sync().map_err(io_at("sync"))?;
        let digest = Digest::from_bytes(*hasher.finalize().as_bytes());
        match digest == artefact.digest && at == artefact.size_bytes {
            true => Ok(()),
            false => Err(StageError::Damaged),
        }
    }

    /// Deletes every program but those of `live`, and what a copy that was cut left behind.
    ///
    /// # Errors
    /// What the system says.
    pub fn collect(&self, live: &BTreeSet<Digest>) -> io::Result<()> {
        let names = match self.disk.list(&self.dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for name in names {
            let text = name.to_string_lossy();
            let Some(rest) = text.trim_start_matches('.').strip_prefix(NAME) else {
                continue;
            };
            let named = rest.parse::<Digest>();
            let digest = rest
                .split('.')
                .next()
                .and_then(|d| d.parse::<Digest>().ok());
            // A copy under way has the digest of a live program.
            if digest.is_some_and(|d| live.contains(&d)) && (named.is_ok() || text.starts_with('.'))
            {
                continue;
            }
            match self.disk.remove(&self.dir.join(&name)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
