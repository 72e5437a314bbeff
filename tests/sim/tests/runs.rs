//! Small runs of the simulation as ordinary tests; the large ones are `cargo xtask sim`.

use sandpiper_core::ring::MAX_WINDOWS;
use sandpiper_sim::fault::{Fault, FaultKind};
use sandpiper_sim::scenario::{LEAST_DEVICES, LEAST_FAULTS, Scenario, Step};
use sandpiper_sim::truth::Quality;
use sandpiper_sim::world::run;

/// Few, since a debug build is slow.
const DEVICES: usize = 12;

#[test]
fn a_seed_determines_a_run_bit_for_bit() {
    let scenario = Scenario::of(7, DEVICES);
    assert_eq!(scenario, Scenario::of(7, DEVICES));
    let (first, second) = (run(&scenario), run(&scenario));
    assert_eq!(first, second);
    assert_ne!(first.trace, run(&Scenario::of(8, DEVICES)).trace);
}

#[test]
fn every_seed_has_enough_devices_and_faults() {
    const { assert!(LEAST_FAULTS >= 20 && LEAST_DEVICES >= 50) };
    for seed in (0..2_000).chain([u64::MAX, 1_763_000_000_000_000]) {
        let scenario = Scenario::of(seed, LEAST_DEVICES as usize);
        assert_eq!(scenario.devices, LEAST_DEVICES as usize, "seed {seed}");
        let faults = scenario.faults.len() as u64;
        assert!(faults >= LEAST_FAULTS, "seed {seed}: {faults} faults");
        // All of them begin before everything is mended.
        let late = scenario.faults.iter().filter(|f| f.at >= scenario.heal_at);
        assert_eq!(late.count(), 0, "seed {seed}");
    }
}

#[test]
fn small_fleets_hold_under_faults() {
    for seed in 1..=4 {
        let outcome = run(&Scenario::of(seed, DEVICES));
        assert_eq!(outcome.found, None, "seed {seed}");
        assert!(
            outcome.faults >= LEAST_FAULTS,
            "seed {seed}: {} faults",
            outcome.faults
        );
        assert!(
            outcome.ends.contains_key("promoted"),
            "seed {seed}: {:?}",
            outcome.ends
        );
    }
}

/// A week without a controller: the devices go on, keep what fits, and tell it once and in order when
/// they are back, which the invariants of the run hold.
#[test]
fn fault_36_a_partition_of_seven_days_bounds_the_ring_and_is_filled_in_once() {
    const HOUR: u64 = 3_600_000;
    const DEVICES: usize = 3;
    let mut scenario = Scenario::of(11, DEVICES);
    let good = scenario.steps.iter().find_map(|(at, step)| match step {
        Step::Rollout(_, Quality::Good, _) => Some((*at, step.clone())),
        _ => None,
    });
    scenario.steps = vec![good.expect("the first version of every scenario is good")];
    scenario.first = DEVICES;
    scenario.window_ms = 30_000;
    let week = 7 * 24 * HOUR;
    scenario.faults = vec![Fault {
        at: 6 * HOUR,
        kind: FaultKind::Partition {
            devices: (0..DEVICES).collect(),
            ms: week,
        },
    }];
    scenario.heal_at = 6 * HOUR + week + HOUR;
    scenario.end_at = scenario.heal_at + 15 * HOUR;
    let outcome = run(&scenario);
    assert_eq!(outcome.found, None);
    assert_eq!(outcome.windows_most, MAX_WINDOWS);
    // They served all the week, and the oldest windows gave way.
    assert!(outcome.windows_lost > 0);
}
