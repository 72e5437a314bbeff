//! Which controller acts on a store. A controller that starts begins a new *term* there, and every
//! commit expects the term of its own start. One that another has taken over from cannot write
//! any more, and what is not written is not sent: of each generation there is one assignment only.

use super::keys;
use super::state::Row;
use crate::mutants::{self, Mutant};

/// The rule of one controller over a store. A later one has a larger number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(u64);

impl Term {
    /// Where the store keeps the present one.
    pub const KEY: &[u8] = keys::LEADER;

    /// The term after the one that the store holds. Whoever starts writes its [`Term::row`], if
    /// the store still holds what this was made of, before it reads anything else.
    ///
    /// # Errors
    /// When the record is damaged.
    pub fn after(stored: Option<&[u8]>) -> Result<Self, serde_json::Error> {
        let last: u64 = stored.map_or(Ok(0), serde_json::from_slice)?;
        let step = u64::from(!mutants::is(Mutant::KeepTerm) || last == 0);
        Ok(Self(last.saturating_add(step)))
    }

    /// As the store keeps it.
    pub fn row(self) -> Row {
        (Self::KEY.to_vec(), self.0.to_string().into_bytes())
    }
}

impl std::fmt::Display for Term {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_start_begins_a_later_term() {
        let first = Term::after(None).unwrap();
        let (key, value) = first.row();
        assert_eq!(key, Term::KEY);
        let second = Term::after(Some(&value)).unwrap();
        assert!(second > first);
        assert!(Term::after(Some(b"damaged")).is_err());
    }
}
