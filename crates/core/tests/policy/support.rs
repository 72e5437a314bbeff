//! A fleet of one kind of device, and the reports that it makes.

use crate::fixtures;
use sandpiper_core::digest::Digest;
use sandpiper_core::invariants;
use sandpiper_core::manifest::VersionManifest;
use sandpiper_core::names::{DeploymentName, DeviceName, RolloutName, VersionName};
use sandpiper_core::policy::{Deployment, Labels, Policy, Selector};
use sandpiper_core::profile::{Conditions, DeviceProfile, Power, PowerState};
use sandpiper_core::rollout::{
    DeviceRollout, FleetDevice, Pace, PlanError, Rollout, RolloutEffect, RolloutEvent, RolloutPlan,
    RolloutSpec, plan,
};
use sandpiper_core::telemetry::{ModelPhase, ModelStatus, Serving};
use sandpiper_core::time::Millis;
use std::collections::{BTreeMap, BTreeSet};

pub(crate) fn name<T>(text: impl Into<String>) -> T
where
    T: TryFrom<String>,
    T::Error: std::fmt::Debug,
{
    T::try_from(text.into()).unwrap()
}

pub(crate) fn manifest() -> VersionManifest {
    fixtures::manifest("v2")
}

pub(crate) fn device_profile() -> DeviceProfile {
    fixtures::profile("")
}

/// A request for the fleet of these tests.
pub(crate) fn spec() -> RolloutSpec {
    RolloutSpec {
        wave_deadline_s: 60,
        bake_s: 2,
        ..RolloutSpec::new(
            name::<DeploymentName>("activity"),
            name::<VersionName>("v2"),
        )
    }
}

/// Labels from `site=lab,floor=1`.
pub(crate) fn labels(text: &str) -> Labels {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

/// A plan for devices with these labels, named `pi-00` and so on.
pub(crate) fn planned(spec: RolloutSpec, devices: &[&str]) -> Result<RolloutPlan, PlanError> {
    let names: Vec<DeviceName> = (0..devices.len())
        .map(|i| name(format!("pi-{i:02}")))
        .collect();
    let labels: Vec<Labels> = devices.iter().map(|text| labels(text)).collect();
    let (profile, learned) = (device_profile(), BTreeMap::new());
    let conditions = Conditions {
        ram_available_bytes: 1 << 30,
        disk_free_bytes: 1 << 30,
        power: Power::Mains,
        temperature_mc: None,
        throttled: false,
    };
    let fleet = names.iter().zip(&labels).map(|(name, labels)| FleetDevice {
        name,
        profile: &profile,
        conditions: &conditions,
        learned: &learned,
        failed: BTreeMap::new(),
        current: None,
        before: None,
        held: BTreeSet::new(),
        moved: None,
        labels,
    });
    let deployment = deployment();
    let previous = Some(name::<VersionName>("v1"));
    let rollout = name::<RolloutName>("activity-2");
    let pace = Pace::default();
    plan(
        rollout,
        spec,
        &deployment,
        &manifest(),
        previous,
        &pace,
        fleet,
    )
}

pub(crate) fn deployment() -> Deployment {
    Deployment {
        name: name("activity"),
        model: name("activity"),
        selector: Selector::default(),
        policy: Policy::default(),
    }
}

/// A rollout under test: every step is held against the invariants.
pub(crate) struct Watched {
    pub(crate) rollout: Rollout,
    /// Reasons and messages of what was noted, oldest first.
    pub(crate) noted: Vec<(String, String)>,
}

impl Watched {
    pub(crate) fn new(spec: RolloutSpec, devices: &[&str]) -> Self {
        let plan = planned(spec, devices).unwrap();
        Self {
            rollout: Rollout::new(plan, "anna", Millis(0)),
            noted: Vec::new(),
        }
    }

    pub(crate) fn handle(&mut self, at: u64, event: RolloutEvent) -> Vec<RolloutEffect> {
        let state = self.rollout.state.clone();
        let devices: BTreeMap<DeviceName, DeviceRollout> = (self.rollout.devices.iter())
            .map(|(d, s)| (d.clone(), s.clone()))
            .collect();
        let effects = self.rollout.handle(Millis(at), event);
        invariants::rollout(&self.rollout).unwrap();
        invariants::rollout_step(&state, &devices, &self.rollout, Millis(at)).unwrap();
        for effect in &effects {
            if let RolloutEffect::Note(event) = effect {
                self.noted
                    .push((event.reason.clone(), event.message.clone()));
            }
        }
        effects
    }

    pub(crate) fn start(&mut self, at: u64) -> Vec<RolloutEffect> {
        let actor = "anna".to_owned();
        self.handle(at, RolloutEvent::Start { actor })
    }

    /// The device with this number reports a phase of the new version.
    pub(crate) fn says(
        &mut self,
        at: u64,
        device: usize,
        phase: ModelPhase,
        inferences: u64,
    ) -> Vec<RolloutEffect> {
        let serves = if phase == ModelPhase::Serving {
            "v2"
        } else {
            "v1"
        };
        let status = ModelStatus {
            deployment: name("activity"),
            model: name("activity"),
            wanted: name("v2"),
            phase,
            serving: Some(Serving {
                version: name(serves),
                variant: name("small"),
                code: Digest::of(b"x"),
                power_state: PowerState::Mains,
            }),
            failure: None,
            fetched_bytes: 0,
            needed_bytes: 0,
        };
        let event = RolloutEvent::Reported {
            device: name(format!("pi-{device:02}")),
            status: Some(Box::new(status)),
            inferences,
            measured: None,
        };
        self.handle(at, event)
    }

    /// The device serves and, three seconds later, has succeeded.
    pub(crate) fn succeeds(&mut self, at: u64, device: usize) {
        self.says(at, device, ModelPhase::Serving, 1);
        self.says(at + 3_000, device, ModelPhase::Serving, 5);
    }

    pub(crate) fn state(&self, device: usize) -> &DeviceRollout {
        let device: DeviceName = name(format!("pi-{device:02}"));
        self.rollout.devices.get(&device).unwrap()
    }
}
