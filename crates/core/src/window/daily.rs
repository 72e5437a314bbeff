//! Windows of local time: `mon-fri 22:00-04:00`.

use super::spans::Spans;
use super::zone::Zone;
use crate::time::Millis;
use jiff::civil::{Date, DateTime, Time};
use serde::{Deserialize, Serialize};

/// Most windows of one kind in a policy.
pub const MAX_WINDOWS: usize = 16;

const DAY_MINUTES: u16 = 24 * 60;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const ALL_DAYS: u8 = 0b111_1111;

/// A stretch of the day, on some days of the week. One that ends earlier than it begins goes on
/// into the next day. Text form: `[DAYS ]HH:MM-HH:MM`, the days as `mon-fri` or `sat,sun`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Window {
    /// Bit 0 is Monday.
    days: u8,
    /// Minutes of the day.
    from: u16,
    /// Minutes of the day that it ends on, up to and with 24:00.
    to: u16,
}

/// A text that is no window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no window: write 22:00-04:00, mon-fri 01:00-05:00 or sat,sun 00:00-24:00")]
pub struct WindowError(String);

impl std::str::FromStr for Window {
    type Err = WindowError;
    fn from_str(text: &str) -> Result<Self, WindowError> {
        let bad = || WindowError(text.chars().take(80).collect());
        let text_of = text.trim();
        let (days, hours) = match text_of.rsplit_once(' ') {
            Some((days_of, hours)) => (days(days_of).ok_or_else(bad)?, hours),
            None => (ALL_DAYS, text_of),
        };
        let (from, to) = hours.split_once('-').ok_or_else(bad)?;
        let (from, to) = (minutes(from).ok_or_else(bad)?, minutes(to).ok_or_else(bad)?);
        if from == DAY_MINUTES || to == 0 || from == to {
            return Err(bad());
        }
        Ok(Self { days, from, to })
    }
}

fn minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let two = |part: &str| {
        let plain = part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
        part.parse::<u16>().ok().filter(|_| plain)
    };
    let total = two(hours)? * 60 + two(minutes).filter(|m| *m < 60)?;
    (total <= DAY_MINUTES).then_some(total)
}

fn days(text: &str) -> Option<u8> {
    let number = |name: &str| DAYS.iter().position(|d| *d == name.trim());
    text.split(',').try_fold(0_u8, |all, part| {
        let Some((first, last)) = part.split_once('-') else {
            return Some(all | 1 << number(part)?);
        };
        let (first, last) = (number(first)?, number(last)?);
        // `fri-mon` goes over the end of the week.
        let length = (last + 7 - first) % 7;
        let these = (0..=length).map(|step| 1 << ((first + step) % 7));
        Some(these.fold(all, |all, day: u8| all | day))
    })
}

impl std::fmt::Display for Window {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.days != ALL_DAYS {
            let on = DAYS.iter().enumerate();
            let on = on.filter(|(index, _)| self.days & 1 << index > 0);
            let names: Vec<&str> = on.map(|(_, name)| *name).collect();
            write!(f, "{} ", names.join(","))?;
        }
        let (from, to) = (self.from, self.to);
        write!(
            f,
            "{:02}:{:02}-{:02}:{:02}",
            from / 60,
            from % 60,
            to / 60,
            to % 60
        )
    }
}

impl TryFrom<String> for Window {
    type Error = WindowError;
    fn try_from(text: String) -> Result<Self, WindowError> {
        text.parse()
    }
}

impl From<Window> for String {
    fn from(window: Window) -> Self {
        window.to_string()
    }
}

impl Window {
    /// The window of this day, if it has one. Where the clock is put forward over all of it, the
    /// day has none.
    fn on(self, date: Date, zone: &Zone) -> Option<(Millis, Millis)> {
        let weekday = date.weekday().to_monday_zero_offset();
        let begins = self.days & 1_u8.checked_shl(u32::try_from(weekday).ok()?)? > 0;
        let end_date = match self.to <= self.from || self.to == DAY_MINUTES {
            true => date.tomorrow().ok()?,
            false => date,
        };
        let begin = zone.instant(at(date, self.from)?)?;
        let end = zone.instant(at(end_date, self.to % DAY_MINUTES)?)?;
        (begins && begin < end).then_some((begin, end))
    }

