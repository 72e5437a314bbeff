//! The course of one device in a forecast: when it reports what, with its windows and with the
//! bandwidth that it shares.

use super::plan::PlannedDevice;
use crate::telemetry::ModelPhase;
use crate::time::Millis;
use crate::window::{Schedule, Spans};
use std::time::Duration;

/// What a device reports when.
pub(super) type Course = Vec<(Millis, ModelPhase)>;

/// From the assignment until it serves: `work_ms` of fetching and switching, of which it fetches
/// only in its download windows, and serves from the first moment of a switch window after that.
/// Nothing when its windows do not suffice.
pub(super) fn course(schedule: Option<&Schedule>, told: Millis, work_ms: u64) -> Option<Course> {
    let mut course = Course::new();
    let fetched = match schedule.and_then(|s| s.fetch.as_ref()) {
        Some(spans) => work_in(spans, told, work_ms, &mut course)?,
        None => told.plus(Duration::from_millis(work_ms)),
    };
    let serves = match schedule.and_then(|s| s.switch.as_ref()) {
        Some(spans) => spans.opens(fetched)?,
        None => fetched,
    };
    if serves > fetched {
        course.push((fetched, ModelPhase::AwaitingSwitch));
    }
    course.push((serves, ModelPhase::Serving));
    Some(course)
}

/// When so much work is done that goes on only within these stretches.
fn work_in(spans: &Spans, told: Millis, work_ms: u64, course: &mut Course) -> Option<Millis> {
    let (mut left, mut at) = (Duration::from_millis(work_ms), told);
    loop {
        let begins = spans.opens(at)?;
        if begins > at {
            course.push((at, ModelPhase::AwaitingDownload));
            course.push((begins, ModelPhase::Fetching));
        }
        let end = spans.open_until(begins)?;
        let room = end.since(begins);
        if left <= room {
            return Some(begins.plus(left));
        }
        left -= room;
        at = end;
    }
}

impl PlannedDevice {
    /// How long it works, in milliseconds; 0 when nobody knows.
    pub(super) fn work_ms(&self) -> u64 {
        self.takes.map_or(0, |takes| takes.ms)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn spans(all: &[(u64, u64)]) -> Option<Spans> {
        let all = all.iter().map(|(a, b)| (Millis(*a), Millis(*b)));
        Some(Spans::of(all.collect(), Millis(0), Millis(u64::MAX)))
    }

    fn at(course: Option<Course>) -> Vec<(u64, ModelPhase)> {
        let course = course.unwrap_or_default();
        course
            .into_iter()
            .map(|(at, phase)| (at.0, phase))
            .collect()
    }

    #[test]
    fn a_download_is_interrupted_and_a_switch_waits() {
        use ModelPhase::{AwaitingDownload, AwaitingSwitch, Fetching, Serving};
        let schedule = Schedule {
            fetch: spans(&[(0, 10), (100, 200)]),
            switch: spans(&[(50, 60), (150, 160)]),
        };
        let course = |told, work| at(course(Some(&schedule), Millis(told), work));
        assert_eq!(course(0, 5), [(5, AwaitingSwitch), (50, Serving)]);
        assert_eq!(
            course(4, 26),
            [
                (10, AwaitingDownload),
                (100, Fetching),
                (120, AwaitingSwitch),
                (150, Serving)
            ]
        );
        assert_eq!(course(100, 55), [(155, Serving)]);
        assert_eq!(course(100, 90), [], "no switch window is left");
        assert_eq!(course(120, 90), [], "no download window is left");
    }

    #[test]
    fn without_windows_it_serves_when_it_has_worked() {
        assert_eq!(at(course(None, Millis(7), 5)), [(12, ModelPhase::Serving)]);
    }
}
