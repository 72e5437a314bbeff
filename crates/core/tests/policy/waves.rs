//! Waves that double and waves by labels.

use crate::support::{planned, spec};
use sandpiper_core::rollout::{PlanError, RolloutSpec, SpecError, WaveSize};

fn sizes(waves: Vec<WaveSize>, devices: &[&str]) -> Vec<Vec<usize>> {
    let spec = RolloutSpec { waves, ..spec() };
    let plan = planned(spec, devices).unwrap();
    let number = |name: &str| name.trim_start_matches("pi-").parse().unwrap();
    let wave = |wave: &Vec<_>| {
        let names = wave
            .iter()
            .map(|d: &sandpiper_core::rollout::PlannedDevice| &d.device);
        names.map(|name| number(name.as_str())).collect()
    };
    plan.waves.iter().map(wave).collect()
}

#[test]
fn a_wave_takes_twice_as_many_as_the_one_before_until_none_is_left() {
    let lengths = |waves: Vec<WaveSize>, devices: usize| -> Vec<usize> {
        sizes(waves, &vec![""; devices])
            .iter()
            .map(Vec::len)
            .collect()
    };
    assert_eq!(lengths(vec![WaveSize::Double(1)], 20), [1, 2, 4, 8, 5]);
    assert_eq!(lengths(vec![WaveSize::Double(3)], 9), [3, 6]);
    let after = vec![WaveSize::Count(2), WaveSize::Double(2)];
    assert_eq!(lengths(after, 10), [2, 2, 4, 2]);
}

#[test]
fn a_wave_by_labels_takes_those_that_are_left() {
    let fleet = [
        "site=lab",
        "site=shop",
        "site=lab,floor=1",
        "site=shop",
        "site=lab",
    ];
    let lab = || WaveSize::Selector("site=lab".parse().unwrap());
    assert_eq!(sizes(vec![lab()], &fleet), [vec![0, 2, 4], vec![1, 3]]);
    let floor = WaveSize::Selector("floor".parse().unwrap());
    assert_eq!(
        sizes(vec![floor, lab(), WaveSize::Double(1)], &fleet),
        [vec![2], vec![0, 4], vec![1], vec![3]]
    );
    assert_eq!(
        sizes(vec![WaveSize::Count(1), lab()], &fleet),
        [vec![0], vec![2, 4], vec![1, 3]]
    );
}

#[test]
fn a_wave_by_labels_that_nobody_has_is_refused() {
    let waves = vec![WaveSize::Selector("site=lba".parse().unwrap())];
    let error = planned(RolloutSpec { waves, ..spec() }, &["site=lab"]).unwrap_err();
    assert_eq!(error, PlanError::EmptyWave("site=lba".to_owned()));
}

#[test]
fn mistakes_of_waves_are_found_together() {
    let waves = vec![
        WaveSize::Selector("".parse().unwrap()),
        WaveSize::Double(1),
        WaveSize::Percent(40),
    ];
    let spec = RolloutSpec { waves, ..spec() };
    assert_eq!(
        spec.mistakes(),
        [SpecError::EmptyWave(1), SpecError::AfterDouble(3)]
    );
}
