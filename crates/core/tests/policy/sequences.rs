//! No sequence of events breaks an invariant, whatever is asked for.

use crate::support::{Watched, spec};
use proptest::prelude::*;
use sandpiper_core::rollout::{
    Approval, Deadlines, DisruptionBudget, RolloutEffect, RolloutEvent, RolloutSpec, WaveSize,
    Windows,
};
use sandpiper_core::telemetry::ModelPhase;
use std::collections::BTreeSet;

/// Midnight UTC of Monday the 16th of March 2026.
const MONDAY: u64 = 1_773_619_200_000;

const FLEET: [&str; 7] = [
    "site=lab,time-zone=Europe/Berlin",
    "site=lab,time-zone=Asia/Tokyo",
    "site=shop",
    "site=shop,time-zone=-03:00",
    "site=lab",
    "time-zone=Europe/Berlin",
    "",
];

const PHASES: [ModelPhase; 8] = [
    ModelPhase::Fetching,
    ModelPhase::Testing,
    ModelPhase::AwaitingDownload,
    ModelPhase::AwaitingSwitch,
    ModelPhase::AwaitingClock,
    ModelPhase::Serving,
    ModelPhase::Serving,
    ModelPhase::Failed,
];

fn waves() -> impl Strategy<Value = Vec<WaveSize>> {
    let lab = || WaveSize::Selector("site=lab".parse().unwrap());
    prop_oneof![
        Just(vec![]),
        Just(vec![WaveSize::Double(1)]),
        Just(vec![lab(), WaveSize::Count(1)]),
        Just(vec![WaveSize::Count(1), lab(), WaveSize::Double(1)]),
    ]
}

fn windows() -> impl Strategy<Value = Option<Windows>> {
    let kind = || {
        prop_oneof![
            Just(vec![]),
            Just(vec!["01:00-05:00".parse().unwrap()]),
            Just(vec![
                "mon,wed 22:00-02:00".parse().unwrap(),
                "12:00-13:00".parse().unwrap()
            ]),
        ]
    };
    prop::option::of((kind(), kind(), 1u64..100)).prop_map(|asked| {
        let (download, switch, hours) = asked?;
        let some = !download.is_empty() || !switch.is_empty();
        let mut windows = Windows::new(download, switch);
        windows.wait_s = hours * 3_600;
        some.then_some(windows)
    })
}

fn asked() -> impl Strategy<Value = RolloutSpec> {
    let limit = || prop::option::of(300u64..40_000);
    let approval = prop::option::of(prop_oneof![Just("every"), Just("after-first")]);
    let bounds = (
        prop::option::of(1u32..4),
        prop::option::of(1u32..3),
        0u32..3,
    );
    (
        waves(),
        windows(),
        approval,
        bounds,
        (limit(), limit(), limit()),
    )
        .prop_map(
            |(waves, windows, approval, (max_in_flight, per_site, max_failures), limits)| {
                RolloutSpec {
                    waves,
                    windows,
                    approval: approval.map(|waves| Approval {
                        waves: waves.parse().unwrap(),
                        by: vec![],
                    }),
                    max_in_flight,
                    max_failures,
                    disruption: per_site.map(|max_unavailable| DisruptionBudget {
                        group_by: "site".into(),
                        max_unavailable,
                    }),
                    deadlines: Deadlines {
                        fetch_s: limits.0,
                        switch_s: limits.1,
                        prove_s: limits.2,
                    },
                    wave_deadline_s: 3_600,
                    ..spec()
                }
            },
        )
}

proptest! {
    #[test]
    fn no_sequence_of_events_breaks_an_invariant(
        spec in asked(),
        events in prop::collection::vec((0u8..20, 0usize..8, 0u64..3, 0u64..4_000_000), 1..100),
    ) {
        prop_assert_eq!(spec.mistakes(), []);
        let mut watched = Watched::new(spec, &FLEET);
        let mut now = MONDAY;
        let mut assigned = BTreeSet::new();
        let mut told = |effects: Vec<RolloutEffect>| {
            effects.into_iter().all(|effect| match effect {
                RolloutEffect::Assign { device, .. } => assigned.insert(device),
                _ => true,
            })
        };
        prop_assert!(told(watched.start(now)));
        for (kind, number, inferences, wait) in events {
            now += wait;
            let actor = "anna".to_owned();
            let effects = match kind {
                0 => watched.handle(now, RolloutEvent::Pause { actor }),
                1 => watched.handle(now, RolloutEvent::Resume { actor }),
                2..=4 => watched.handle(now, RolloutEvent::Approve { actor, why: None }),
                5 => {
                    let full = inferences == 0;
                    watched.handle(now, RolloutEvent::Promote { actor, full })
                }
                6..=12 => {
                    let phase = PHASES[(kind as usize + number) % PHASES.len()];
                    watched.says(now, number.min(6), phase, inferences)
                }
                13..=15 => watched.says(now, number.min(6), ModelPhase::Serving, inferences),
                _ => watched.handle(now, RolloutEvent::Tick),
            };
            prop_assert!(told(effects), "assigned twice");
            // The machine never asks to be woken for what is over.
            if let Some((at, why)) = watched.rollout.next_deadline() {
                let events = watched.handle(at.0.max(now), RolloutEvent::Tick);
                now = at.0.max(now);
                prop_assert!(told(events), "assigned twice");
                let next = watched.rollout.next_deadline();
                prop_assert!(next != Some((at, why)), "it waits for {why} for ever");
            }
        }
    }
}
