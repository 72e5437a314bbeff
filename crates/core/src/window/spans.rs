//! Stretches of time, in UTC.

use crate::time::Millis;
use serde::{Deserialize, Serialize};

/// Most stretches that a device is told of: four a day for a month.
pub const MAX_SPANS: usize = 128;

/// Stretches of time that neither overlap nor touch, in order. The end of one is not part of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Spans(Vec<(Millis, Millis)>);

impl Spans {
    /// These stretches as far as they lie within `from` and `until`, the first [`MAX_SPANS`].
    pub fn of(mut all: Vec<(Millis, Millis)>, from: Millis, until: Millis) -> Self {
        all.sort_unstable();
        let mut merged: Vec<(Millis, Millis)> = Vec::new();
        for (begin, end) in all {
            let (begin, end) = (begin.max(from), end.min(until));
            match merged.last_mut() {
                Some((_, last)) if begin <= *last => *last = end.max(*last),
                _ if begin < end => merged.push((begin, end)),
                _ => {}
            }
        }
        merged.truncate(MAX_SPANS);
        Self(merged)
    }

    /// When the stretch ends that this moment is part of.
    pub fn open_until(&self, at: Millis) -> Option<Millis> {
        let here = self.0.iter().find(|(begin, end)| *begin <= at && at < *end);
        here.map(|(_, end)| *end)
    }

    /// The first moment from this one on that is part of one.
    pub fn opens(&self, at: Millis) -> Option<Millis> {
        let next = self.0.iter().find(|(_, end)| at < *end);
        next.map(|(begin, _)| at.max(*begin))
    }

    /// Each with its begin and end.
    pub fn iter(&self) -> impl Iterator<Item = (Millis, Millis)> + '_ {
        self.0.iter().copied()
    }
}

/// When a device may fetch a version and when it may switch to it. At any time where nothing is
/// said; after the last stretch never again, unless it is told anew.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Schedule {
    /// When it may fetch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetch: Option<Spans>,
    /// When it may switch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switch: Option<Spans>,
}

impl Schedule {
    /// Whether something is left of every kind of window that it names.
    pub fn lasts(&self, at: Millis) -> bool {
        let mut both = [&self.fetch, &self.switch].into_iter().flatten();
        both.all(|spans| spans.opens(at).is_some())
    }
}

/// Whether one of these stretches is open, and when that changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// Open, until then if it ends.
    Open(Option<Millis>),
    /// Closed, until then if it opens again.
    Closed(Option<Millis>),
}

impl Opening {
    /// At this moment, of stretches that are no bound when there are none.
    pub fn at(spans: Option<&Spans>, at: Millis) -> Self {
        let Some(spans) = spans else {
            return Self::Open(None);
        };
        match spans.open_until(at) {
            Some(end) => Self::Open(Some(end)),
            None => Self::Closed(spans.opens(at)),
        }
    }

    /// Whether it is open.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Open(_))
    }

    /// When it changes.
    pub fn changes(self) -> Option<Millis> {
        match self {
            Self::Open(at) | Self::Closed(at) => at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_and_closed() {
        let at = |n| Millis(n);
        let spans = Spans::of(
            vec![(at(10), at(20)), (at(40), at(50)), (at(0), at(5))],
            at(2),
            at(45),
        );
        let all: Vec<_> = spans.iter().map(|(a, b)| (a.0, b.0)).collect();
        assert_eq!(all, [(2, 5), (10, 20), (40, 45)]);
        let opening = |t| Opening::at(Some(&spans), at(t));
        assert_eq!(opening(10), Opening::Open(Some(at(20))));
        assert_eq!(opening(20), Opening::Closed(Some(at(40))));
        assert_eq!(opening(45), Opening::Closed(None));
        assert_eq!(spans.opens(at(15)), Some(at(15)));
        assert_eq!(Opening::at(None, at(7)), Opening::Open(None));
    }
}
