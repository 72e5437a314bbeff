//! Every state of a small fleet: `cargo xtask model` takes the larger bounds as well.
#![allow(clippy::print_stdout)]

use sandpiper_model::protocol::{Bounds, DEVICES, Protocol, Report};

/// States that no check comes near: one that does has not visited all.
const MOST: usize = 20_000_000;
const NONE: Bounds = Bounds {
    starts: 0,
    kills: 0,
    cuts: 0,
    deadlines: 0,
    aborts: 0,
    streams: 0,
};
const GOOD: [bool; DEVICES] = [false; DEVICES];

/// Visits every state, none of which may break an invariant.
fn all(what: &str, bounds: Bounds, bad: [bool; DEVICES]) -> Report {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let report = Protocol::new(bounds, bad).check(threads, MOST);
    println!("{what}: {report}");
    assert!(report.broken.is_none(), "{what}: {report}");
    assert!(report.complete, "{what}: {report}");
    report
}

fn is_possible(report: &Report, what: &str) {
    assert!(!report.never.contains(&what), "never: {what}");
}

#[test]
fn lost_doubled_and_reordered_messages() {
    let report = all("messages", NONE, GOOD);
    is_possible(&report, "a rollout is promoted");
    is_possible(&report, "an old assignment is refused");
}

#[test]
fn a_version_that_fails_on_the_first_device() {
    let report = all("bad version", NONE, [true, false, false]);
    is_possible(&report, "a rollout is taken back");
}

#[test]
fn a_controller_takes_over_while_the_other_goes_on() {
    let report = all("takeover", Bounds { starts: 1, ..NONE }, GOOD);
    is_possible(&report, "a rollout is promoted");
    is_possible(&report, "a stale controller is fenced");
}

#[test]
fn a_controller_is_killed_at_any_commit() {
    let bounds = Bounds {
        starts: 1,
        kills: 1,
        ..NONE
    };
    is_possible(
        &all("kill", bounds, [true, false, false]),
        "a rollout is taken back",
    );
}

#[test]
fn the_power_goes_at_any_effect() {
    all("power", Bounds { cuts: 1, ..NONE }, GOOD);
}

#[test]
#[ignore = "minutes: `cargo xtask model`"]
fn the_deadline_passes_at_any_time() {
    let bounds = Bounds {
        deadlines: 1,
        ..NONE
    };
    is_possible(&all("deadline", bounds, GOOD), "a rollout is taken back");
}

#[test]
#[ignore = "minutes: `cargo xtask model`"]
fn two_controllers_have_streams_at_once() {
    let bounds = Bounds {
        starts: 1,
        streams: 2,
        ..NONE
    };
    is_possible(
        &all("streams", bounds, GOOD),
        "a stale controller is fenced",
    );
}

#[test]
#[ignore = "minutes: `cargo xtask model`"]
fn an_operator_takes_it_back_while_a_controller_takes_over() {
    let bounds = Bounds {
        starts: 1,
        aborts: 1,
        ..NONE
    };
    let report = all("abort and takeover", bounds, GOOD);
    is_possible(&report, "a rollout is taken back");
    is_possible(&report, "a stale controller is fenced");
}

#[test]
#[ignore = "minutes: `cargo xtask model`"]
fn a_controller_is_killed_and_two_start_and_the_power_goes() {
    let bounds = Bounds {
        starts: 2,
        kills: 1,
        cuts: 1,
        ..NONE
    };
    all("two starts, kill and power", bounds, GOOD);
}
