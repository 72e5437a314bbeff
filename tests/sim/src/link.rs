//! What the controller sends of downloads under budgets of bandwidth: the shaper of the core, piece by
//! piece.

use crate::check::Checks;
use crate::event::{Happening, Timer};
use crate::outside::Outside;
use sandpiper_core::bandwidth::{Budget, Shaper, Ticket};
use sandpiper_core::chunks::CHUNK_BYTES;
use sandpiper_core::digest::{ArtefactRef, Digest};
use sandpiper_core::names::DeviceName;
use sandpiper_core::time::Millis;
use std::collections::{BTreeMap, BTreeSet};

/// A download of one start of a device.
type Key = (usize, u64, Digest);

struct Piece {
    key: Key,
    device: DeviceName,
    artefact: ArtefactRef,
    left: u64,
    budgets: Vec<Budget>,
}

impl Piece {
    fn bytes(&self) -> u64 {
        self.left.min(CHUNK_BYTES as u64)
    }
}

/// Downloads under way.
#[derive(Default)]
pub struct Link {
    shaper: Shaper,
    waiting: BTreeMap<Ticket, Piece>,
    under_way: BTreeSet<Key>,
    done: BTreeSet<Key>,
    looks_at: Option<u64>,
}

impl Link {
    /// Whether all of a download has come under these budgets; it begins otherwise.
    pub fn has_come(
        &mut self,
        (number, boot): (usize, u64),
        device: &DeviceName,
        artefact: ArtefactRef,
        budgets: Vec<Budget>,
        outside: &mut Outside,
        checks: &mut Checks,
    ) -> bool {
        let key = (number, boot, artefact.digest);
        if self.done.remove(&key) {
            return true;
        }
        if self.under_way.contains(&key) {
            return false;
        }
        if budgets.is_empty() {
            return true;
        }
        self.under_way.insert(key);
        self.ask(
            outside,
            Piece {
                key,
                device: device.clone(),
                artefact,
                left: artefact.size_bytes,
                budgets,
            },
        );
        self.look(outside, checks);
        false
    }

    fn ask(&mut self, outside: &Outside, piece: Piece) {
        let (now, bytes) = (Millis(outside.now), piece.bytes() as usize);
        let ticket = self.shaper.ask(now, &piece.device, &piece.budgets, bytes);
        self.waiting.insert(ticket, piece);
    }

    /// Sends what may be sent now.
    pub fn look(&mut self, outside: &mut Outside, checks: &mut Checks) {
        let now = Millis(outside.now);
        loop {
            let granted = self.shaper.poll(now);
            if granted.is_empty() {
                break;
            }
            for ticket in granted {
                let Some(mut piece) = self.waiting.remove(&ticket) else {
                    continue;
                };
                checks.passed(outside.now, &piece.budgets, piece.bytes());
                piece.left -= piece.bytes();
                if piece.left > 0 {
                    self.ask(outside, piece);
                    continue;
                }
                let (number, boot, _) = piece.key;
                self.under_way.remove(&piece.key);
                self.done.insert(piece.key);
                outside.timer(number, boot, 1, Timer::Fetched(piece.artefact));
            }
            if checks.found.is_some() {
                return; // What is sent without a bound has no end.
            }
        }
        let next = self.shaper.next_deadline(now).map(|at| at.0);
        let planned = self.looks_at.is_some_and(|at| at > outside.now);
        if let Some(at) = next.filter(|at| !planned || Some(*at) < self.looks_at) {
            self.looks_at = Some(at);
            outside.queue.at(at, Happening::LinkLooks);
        }
    }
}
