//! For a main loop that never comes back: what it was busy with is written down before the service
//! manager ends the agent, so that the next one knows over which version that was.

use crate::driver::Key;
use crate::words::chain;
use sandpiper_core::names::{ModelName, VariantName, VersionName};
use sandpiper_core::reconcile::DeviceEvent;
use sandpiper_transport::fsio::{self, Disk, FsError};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Looks within the time after which the service manager takes the agent for dead.
const LOOKS: u32 = 12;
/// Looks without a beat after which it is written down: the main loop beats twice in the time of
/// [`LOOKS`], and there has to be time to write before the manager acts.
const SILENT: u32 = 7;

/// What the next agent reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    model: ModelName,
    version: VersionName,
    variant: VariantName,
    /// How long the agent had lived, in milliseconds.
    lived_ms: u64,
}

#[derive(Debug, Default)]
struct Pulse {
    beats: AtomicU64,
    busy: Mutex<Option<Key>>,
}

/// The main loop's side: what it does, and that it comes round.
#[derive(Debug, Clone, Default)]
pub struct Heart(Arc<Pulse>);

impl Heart {
    /// The main loop has come round.
    pub fn beat(&self) {
        self.0.beats.fetch_add(1, Ordering::Relaxed);
    }

    /// What it is busy with from now on; `None`: with nothing that a version could be blamed for.
    pub fn busy(&self, with: Option<Key>) {
        *self.0.busy.lock().unwrap_or_else(PoisonError::into_inner) = with;
    }

    fn is_busy_with(&self) -> Option<Key> {
        let busy = self.0.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.clone()
    }
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("hung.json")
}

/// What one look at the heart asks for.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    /// All is as it was.
    Same,
    /// It hangs, over this if that is known.
    Hangs(Option<Key>),
    /// What was written down is not true any more.
    CameBack,
}

#[derive(Debug, Default)]
struct Looks {
    beats: u64,
    silent: u32,
    told: bool,
}

impl Looks {
    fn look(&mut self, heart: &Heart) -> Seen {
        let beats = heart.0.beats.load(Ordering::Relaxed);
        // Before its first beat it is starting.
        if beats != self.beats || beats == 0 {
            (self.beats, self.silent) = (beats, 0);
            return match std::mem::take(&mut self.told) {
                true => Seen::CameBack,
                false => Seen::Same,
            };
        }
        self.silent += 1;
        if self.silent < SILENT || self.told {
            return Seen::Same;
        }
        self.told = true;
        Seen::Hangs(heart.is_busy_with())
    }
}

/// Watches a main loop that has to beat twice within `within`, on a thread of its own: a loop that
/// hangs may hold what tasks of the runtime wait for, and then none of them runs. Ends with the
/// process.
///
/// # Errors
/// When the system gives no thread.
pub fn watch(
    heart: Heart,
    disk: Arc<dyn Disk>,
    state_dir: PathBuf,
    within: Duration,
) -> io::Result<()> {
    let work = move || {
        let begun = Instant::now();
        let mut looks = Looks::default();
        loop {
            std::thread::sleep(within / LOOKS);
            match looks.look(&heart) {
                Seen::Same => {}
                Seen::CameBack => forget(&*disk, &state_dir),
                Seen::Hangs(None) => tracing::error!("the main loop hangs"),
                Seen::Hangs(Some(over)) => note(&*disk, &state_dir, over, begun.elapsed()),
            }
        }
    };
    let thread = std::thread::Builder::new().name("sentinel".into());
    thread.spawn(work).map(drop)
}

fn note(disk: &dyn Disk, state_dir: &Path, over: Key, lived: Duration) {
    let (model, version, variant) = over;
    tracing::error!(%model, %version, %variant, "the main loop hangs over it");
    let note = Note {
        model,
        version,
        variant,
        lived_ms: u64::try_from(lived.as_millis()).unwrap_or(u64::MAX),
    };
    if let Err(error) = write(disk, state_dir, &note) {
        tracing::error!("it could not be written down: {}", chain(&error));
    }
}

fn write(disk: &dyn Disk, state_dir: &Path, note: &Note) -> Result<(), FsError> {
    // Three names and a number: they have a JSON form.
    let bytes = serde_json::to_vec(note).unwrap_or_default();
    fsio::write_atomic_on(disk, &path(state_dir), &bytes, 0o600)
}

fn forget(disk: &dyn Disk, state_dir: &Path) {
    let removed = disk.remove(&path(state_dir));
    if let Err(error) = removed
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::error!("a note of an earlier hang stays: {error}");
    }
}

/// What the agent before this one hung over, once.
pub fn last_words(disk: &dyn Disk, state_dir: &Path) -> Option<DeviceEvent> {
    let bytes = fsio::read(disk, &path(state_dir)).ok()?;
    forget(disk, state_dir);
    let note: Note = serde_json::from_slice(&bytes)
        .inspect_err(|error| tracing::warn!("the note of a hang cannot be read: {error}"))
        .ok()?;
    let (model, version) = (&note.model, &note.version);
    tracing::error!(%model, %version, "the agent before this one hung over it");
    Some(DeviceEvent::Hung {
        model: note.model,
        version: note.version,
        variant: note.variant,
        lived: Duration::from_millis(note.lived_ms),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn key() -> Key {
        let name = "activity";
        (
            ModelName::new(name).unwrap(),
            VersionName::new("v2").unwrap(),
            VariantName::new("small").unwrap(),
        )
    }

    #[test]
    fn a_loop_that_stops_is_told_in_time_and_one_that_comes_back_is_not() {
        let (heart, mut looks) = (Heart::default(), Looks::default());
        for _ in 0..3 * LOOKS {
            assert_eq!(looks.look(&heart), Seen::Same, "it is starting");
        }
        for _ in 0..20 {
            heart.beat();
            for _ in 0..LOOKS / 2 {
                assert_eq!(looks.look(&heart), Seen::Same);
            }
        }
        heart.busy(Some(key()));
        // The manager waits from the last beat on.
        let all: Vec<Seen> = (LOOKS / 2..LOOKS).map(|_| looks.look(&heart)).collect();
        assert!(all.contains(&Seen::Hangs(Some(key()))), "{all:?}");
        assert_eq!(looks.look(&heart), Seen::Same, "once is enough");
        heart.busy(None);
        heart.beat();
        assert_eq!(looks.look(&heart), Seen::CameBack);
        let again: Vec<Seen> = (0..SILENT).map(|_| looks.look(&heart)).collect();
        assert!(again.contains(&Seen::Hangs(None)), "{again:?}");
    }

    #[test]
    fn last_words_are_read_once() {
        let dir = tempfile::tempdir().unwrap();
        let disk = fsio::system();
        assert!(last_words(&*disk, dir.path()).is_none());
        note(&*disk, dir.path(), key(), Duration::from_secs(50));
        match last_words(&*disk, dir.path()) {
            Some(DeviceEvent::Hung { version, lived, .. }) => {
                assert_eq!((version.as_str(), lived.as_secs()), ("v2", 50));
            }
            other => panic!("{other:?}"),
        }
        assert!(last_words(&*disk, dir.path()).is_none());
        forget(&*disk, dir.path());
    }
}
