//! Deliberate mistakes of the core: each of these is caught by the model check, by the small model of
//! a rollout, or by both. One test, since a mistake is made in the whole process.
#![cfg(feature = "mutants")]
#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod machine;

use machine::{Core, Sequences};
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{Config, TestRng, TestRunner};
use proptest_state_machine::{ReferenceStateMachine as _, StateMachineTest as _};
use sandpiper_core::mutants::{Mutant, activate};
use sandpiper_model::protocol::{Bounds, Protocol};
use std::panic::{AssertUnwindSafe, catch_unwind};

const NONE: Bounds = Bounds {
    starts: 0,
    kills: 0,
    cuts: 0,
    deadlines: 0,
    aborts: 0,
    streams: 0,
};
/// States up to which a mistake must have shown.
const MOST: usize = 200_000;
/// Sequences in which it must have shown.
const CASES: u32 = 3_000;

/// What the model check has to catch, with the bounds in which it shows.
fn protocol() -> Vec<(Mutant, Bounds, bool)> {
    let takeover = Bounds {
        starts: 1,
        streams: 1,
        ..NONE
    };
    let kill = Bounds {
        starts: 1,
        kills: 1,
        ..NONE
    };
    let deadline = Bounds {
        deadlines: 1,
        ..NONE
    };
    vec![
        (Mutant::ForgetFence, takeover, false),
        (Mutant::KeepTerm, takeover, false),
        (Mutant::ForgetAssignment, kill, false),
        (Mutant::ForgetProgress, kill, false),
        (Mutant::SkipPersist, Bounds { cuts: 1, ..NONE }, false),
        (Mutant::AcceptOlder, NONE, false),
        (Mutant::AcceptForeign, NONE, false),
        (Mutant::SameGeneration, NONE, false),
        (Mutant::IgnoreFailures, NONE, true),
        (Mutant::SilenceIsSuccess, deadline, false),
    ]
}

/// What the small model of a rollout has to catch.
const MACHINE: &[Mutant] = &[
    Mutant::SkipBake,
    Mutant::SkipInferences,
    Mutant::ForgetInFlight,
    Mutant::BudgetOffByOne,
    Mutant::ForgetCount,
    Mutant::IgnoreFailures,
    Mutant::RollBackOneWave,
    Mutant::PauseGoesOn,
    Mutant::NoDeadline,
    Mutant::SilenceIsSuccess,
    Mutant::TwoRollouts,
    Mutant::CountStaleReports,
    Mutant::BelieveEverything,
    Mutant::CountTwice,
    Mutant::CountOldWindows,
    Mutant::SameGeneration,
    Mutant::ForgetProgress,
];

/// Whether any sequence tells the core from the small model.
fn differs() -> bool {
    let config = Config::default();
    let mut runner = TestRunner::new_with_rng(
        config.clone(),
        TestRng::deterministic_rng(config.rng_algorithm),
    );
    let sequences = Sequences::sequential_strategy(1..120);
    (0..CASES).any(|_| {
        let tree = sequences.new_tree(&mut runner);
        let (model, events, seen) = tree.expect("sequences can be made").current();
        let run = || Core::test_sequential(config.clone(), model, events, seen);
        // A difference is a panic.
        catch_unwind(AssertUnwindSafe(run)).is_err()
    })
}

#[test]
fn each_of_these_mistakes_is_caught() {
    // Of differences, which are panics, there are many here.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let mut missed = Vec::new();
    for (mutant, bounds, bad) in protocol() {
        activate(Some(mutant));
        let report = Protocol::new(bounds, [bad, false, false]).check(1, MOST);
        activate(None);
        match &report.broken {
            Some((violation, way)) => {
                let (name, steps) = (mutant.name(), way.len());
                println!("{name:<18} {:<32} after {steps} steps", violation.name);
            }
            None => missed.push(format!("{} by the model check", mutant.name())),
        }
    }
    for mutant in MACHINE {
        activate(Some(*mutant));
        let caught = differs();
        activate(None);
        match caught {
            true => println!("{:<18} differs from the small model", mutant.name()),
            false => missed.push(format!("{} by the small model", mutant.name())),
        }
    }
    std::panic::set_hook(hook);
    assert!(missed.is_empty(), "not caught: {missed:?}");
    assert!(!differs(), "without a mistake they agree");
}
