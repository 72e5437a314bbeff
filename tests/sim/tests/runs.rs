//! Small runs of the simulation as ordinary tests; the large ones are `cargo xtask sim`.

use sandpiper_sim::scenario::Scenario;
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
fn small_fleets_hold_under_faults() {
    for seed in 1..=4 {
        let outcome = run(&Scenario::of(seed, DEVICES));
        assert_eq!(outcome.found, None, "seed {seed}");
        assert!(
            outcome.faults >= 20,
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