    /// When any of these windows is open from `from` until `until`, for a device in this zone;
    /// always when there are none. Both are parts of the last century or later.
    pub fn spans(windows: &[Self], zone: &Zone, from: Millis, until: Millis) -> Option<Spans> {
        if windows.is_empty() {
            return None;
        }
        let mut open = Vec::new();
        // One that began yesterday may still be open.
        let first = zone.local(from).and_then(|at| at.date().yesterday().ok());
        let mut date = first;
        while let Some(day) = date {
            let begins = zone.instant(day.to_datetime(Time::midnight()));
            if begins.is_some_and(|begins| begins >= until) {
                break;
            }
            open.extend(windows.iter().filter_map(|window| window.on(day, zone)));
            date = day.tomorrow().ok();
        }
        Some(Spans::of(open, from, until))
    }
}

fn at(date: Date, minutes: u16) -> Option<DateTime> {
    let (hour, minute) = (
        i8::try_from(minutes / 60).ok()?,
        i8::try_from(minutes % 60).ok()?,
    );
    Some(date.to_datetime(Time::new(hour, minute, 0, 0).ok()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    /// Midnight UTC of Monday the 16th of March 2026.
    const MONDAY: u64 = 1_773_619_200_000;

    fn spans(windows: &[&str], zone: &str, from: u64, hours: u64) -> Vec<(u64, u64)> {
        let windows: Vec<Window> = windows.iter().map(|w| w.parse().unwrap()).collect();
        let (from, until) = (Millis(from), Millis(from + hours * HOUR));
        let spans = Window::spans(&windows, &zone.parse().unwrap(), from, until).unwrap();
        let hours = |at: Millis| (at.0 - from.0) / HOUR;
        spans.iter().map(|(a, b)| (hours(a), hours(b))).collect()
    }

    #[test]
    fn texts_come_back_as_they_were() {
        for text in [
            "22:00-04:00",
            "mon,tue,wed 01:30-05:00",
            "sat,sun 00:00-24:00",
        ] {
            assert_eq!(text.parse::<Window>().unwrap().to_string(), text);
        }
        let text = |text: &str| text.parse::<Window>().unwrap().to_string();
        assert_eq!(
            text("mon-fri 01:00-02:00"),
            "mon,tue,wed,thu,fri 01:00-02:00"
        );
        assert_eq!(text("sat-mon 01:00-02:00"), "mon,sat,sun 01:00-02:00");
        for bad in [
            "",
            "22-04",
            "1:00-2:00",
            "01:00-01:00",
            "24:00-01:00",
            "00:00-25:00",
            "12:60-13:00",
            "01:00-00:00",
            "noday 01:00-02:00",
            "mon- 01:00-02:00",
            "mon01:00-02:00",
        ] {
            assert!(bad.parse::<Window>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_window_is_local_and_may_pass_midnight() {
        // Berlin is an hour ahead in winter.
        assert_eq!(
            spans(&["02:00-04:00"], "Europe/Berlin", MONDAY, 48),
            [(1, 3), (25, 27)]
        );
        assert_eq!(spans(&["02:00-04:00"], "+05:30", MONDAY, 24), [(20, 22)]);
        // Open since yesterday, and cut where the time that is looked at begins.
        assert_eq!(
            spans(&["22:00-04:00"], "UTC", MONDAY, 30),
            [(0, 4), (22, 28)]
        );
        assert_eq!(spans(&["tue 00:00-24:00"], "UTC", MONDAY, 60), [(24, 48)]);
    }

    #[test]
    fn windows_that_touch_are_one() {
        let all = spans(
            &["01:00-03:00", "02:00-04:00", "04:00-05:00"],
            "UTC",
            MONDAY,
            24,
        );
        assert_eq!(all, [(1, 5)]);
    }

    #[test]
    fn the_clock_is_put_forward_and_back() {
        // Berlin, 29 March 2026: after 01:59 comes 03:00. 25 October: 02:00 to 02:59 come twice.
        let march = MONDAY + 12 * 24 * HOUR;
        assert_eq!(
            spans(&["01:00-04:00"], "Europe/Berlin", march, 47),
            [(0, 3), (24, 26)]
        );
        assert_eq!(
            spans(&["02:00-03:00"], "Europe/Berlin", march, 48),
            [(1, 2)]
        );
        let october = MONDAY + (223 * 24 - 2) * HOUR;
        assert_eq!(
            spans(&["02:00-03:00"], "Europe/Berlin", october - 24 * HOUR, 49),
            [(2, 3), (26, 28)]
        );
    }
}
