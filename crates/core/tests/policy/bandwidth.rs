//! What a forecast makes of a budget of bandwidth, and what is wrong with one.

use crate::support::{deployment, planned, spec};
use sandpiper_core::bandwidth::{Bandwidth, GroupBandwidth};
use sandpiper_core::rollout::{RolloutSpec, SpecError, forecast};
use sandpiper_core::time::Millis;

fn bounded(bytes_per_s: Option<u64>, of_site: Option<u64>) -> RolloutSpec {
    let per_group = of_site.map(|bytes_per_s| GroupBandwidth {
        group_by: "site".into(),
        bytes_per_s,
    });
    RolloutSpec {
        wave_deadline_s: 600,
        bandwidth: Some(Bandwidth {
            bytes_per_s,
            per_group,
        }),
        ..spec()
    }
}

/// Seconds that four devices need that fetch a megabyte each, which takes each a second alone.
fn takes(spec: RolloutSpec) -> u64 {
    let fleet = ["site=lab", "site=lab", "site=lab", "site=shop"];
    let mut plan = planned(spec, &fleet).unwrap();
    for device in plan.waves.iter_mut().flatten() {
        device.download_bytes = 1_000_000;
        device.takes = serde_json::from_value(serde_json::json!({
            "ms": 1_000, "provenance": "measured"
        }))
        .unwrap();
    }
    let foreseen = forecast(&plan, &deployment(), Millis(0));
    assert_eq!(foreseen.obstacle, None);
    // Baking comes after it.
    foreseen.waves[0].ends_s.unwrap() - 2
}

#[test]
fn a_forecast_shares_the_bandwidth() {
    assert_eq!(takes(spec()), 1);
    assert_eq!(takes(bounded(Some(10_000_000), None)), 1);
    assert_eq!(takes(bounded(Some(100_000), None)), 40);
    assert_eq!(takes(bounded(None, Some(100_000))), 30);
    assert_eq!(takes(bounded(Some(200_000), Some(100_000))), 30);
}

#[test]
fn budgets_that_are_none_are_mistakes() {
    assert_eq!(bounded(None, None).mistakes(), [SpecError::NoRate]);
    let mut spec = bounded(Some(0), Some(7));
    if let Some(group) = spec.bandwidth.as_mut().and_then(|b| b.per_group.as_mut()) {
        group.group_by = "no key".into();
    }
    let texts: Vec<String> = spec.mistakes().iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), 3, "{texts:?}");
    assert!(texts[0].starts_with("bandwidth.bytes_per_s is 0"));
    assert!(texts[1].starts_with("bandwidth.per_group.bytes_per_s is 7"));
    assert!(texts[2].starts_with("bandwidth.per_group.group_by: `no key`"));
}
