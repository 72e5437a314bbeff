//! Rollouts and their plans.

use crate::assignment::Ladder;
use crate::event::Event;
use crate::names::{DeploymentName, DeviceName, ModelName, RolloutName, VersionName};
use crate::rollout::{
    DeviceRollout, Forecast, Reading, Rollout, RolloutPlan, RolloutSpec, RolloutState,
};
use crate::time::Millis;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What `rollout plan` shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanDoc {
    /// The plan itself.
    #[serde(flatten)]
    pub plan: RolloutPlan,
    /// What it is going to do.
    pub forecast: Forecast,
}

/// A rollout and its devices.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutDoc {
    /// Name.
    pub name: RolloutName,
    /// The deployment that moves.
    pub deployment: DeploymentName,
    /// Its model.
    pub model: ModelName,
    /// The version it moves to.
    pub version: VersionName,
    /// The version it goes back to.
    pub previous: Option<VersionName>,
    /// Where it stands.
    pub state: RolloutState,
    /// What was asked for.
    pub spec: RolloutSpec,
    /// What its gates say of everything that has moved.
    pub gates: Vec<Reading>,
    /// Number of waves.
    pub waves: usize,
    /// Devices that have succeeded.
    pub succeeded: usize,
    /// Devices that have failed.
    pub failed: usize,
    /// Every planned device, first wave first.
    pub devices: Vec<DeviceRolloutDoc>,
    /// Devices that nothing fits.
    pub unfit: Vec<DeviceName>,
    /// When it was made.
    pub created_at: Millis,
    /// Who made it.
    pub actor: String,
    /// What happened, oldest first.
    pub history: Vec<Event>,
}

/// A device in a rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceRolloutDoc {
    /// The device.
    pub device: DeviceName,
    /// Its wave, counted from 1.
    pub wave: usize,
    /// The rungs it gets.
    pub ladder: Arc<Ladder>,
    /// Where it stands.
    pub progress: DeviceRollout,
}

/// Where a device stands in the rollout that moves it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InRolloutDoc {
    /// The rollout.
    pub rollout: RolloutName,
    /// Its wave, counted from 1.
    pub wave: usize,
    /// Where it stands.
    pub progress: DeviceRollout,
    /// Its time zone, where there are windows.
    pub zone: Option<Arc<str>>,
}

impl InRolloutDoc {
    /// Of a device that this rollout plans; nothing for others.
    pub fn of(rollout: &Rollout, device: &DeviceName) -> Option<Self> {
        let progress = rollout.devices.get(device)?.clone();
        let (wave, position) = rollout.devices.place(device)?;
        let planned = rollout.plan.waves.get(wave)?.get(position)?;
        Some(Self {
            rollout: rollout.plan.name.clone(),
            wave: wave + 1,
            progress,
            zone: planned.zone.clone(),
        })
    }
}

impl RolloutDoc {
    /// The document of a rollout with these events.
    pub fn of(rollout: &Rollout, history: Vec<Event>) -> Self {
        let plan = &rollout.plan;
        let waves = plan.waves.iter().enumerate();
        let devices = waves.flat_map(|(index, wave)| {
            wave.iter().map(move |planned| DeviceRolloutDoc {
                device: planned.device.clone(),
                wave: index + 1,
                ladder: Arc::clone(&planned.ladder),
                progress: rollout
                    .devices
                    .get(&planned.device)
                    .cloned()
                    .unwrap_or(DeviceRollout::Waiting),
            })
        });
        Self {
            name: plan.name.clone(),
            deployment: plan.spec.deployment.clone(),
            model: plan.model.clone(),
            version: plan.spec.version.clone(),
            previous: plan.previous.clone(),
            state: rollout.state.clone(),
            spec: plan.spec.clone(),
            gates: rollout.readings(),
            waves: plan.waves.len(),
            succeeded: rollout.devices.succeeded(),
            failed: rollout.devices.failed(),
            devices: devices.collect(),
            unfit: plan.unfit.iter().map(|u| u.device.clone()).collect(),
            created_at: rollout.created_at,
            actor: rollout.actor.clone(),
            history,
        }
    }
}
