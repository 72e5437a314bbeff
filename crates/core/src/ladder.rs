//! Rungs of variants, and climbing them by power state.

use crate::assignment::Ladder;
use crate::names::VariantName;
use crate::policy::Policy;
use crate::profile::{Conditions, Power, PowerState};
use crate::selection::Selection;
use std::collections::BTreeSet;

/// A battery must be this many points above a threshold before the device climbs up again.
pub const CLIMB_POINTS: u8 = 5;

/// The ladder of a selection; `None` when no variant can run.
pub fn ladder(selection: &Selection, policy: &Policy) -> Option<Ladder> {
    let rungs: std::collections::BTreeMap<_, _> = selection
        .choices
        .iter()
        .map(|c| (c.power_state, c.variant.clone()))
        .collect();
    rungs.contains_key(&PowerState::Mains).then_some(Ladder {
        rungs,
        low_percent: policy.low_percent,
        critical_percent: policy.critical_percent,
    })
}

impl Ladder {
    /// The variant for a power state: its rung, or the next richer one.
    pub fn rung(&self, state: PowerState) -> Option<&VariantName> {
        self.rungs.range(..=state).next_back().map(|(_, v)| v)
    }

    /// The richest power state that has this variant for its rung.
    pub fn first_of(&self, variant: &VariantName) -> Option<PowerState> {
        let mut rungs = self.rungs.iter();
        rungs.find(|(_, v)| *v == variant).map(|(state, _)| *state)
    }

    /// All variants of the ladder.
    pub fn variants(&self) -> BTreeSet<&VariantName> {
        self.rungs.values().collect()
    }
}

/// The power state that these conditions alone suggest.
fn plain_state(power: Power, low: u8, critical: u8) -> PowerState {
    match power {
        Power::Mains | Power::Battery { charging: true, .. } => PowerState::Mains,
        Power::Battery { percent, .. } if percent < critical => PowerState::Critical,
        Power::Battery { percent, .. } if percent < low => PowerState::Low,
        Power::Battery { .. } => PowerState::High,
    }
}

/// Follows the power state with hysteresis: down at once, up only when the battery is
/// [`CLIMB_POINTS`] above the threshold or the mains are back.
#[derive(Debug, Clone, Copy, Default)]
pub struct Climber {
    state: Option<PowerState>,
}

impl Climber {
    /// The power state, given the conditions and the thresholds in percent.
    pub fn observe(&mut self, conditions: &Conditions, low: u8, critical: u8) -> PowerState {
        let plain = plain_state(conditions.power, low, critical);
        let state = match self.state {
            Some(old) if plain < old && plain != PowerState::Mains => {
                let up = |t: u8| t.saturating_add(CLIMB_POINTS).min(100);
                // Only as far up as the raised thresholds allow, never below where we are.
                plain_state(conditions.power, up(low), up(critical)).min(old)
            }
            _ => plain,
        };
        self.state = Some(state);
        state
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(percent: u8, charging: bool) -> Conditions {
        Conditions {
            ram_available_bytes: 1,
            disk_free_bytes: 1,
            power: Power::Battery {
                percent,
                charging,
                remaining_uj: None,
            },
            temperature_mc: None,
            throttled: false,
        }
    }

    #[test]
    fn down_at_once_up_with_hysteresis() {
        let mut climber = Climber::default();
        let mut walk = |percent, charging| climber.observe(&at(percent, charging), 40, 15);
        assert_eq!(walk(80, false), PowerState::High);
        assert_eq!(walk(39, false), PowerState::Low);
        assert_eq!(walk(41, false), PowerState::Low);
        assert_eq!(walk(45, false), PowerState::High);
        assert_eq!(walk(10, false), PowerState::Critical);
        assert_eq!(walk(18, false), PowerState::Critical);
        assert_eq!(walk(20, false), PowerState::Low);
        assert_eq!(walk(20, true), PowerState::Mains);
        assert_eq!(walk(20, false), PowerState::Low);
    }

    proptest! {
        #[test]
        fn noise_of_two_points_never_flaps(base in 3u8..97, noise in prop::collection::vec(0u8..=2, 2..50)) {
            let mut climber = Climber::default();
            let states: Vec<_> =
                noise.iter().map(|n| climber.observe(&at(base + n, false), 40, 15)).collect();
            let turns = states.windows(2).filter(|w| w[0] != w[1]).count();
            prop_assert!(turns <= 1, "{:?}", states);
        }
    }

    #[test]
    fn a_missing_rung_is_the_next_richer_one() {
        let name = |n: &str| VariantName::new(n).unwrap();
        let rungs = [(PowerState::Mains, name("a")), (PowerState::Low, name("b"))].into();
        let ladder = Ladder {
            rungs,
            low_percent: 40,
            critical_percent: 15,
        };
        assert_eq!(ladder.rung(PowerState::High), Some(&name("a")));
        assert_eq!(ladder.rung(PowerState::Critical), Some(&name("b")));
        assert_eq!(ladder.first_of(&name("b")), Some(PowerState::Low));
        assert_eq!(ladder.first_of(&name("c")), None);
    }
}
