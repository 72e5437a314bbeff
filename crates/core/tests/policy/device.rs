//! A device fetches and switches in its windows, by the time that it was told.

use crate::support::{device_profile, manifest, name};
use sandpiper_core::assignment::{AssignedModel, Assignment, Generation, Ladder};
use sandpiper_core::profile::PowerState;
use sandpiper_core::reconcile::{DeviceEffect, DeviceEvent, DeviceState, Reconciler};
use sandpiper_core::telemetry::ModelPhase;
use sandpiper_core::time::Millis;
use sandpiper_core::window::{Schedule, Spans};

/// The own clock of the device wakes up in 1970, and is far behind what it is told.
const OWN: u64 = 5_000;
const TOLD: u64 = 1_773_619_200_000;

struct Device(Reconciler);

impl Device {
    /// With windows for fetching at 100..200 and 300..400 s, for switching at 500..600 s.
    fn new() -> Self {
        let profile = device_profile();
        let device = name("pi-00");
        let (targets, keys) = (profile.targets, profile.runtime_keys);
        let mut new = Self(Reconciler::new(
            DeviceState::default(),
            targets,
            keys,
            device,
        ));
        let spans = |all: &[(u64, u64)]| {
            let at = |s: u64| Millis(TOLD + s * 1_000);
            let all = all.iter().map(|(a, b)| (at(*a), at(*b)));
            Some(Spans::of(all.collect(), Millis(0), Millis(u64::MAX)))
        };
        let schedule = Schedule {
            fetch: spans(&[(100, 200), (300, 400)]),
            switch: spans(&[(500, 600)]),
        };
        let ladder = Ladder {
            rungs: [(PowerState::Mains, name("small"))].into(),
            low_percent: 0,
            critical_percent: 0,
        };
        let model = AssignedModel {
            deployment: name("activity"),
            model: name("activity"),
            version: name("v2"),
            ladder: ladder.into(),
            latency_slo_us: None,
            schedule: Some(schedule.into()),
        };
        let assignment = Assignment {
            device: name("pi-00"),
            generation: Generation(1),
            agent: None,
            models: [(model.model.clone(), model)].into(),
        };
        let event = DeviceEvent::Assigned(assignment, vec![manifest()]);
        new.0.handle(Millis(OWN), event);
        new
    }

    /// So many seconds after it was told the time, if it was.
    fn at(&mut self, seconds: u64, told: bool, event: DeviceEvent) -> Vec<DeviceEffect> {
        let wall = Millis(TOLD + seconds * 1_000);
        self.0.trust(told.then_some(wall));
        self.0.handle(Millis(OWN + seconds * 1_000), event)
    }

    fn phase(&self) -> ModelPhase {
        self.0.statuses()[0].phase
    }

    fn deadline(&self) -> Option<u64> {
        let (at, _) = self.0.next_deadline()?;
        Some((at.0 - OWN) / 1_000)
    }
}

fn fetches(effects: &[DeviceEffect]) -> bool {
    let mut each = effects.iter();
    each.any(|e| matches!(e, DeviceEffect::Fetch { .. }))
}

fn starts(effects: &[DeviceEffect]) -> bool {
    let mut each = effects.iter();
    each.any(|e| matches!(e, DeviceEffect::StartRunner { .. }))
}

fn fetch_all(device: &mut Device, seconds: u64) {
    for variant in &manifest().variants {
        let native = variant.native.values().next().unwrap();
        let all = [native.artefact, variant.golden.artefact];
        for artefact in all {
            device.at(seconds, true, DeviceEvent::Fetched(artefact));
        }
    }
}

fn ready() -> DeviceEvent {
    DeviceEvent::RunnerReady {
        model: name("activity"),
        version: name("v2"),
        variant: name("small"),
    }
}

#[test]
fn it_fetches_in_one_window_and_switches_in_another() {
    let mut device = Device::new();
    assert!(!fetches(&device.at(0, true, DeviceEvent::Tick)));
    assert_eq!(device.phase(), ModelPhase::AwaitingDownload);
    assert_eq!(device.deadline(), Some(100));
    assert!(fetches(&device.at(100, true, DeviceEvent::Tick)));
    assert_eq!(device.phase(), ModelPhase::Fetching);
    // The window shuts while bytes are on their way, and opens again.
    assert_eq!(device.deadline(), Some(200));
    let left = device.at(200, true, DeviceEvent::Tick);
    assert!(
        left.iter()
            .any(|e| matches!(e, DeviceEffect::StopFetch { .. }))
    );
    assert_eq!(device.phase(), ModelPhase::AwaitingDownload);
    assert!(fetches(&device.at(300, true, DeviceEvent::Tick)));
    fetch_all(&mut device, 310);
    assert_eq!(device.phase(), ModelPhase::AwaitingSwitch);
    assert!(!starts(&device.at(450, true, DeviceEvent::Tick)));
    assert!(starts(&device.at(500, true, DeviceEvent::Tick)));
    let switched = device.at(501, true, ready());
    let mut switched = switched.iter();
    assert!(switched.any(|e| matches!(e, DeviceEffect::Switch { .. })));
    assert_eq!(device.phase(), ModelPhase::Serving);
}

#[test]
fn a_runner_that_is_ready_too_late_waits_for_the_next_window() {
    let mut device = Device::new();
    fetch_all(&mut device, 310);
    assert!(starts(&device.at(599, true, DeviceEvent::Tick)));
    let late = device.at(600, true, ready());
    assert!(
        !late
            .iter()
            .any(|e| matches!(e, DeviceEffect::Switch { .. }))
    );
    assert!(
        late.iter()
            .any(|e| matches!(e, DeviceEffect::StopRunner { .. }))
    );
    assert_eq!(device.phase(), ModelPhase::AwaitingSwitch);
    assert_eq!(device.deadline(), None, "no window is left");
}

#[test]
fn a_device_that_nobody_has_told_the_time_does_not_move() {
    let mut device = Device::new();
    assert!(!fetches(&device.at(150, false, DeviceEvent::Tick)));
    assert_eq!(device.phase(), ModelPhase::AwaitingClock);
    assert!(fetches(&device.at(151, true, DeviceEvent::Tick)));
    fetch_all(&mut device, 160);
    // It loses its power and does not reach the controller.
    assert!(!starts(&device.at(550, false, DeviceEvent::Tick)));
    assert_eq!(device.phase(), ModelPhase::AwaitingClock);
    assert!(starts(&device.at(551, true, DeviceEvent::Tick)));
}
