//! What controllers keep: rows that a job changes as one step, or not at all when another
//! controller has taken over.

use sandpiper_core::fleet::{Fleet, LoadError, Outbox, Row, Term};
use std::collections::BTreeMap;
use std::convert::Infallible;

/// Why the fleet cannot be loaded.
pub type Damaged = LoadError<Infallible>;

/// A store that several controllers can reach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Store(BTreeMap<Vec<u8>, Vec<u8>>);

impl Store {
    /// A controller starts: it begins the next term, and reads what was committed before.
    ///
    /// # Errors
    /// When a record is damaged.
    pub fn take_over(&mut self) -> Result<Fleet, Damaged> {
        let stored = self.0.get(Term::KEY).map(Vec::as_slice);
        let term = Term::after(stored).map_err(|source| LoadError::Record {
            key: String::from_utf8_lossy(Term::KEY).into_owned(),
            source,
        })?;
        self.0.extend([term.row()]);
        let mut fleet = self.load()?;
        fleet.lead(term);
        Ok(fleet)
    }

    /// What a controller would know if it were started now.
    ///
    /// # Errors
    /// When a record is damaged.
    pub fn load(&self) -> Result<Fleet, Damaged> {
        Fleet::load(|prefix: &[u8]| -> Result<Vec<Row>, Infallible> {
            let from = self.0.range(prefix.to_vec()..);
            let rows = from.take_while(|(key, _)| key.starts_with(prefix));
            Ok(rows.map(|(k, v)| (k.clone(), v.clone())).collect())
        })
    }

    /// Whether the controller that made this still acts.
    pub fn admits(&self, outbox: &Outbox) -> bool {
        let expect = outbox.expect.as_ref();
        expect.is_none_or(|(key, value)| self.0.get(key) == Some(value))
    }

    /// Makes what a job left durable; `false` when its controller may not write any more.
    pub fn commit(&mut self, outbox: &Outbox) -> bool {
        if outbox.writes.is_empty() {
            return true; // As the controller, which then asks the store only now and then.
        }
        if !self.admits(outbox) {
            return false;
        }
        for (key, value) in &outbox.writes {
            match value {
                Some(value) => self.0.insert(key.clone(), value.clone()),
                None => self.0.remove(key),
            };
        }
        true
    }

    /// All rows.
    pub fn rows(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(k, v)| (k.as_slice(), v.as_slice()))
    }
}
