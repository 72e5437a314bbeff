//! Gates keep the rate of false alarms that they state.
#![allow(clippy::unwrap_used)]

use sandpiper_core::rollout::FALSE_ALARMS;
use sandpiper_sim::alarms::{Setting, measure, text};

#[test]
fn rollouts_within_their_limits_rarely_fail() {
    let setting = Setting {
        rollouts: 40,
        devices: 4,
        windows: 25,
        seed: 1,
    };
    let rows = measure(&setting).unwrap();
    let all: f64 = rows.iter().map(|row| row.rollouts as f64).sum();
    let failed: f64 = rows.iter().map(|row| row.failed as f64).sum();
    // What is stated is a bound for each gate: over all of them there may not be more either, but
    // for chance, which has three standard deviations.
    let chance = 3.0 * (FALSE_ALARMS * (1.0 - FALSE_ALARMS) * all).sqrt();
    assert!(failed <= FALSE_ALARMS * all + chance, "{}", text(&rows));
    assert_eq!(rows[0].changed, None, "{}", text(&rows));
    assert!(rows.iter().all(|row| row.looks > 20.0), "{}", text(&rows));
}
