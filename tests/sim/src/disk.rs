//! A disk that loses and tears what was not synced. A power cut may come before any step of a
//! write; what the step did by then, dice decide.

use crate::dice::Dice;
use sandpiper_core::digest::Digest;
use sandpiper_core::ring::RingStore;
use sandpiper_core::telemetry::TelemetryWindow;
use std::collections::BTreeMap;

/// Why the disk did not do what it was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskError {
    /// The power went.
    PowerCut,
    /// There is no room.
    Full,
    /// It does not sync.
    Io,
}

/// A file that is replaced as a whole: written beside, synced, renamed, its directory synced.
#[derive(Debug, Clone, Default)]
struct File {
    durable: Option<Vec<u8>>,
    beside: Option<Vec<u8>>,
    renamed: bool,
}

/// A device's disk.
#[derive(Debug, Clone)]
pub struct Disk {
    state: File,
    next_window: u64,
    windows: BTreeMap<u64, TelemetryWindow>,
    /// Artefacts under their names; false for those that have rotted.
    artefacts: BTreeMap<Digest, bool>,
    /// Steps until the power goes.
    cut_in: Option<u32>,
    /// Nothing more fits.
    pub full: bool,
    /// The next sync fails.
    pub sync_fails: bool,
    dice: Dice,
}

impl Disk {
    /// An empty disk.
    pub fn new(dice: Dice) -> Self {
        Self {
            state: File::default(),
            next_window: 1,
            windows: BTreeMap::new(),
            artefacts: BTreeMap::new(),
            cut_in: None,
            full: false,
            sync_fails: false,
            dice,
        }
    }

    /// The power will go before this many more steps are done.
    pub fn cut_after(&mut self, steps: u32) {
        self.cut_in = Some(steps);
    }

    /// Faults that have not struck yet do not strike any more.
    pub fn heal(&mut self) {
        self.full = false;
        self.sync_fails = false;
        self.cut_in = None;
    }

    fn step(&mut self) -> Result<(), DiskError> {
        match &mut self.cut_in {
            Some(0) => Err(DiskError::PowerCut),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn sync(&mut self) -> Result<(), DiskError> {
        self.step()?;
        match std::mem::take(&mut self.sync_fails) {
            true => Err(DiskError::Io),
            false => Ok(()),
        }
    }

    /// Replaces the state file, so that a power cut leaves the old or the new one.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn save_state(&mut self, bytes: Vec<u8>) -> Result<(), DiskError> {
        if self.full {
            return Err(DiskError::Full);
        }
        self.step()?;
        self.state.beside = Some(bytes);
        self.state.renamed = false;
        if let Err(error) = self.sync() {
            if error == DiskError::Io {
                self.state.beside = None;
            }
            return Err(error);
        }
        self.step()?;
        self.state.renamed = true;
        self.sync()?;
        self.settle_state();
        Ok(())
    }

    fn settle_state(&mut self) {
        self.state.durable = self.state.beside.take();
        self.state.renamed = false;
    }

    /// The state file.
    pub fn state(&self) -> Option<&[u8]> {
        match &self.state.beside {
            Some(new) if self.state.renamed => Some(new),
            _ => self.state.durable.as_deref(),
        }
    }

    /// Gives an artefact its name.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn commit(&mut self, artefact: Digest) -> Result<(), DiskError> {
        if self.full {
            return Err(DiskError::Full);
        }
        self.sync()?;
        if let Err(error) = self.step() {
            // Renamed, and the directory perhaps on the disk.
            if self.dice.chance(0.5) {
                self.artefacts.insert(artefact, true);
            }
            return Err(error);
        }
        self.artefacts.insert(artefact, true);
        Ok(())
    }

    /// Whether an artefact is there, rotten or not.
    pub fn has(&self, artefact: Digest) -> bool {
        self.artefacts.contains_key(&artefact)
    }

    /// Reads an artefact and deletes it when it is not what its name says.
    pub fn verify(&mut self, artefact: Digest) -> bool {
        let sound = self.artefacts.get(&artefact) == Some(&true);
        if !sound {
            self.artefacts.remove(&artefact);
        }
        sound
    }

    /// Lets the artefact rot that comes at this place.
    pub fn rot(&mut self, place: u64) -> Option<Digest> {
        let count = self.artefacts.len() as u64;
        let index = usize::try_from(place.checked_rem(count)?).ok()?;
        let (digest, sound) = self.artefacts.iter_mut().nth(index)?;
        *sound = false;
        Some(*digest)
    }

    /// Deletes what is not to be kept.
    ///
    /// # Errors
    /// [`DiskError`].
    pub fn collect(&mut self, keep: impl Fn(&Digest) -> bool) -> Result<(), DiskError> {
        self.step()?;
        self.artefacts.retain(|digest, _| keep(digest));
        Ok(())
    }

    /// What a power cut leaves.
    pub fn crash(&mut self) {
        self.cut_in = None;
        if self.state.renamed && self.dice.chance(0.5) {
            self.settle_state();
        }
        self.state.beside = None;
        self.state.renamed = false;
    }

    /// What the telemetry ring is restored from.
    pub fn windows(&self) -> (u64, Vec<TelemetryWindow>) {
        (self.next_window, self.windows.values().cloned().collect())
    }
}

impl RingStore for Disk {
    type Error = DiskError;

    fn keep_next(&mut self, next: u64) -> Result<(), DiskError> {
        if self.full {
            return Err(DiskError::Full);
        }
        if let Err(error) = self.step() {
            if self.dice.chance(0.5) {
                self.next_window = next;
            }
            return Err(error);
        }
        self.next_window = next;
        Ok(())
    }

    fn keep(&mut self, window: &TelemetryWindow) -> Result<(), DiskError> {
        if self.full {
            return Err(DiskError::Full);
        }
        if let Err(error) = self.step() {
            if self.dice.chance(0.5) {
                self.windows.insert(window.sequence, window.clone());
            }
            return Err(error);
        }
        self.windows.insert(window.sequence, window.clone());
        Ok(())
    }

    fn forget(&mut self, sequence: u64) -> Result<(), DiskError> {
        self.step()?;
        self.windows.remove(&sequence);
        Ok(())
    }
}
