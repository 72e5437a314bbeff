//! What must hold of every selection.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::ladder::ladder;
use crate::names::DeviceName;
use crate::policy::Objective;
use crate::profile::{Conditions, DeviceProfile, Power};
use crate::testing;
use proptest::prelude::*;

/// What a property varies.
#[derive(Debug, Clone)]
struct Case {
    profile: DeviceProfile,
    conditions: Conditions,
    manifest: VersionManifest,
    policy: Policy,
    failed: FailedVariants,
    current: Option<Ladder>,
}

prop_compose! {
    fn case()(
        variants in prop::collection::vec((0.5f64..1.0, 1_000u64..50_000_000, 1u64..200), 1..6),
        objective in 0usize..3,
        floor in prop::option::of(0.5f64..1.0),
        slo_us in prop::option::of(10u32..100_000),
        budget in prop::option::of(10u64..100_000),
        ram_mib in 1u64..300,
        battery in prop::option::of((0u8..=100, any::<bool>())),
        hours in prop::option::of(0.1f64..1_000.0),
        failed in prop::option::of(0usize..6),
        current in prop::option::of(0usize..6),
    ) -> Case {
        let names: Vec<_> = (0..variants.len()).map(|i| format!("variant-{i}")).collect();
        let manifests = variants.iter().zip(&names).map(|((accuracy, macs, mib), name)| {
            let mut variant = testing::variant("v1", name, *accuracy, *macs);
            variant.abi.memory_bytes = mib << 20;
            variant
        });
        let manifest = testing::manifest("v1", manifests.collect());
        let name = |i: usize| testing::variant_name(&names[i % names.len()]);
        let mut conditions = testing::conditions();
        conditions.ram_available_bytes = ram_mib << 20;
        if let Some((percent, charging)) = battery {
            let remaining_uj = Some(u64::from(percent) * 360_000_000);
            conditions.power = Power::Battery { percent, charging, remaining_uj };
        }
        let key = |i| (manifest.model.clone(), manifest.version.clone(), name(i));
        Case {
            profile: testing::profile(),
            conditions,
            policy: Policy {
                objective: [Objective::Accuracy, Objective::Energy, Objective::Latency][objective],
                accuracy_floor: floor,
                latency_slo_us: slo_us,
                energy_budget_uj: budget,
                battery_life_hours: hours,
                ..Policy::default()
            },
            failed: failed.map(|i| (key(i), "crashed".to_owned())).into_iter().collect(),
            current: current.map(|i| Ladder {
                rungs: [(PowerState::Mains, name(i))].into(),
                low_percent: 40,
                critical_percent: 15,
            }),
            manifest,
        }
    }
}

fn run(case: &Case) -> Selection {
    let name = DeviceName::new("pi-1").unwrap();
    let learned = LearnedMap::new();
    let view = DeviceView {
        name: &name,
        profile: &case.profile,
        conditions: &case.conditions,
        learned: &learned,
        failed: &case.failed,
        current: case.current.as_ref(),
    };
    select(&view, &case.manifest, &case.policy)
}

fn candidate<'a>(selection: &'a Selection, choice: &Choice) -> &'a Candidate {
    let mut all = selection.candidates.iter();
    all.find(|c| c.variant == choice.variant).unwrap()
}

proptest! {
    #[test]
    fn the_choice_fits_if_anything_fits_and_hard_limits_are_never_broken(case in case()) {
        let selection = run(&case);
        prop_assert_eq!(selection.candidates.len(), case.manifest.variants.len());
        let feasible = selection.candidates.iter().any(|c| c.misfits.is_empty());
        let possible = selection.candidates.iter().any(|c| !c.misfits.iter().any(Misfit::is_hard));
        prop_assert_eq!(selection.choices.len(), if possible { 4 } else { 0 });
        for choice in &selection.choices {
            let chosen = candidate(&selection, choice);
            prop_assert!(!chosen.misfits.iter().any(Misfit::is_hard), "{:?}", chosen);
            prop_assert_eq!(chosen.misfits.is_empty(), feasible);
            prop_assert_eq!(choice.reason == ChoiceReason::LeastViolation, !feasible);
        }
        prop_assert_eq!(ladder(&selection, &case.policy).is_some(), possible);
    }

    #[test]
    fn the_most_accurate_or_one_that_ties_with_it_is_chosen(case in case()) {
        let case = Case { current: None, ..case };
        let selection = run(&case);
        let fits = selection.candidates.iter().filter(|c| c.misfits.is_empty());
        let Some(top) = fits.map(|c| c.accuracy).max_by(f64::total_cmp) else {
            return Ok(());
        };
        if case.policy.objective == Objective::Accuracy {
            let chosen = candidate(&selection, &selection.choices[0]);
            prop_assert!((top - chosen.accuracy) * 100.0 < case.policy.tie_points);
        }
    }

    #[test]
    fn selecting_again_from_the_chosen_ladder_changes_nothing(case in case()) {
        let first = run(&case);
        let Some(held) = ladder(&first, &case.policy) else {
            return Ok(());
        };
        // What serves needs no more RAM; everything else competes for the same.
        let again = run(&Case { current: Some(held.clone()), ..case.clone() });
        let fits = first.candidates.iter().any(|c| c.misfits.is_empty());
        if fits {
            prop_assert_eq!(ladder(&again, &case.policy), Some(held));
        }
    }

    #[test]
    fn a_selection_survives_serialisation(case in case()) {
        let selection = run(&case);
        let json = serde_json::to_string(&selection).unwrap();
        let back: Selection = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(back.choices, selection.choices);
        prop_assert_eq!(back.candidates.len(), selection.candidates.len());
    }
}
