//! What a device knows of the time of the day. A Raspberry Pi without a battery for its clock wakes
//! up in the past, and nobody on a bench sets it; so its own clock is not asked.

use crate::time::Millis;
use std::time::Duration;

/// How long a time that was told is trusted. Crystals of boards are off by up to a hundred
/// millionths, which is four minutes in this time.
pub const TRUSTED_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

/// A word that says an earlier time than is known, by at most this much, was long on its way. One that
/// says a time before that corrects what was told wrong.
const ON_ITS_WAY: Duration = Duration::from_secs(300);

/// The time as the controller told it last, carried on by a clock that only counts from the start
/// of the machine. With the power it is gone, and windows stay shut until it is told again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wall {
    /// What the counting clock showed, and what time it was.
    told: Option<(Millis, Millis)>,
}

impl Wall {
    /// The controller says that it is `time`, while the counting clock shows `counted`.
    pub fn told(&mut self, counted: Millis, time: Millis) {
        let late = self.time(counted).map(|known| known.since(time));
        if late.is_some_and(|late| !late.is_zero() && late <= ON_ITS_WAY) {
            return; // Words take their time, and never arrive before they were said.
        }
        self.told = Some((counted, time));
    }

    /// What time it is while the counting clock shows `counted`; nothing when nobody has said so
    /// since the start of the machine, or so long ago that it is not to be trusted.
    pub fn time(&self, counted: Millis) -> Option<Millis> {
        let (then, time) = self.told?;
        let passed = counted.since(then);
        (passed <= TRUSTED_FOR).then(|| time.plus(passed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_carried_on_and_not_for_ever() {
        let mut wall = Wall::default();
        assert_eq!(wall.time(Millis(5)), None);
        wall.told(Millis(1_000), Millis(1_700_000_000_000));
        assert_eq!(wall.time(Millis(4_000)), Some(Millis(1_700_000_003_000)));
        wall.told(Millis(4_000), Millis(1_699_999_999_000));
        assert_eq!(wall.time(Millis(4_000)), Some(Millis(1_700_000_003_000)));
        let last = Millis(1_000).plus(TRUSTED_FOR);
        assert!(wall.time(last).is_some());
        assert_eq!(wall.time(Millis(last.0 + 1)), None);
        wall.told(Millis(5_000), Millis(1_699_999_000_000));
        assert_eq!(wall.time(Millis(5_000)), Some(Millis(1_699_999_000_000)));
    }
}
