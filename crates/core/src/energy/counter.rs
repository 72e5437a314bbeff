//! Energy counters that wrap (RAPL powercap).

/// What one reading of a wrapping counter says about the time since the reading before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advance {
    /// The first reading: nothing yet.
    First,
    /// So many microjoules were used.
    Energy(u64),
    /// The reading cannot be trusted; the walk starts anew from it.
    Gap(GapReason),
}

/// Why a reading cannot be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapReason {
    /// The counter fell and its range is not known.
    FellWithoutRange,
    /// The implied power is above what the domain can draw.
    ImplausiblePower,
    /// No time passed, or the clock went back.
    NoTime,
}

/// Follows a counter in microjoules that wraps at `max_range_uj`.
#[derive(Debug, Clone)]
pub struct CounterWalk {
    max_range_uj: Option<u64>,
    max_power_w: f64,
    last: Option<(u64, u64)>,
}

impl CounterWalk {
    /// A walk along a counter with this range (`max_energy_range_uj`) and the largest power that
    /// is believed, in watts.
    pub fn new(max_range_uj: Option<u64>, max_power_w: f64) -> Self {
        Self {
            max_range_uj,
            max_power_w,
            last: None,
        }
    }

    /// Takes a reading at `now_us`, in microseconds of any steady clock.
    pub fn advance(&mut self, now_us: u64, value_uj: u64) -> Advance {
        let Some((before_us, before_uj)) = self.last.replace((now_us, value_uj)) else {
            return Advance::First;
        };
        let elapsed_us = now_us.saturating_sub(before_us);
        if elapsed_us == 0 {
            return Advance::Gap(GapReason::NoTime);
        }
        let used_uj = match (value_uj.checked_sub(before_uj), self.max_range_uj) {
            (Some(used), _) => used,
            // The kernel's range is the largest value shown, one step short of the modulus, so
            // each wrap loses at most one step of the counter.
            (None, Some(range)) => range.saturating_sub(before_uj).saturating_add(value_uj),
            (None, None) => return Advance::Gap(GapReason::FellWithoutRange),
        };
        // Microjoules per microsecond are watts.
        if used_uj as f64 / elapsed_us as f64 > self.max_power_w {
            return Advance::Gap(GapReason::ImplausiblePower);
        }
        Advance::Energy(used_uj)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STEP_UJ: u64 = 61;

    proptest! {
        #[test]
        fn a_true_walk_is_recovered_to_one_step_per_wrap(
            start in 0u64..4_000,
            uses in prop::collection::vec(0u64..3_000, 1..200),
        ) {
            // A counter of 4001 steps of 61 uJ; the range the kernel shows is its largest value.
            let modulus = 4_001;
            let mut walk = CounterWalk::new(Some((modulus - 1) * STEP_UJ), 1e9);
            let (mut steps, mut found, mut now) = (start, 0, 0);
            prop_assert_eq!(walk.advance(now, steps % modulus * STEP_UJ), Advance::First);
            for used in &uses {
                steps += used;
                now += 1_000_000;
                match walk.advance(now, steps % modulus * STEP_UJ) {
                    Advance::Energy(uj) => found += uj,
                    other => prop_assert!(false, "{:?}", other),
                }
            }
            let wraps = steps / modulus;
            let truth = uses.iter().sum::<u64>() * STEP_UJ;
            prop_assert!(found <= truth && truth - found <= wraps * STEP_UJ, "{} {}", found, truth);
        }
    }

    #[test]
    fn what_cannot_be_is_a_gap_not_energy() {
        let mut walk = CounterWalk::new(None, 100.0);
        assert_eq!(walk.advance(0, 500), Advance::First);
        assert_eq!(
            walk.advance(1_000_000, 400),
            Advance::Gap(GapReason::FellWithoutRange)
        );
        assert_eq!(
            walk.advance(1_000_000, 400),
            Advance::Gap(GapReason::NoTime)
        );
        let leap = 400 + 101_000_000;
        assert_eq!(
            walk.advance(2_000_000, leap),
            Advance::Gap(GapReason::ImplausiblePower)
        );
        assert_eq!(walk.advance(3_000_000, leap + 5), Advance::Energy(5));
    }
}
