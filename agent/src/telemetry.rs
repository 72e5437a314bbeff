//! Telemetry: open windows in memory, closed ones in a bounded ring on the disk until the
//! controller has acknowledged them. A window keeps its number for ever, so replays count once.

use sandpiper_core::ring::{self, RingStore};
use sandpiper_core::telemetry::TelemetryWindow;
use sandpiper_transport::fsio::{self, Disk, FsError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why the ring cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The directory cannot be read or a file not deleted.
    #[error("cannot use the telemetry directory {}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A window cannot be written.
    #[error("cannot write a telemetry window")]
    Write(#[from] FsError),
    /// A window cannot be made JSON.
    #[error("cannot encode a telemetry window: {0}")]
    Encode(String),
}

/// The files of the ring, one for each window, named by sequence.
#[derive(Debug)]
struct Files {
    dir: PathBuf,
    disk: Arc<dyn Disk>,
}

impl Files {
    fn of(&self, sequence: u64) -> PathBuf {
        self.dir.join(format!("{sequence:020}.json"))
    }
}

impl RingStore for Files {
    type Error = RingError;

    fn keep_next(&mut self, next: u64) -> Result<(), RingError> {
        let (path, text) = (self.dir.join("next"), next.to_string());
        Ok(fsio::write_atomic_on(
            &*self.disk,
            &path,
            text.as_bytes(),
            0o600,
        )?)
    }

    fn keep(&mut self, window: &TelemetryWindow) -> Result<(), RingError> {
        let bytes = serde_json::to_vec(window).map_err(|e| RingError::Encode(e.to_string()))?;
        let path = self.of(window.sequence);
        Ok(fsio::write_atomic_on(&*self.disk, &path, &bytes, 0o600)?)
    }

    fn forget(&mut self, sequence: u64) -> Result<(), RingError> {
        let path = self.of(sequence);
        match self.disk.remove(&path) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(RingError::Io { path, source }),
        }
    }
}

/// Closed windows on the disk.
#[derive(Debug)]
pub struct Ring {
    files: Files,
    ring: ring::Ring,
}

impl Ring {
    /// Opens the ring of an installation on this machine. Files that do not parse are deleted and
    /// counted lost.
    ///
    /// # Errors
    /// [`RingError`].
    pub fn open(dir: &Path, boot: u64) -> Result<Self, RingError> {
        Self::open_on(fsio::system(), dir, boot)
    }

    /// [`Ring::open`] on any disk.
    ///
    /// # Errors
    /// [`RingError`].
    pub fn open_on(disk: Arc<dyn Disk>, dir: &Path, boot: u64) -> Result<Self, RingError> {
        Self::with_capacity(disk, dir, boot, ring::MAX_WINDOWS)
    }

    fn with_capacity(
        disk: Arc<dyn Disk>,
        dir: &Path,
        boot: u64,
        capacity: usize,
    ) -> Result<Self, RingError> {
        let io = |source| RingError::Io {
            path: dir.to_owned(),
            source,
        };
        fsio::make_dir(&*disk, dir)?;
        let next = fsio::read(&*disk, &dir.join("next")).ok();
        let next = next.and_then(|bytes| String::from_utf8(bytes).ok()?.trim().parse().ok());
        let (mut windows, mut lost) = (Vec::new(), 0);
        for name in disk.list(dir).map_err(io)? {
            let path = dir.join(name);
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            let parsed = fsio::read(&*disk, &path)
                .ok()
                .and_then(|bytes| serde_json::from_slice::<TelemetryWindow>(&bytes).ok());
            match parsed {
                Some(window) if window.boot == boot => windows.push(window),
                _ => {
                    lost += 1;
                    tracing::warn!(path = %path.display(), "a telemetry window is damaged or foreign and is dropped");
                    disk.remove(&path).map_err(io)?;
                }
            }
        }
        Ok(Self {
            files: Files {
                dir: dir.to_owned(),
                disk,
            },
            ring: ring::Ring::restored(boot, next.unwrap_or(1), windows, lost, capacity),
        })
    }

    /// Gives the window its number and keeps it durably.
    ///
    /// # Errors
    /// [`RingError`].
    pub fn push(&mut self, window: TelemetryWindow) -> Result<u64, RingError> {
        self.ring.push(&mut self.files, window)
    }

    /// Up to `max` windows after `after`, in order.
    pub fn pending(&self, after: u64, max: usize) -> Vec<TelemetryWindow> {
        self.ring.pending(after, max)
    }

    /// Forgets every window up to `sequence`, if `boot` is this installation.
    ///
    /// # Errors
    /// [`RingError::Io`].
    pub fn acknowledge(&mut self, boot: u64, sequence: u64) -> Result<(), RingError> {
        self.ring.acknowledge(&mut self.files, boot, sequence)
    }

    /// Windows not yet acknowledged.
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// Whether all is acknowledged.
    pub fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Windows that gave way or were damaged since the start.
    pub fn lost(&self) -> u64 {
        self.ring.lost()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::tally::{ServedBy, Tally};
    use sandpiper_core::energy::Energy;
    use sandpiper_core::time::Millis;

    fn window() -> TelemetryWindow {
        let mut tally = Tally::new(Millis(1));
        tally.succeeded(1, 120, 100);
        tally.close(&ServedBy::sample(), Millis(2), Energy::default())
    }

    #[test]
    fn replays_until_acknowledged_and_never_reuses_a_number() {
        let dir = tempfile::tempdir().unwrap();
        let mut ring = Ring::open(dir.path(), 5).unwrap();
        assert_eq!(ring.push(window()).unwrap(), 1);
        assert_eq!(ring.push(window()).unwrap(), 2);
        drop(ring);
        let mut ring = Ring::open(dir.path(), 5).unwrap();
        let all = ring.pending(0, 10);
        assert_eq!(
            all.iter().map(|w| (w.boot, w.sequence)).collect::<Vec<_>>(),
            [(5, 1), (5, 2)]
        );
        ring.acknowledge(6, 2).unwrap();
        assert_eq!(ring.len(), 2);
        ring.acknowledge(5, 2).unwrap();
        drop(ring);
        let mut ring = Ring::open(dir.path(), 5).unwrap();
        assert!(ring.is_empty());
        assert_eq!(ring.push(window()).unwrap(), 3);
    }

    #[test]
    fn is_bounded_and_counts_what_it_loses() {
        let dir = tempfile::tempdir().unwrap();
        let mut ring = Ring::with_capacity(fsio::system(), dir.path(), 1, 3).unwrap();
        for _ in 0..5 {
            ring.push(window()).unwrap();
        }
        assert_eq!((ring.len(), ring.lost()), (3, 2));
        assert_eq!(ring.pending(0, 1)[0].sequence, 3);
        std::fs::write(ring.files.of(4), b"{torn").unwrap();
        let ring = Ring::open(dir.path(), 1).unwrap();
        assert_eq!((ring.len(), ring.lost()), (2, 1));
    }
}
