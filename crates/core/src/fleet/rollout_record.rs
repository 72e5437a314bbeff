//! Rollouts as the store keeps them: a head, and per device a plan that never changes and a
//! state that does. As one record, a rollout of many devices would exceed what a value may hold,
//! and every report of one device would write all of them again.

use super::keys;
use super::outbox::Outbox;
use crate::names::{DeviceName, ModelName, RolloutName, VersionName};
use crate::rollout::{
    DeviceRollout, Pair, PlannedDevice, Rollout, RolloutPlan, RolloutSpec, RolloutState, Unfit,
};
use crate::time::Millis;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// All of a rollout but its devices.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Head {
    name: RolloutName,
    spec: RolloutSpec,
    model: ModelName,
    previous: Option<VersionName>,
    state: RolloutState,
    #[serde(default)]
    waived: Option<usize>,
    created_at: Millis,
    actor: String,
}

/// What a rollout plans for one device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Planned {
    /// It moves in this wave, counted from 0.
    Moves(usize, PlannedDevice),
    /// Nothing fits it.
    Unfit(Unfit),
}

/// Queues a rollout with all of its devices.
pub(super) fn keep_whole(out: &mut Outbox, rollout: &Rollout) {
    keep_head(out, rollout);
    let name = &rollout.plan.name;
    for (wave, devices) in rollout.plan.waves.iter().enumerate() {
        for planned in devices {
            let record = Planned::Moves(wave, planned.clone());
            out.keep(keys::planned(name, &planned.device), &record);
        }
    }
    for unfit in &rollout.plan.unfit {
        let record = Planned::Unfit(unfit.clone());
        out.keep(keys::planned(name, &unfit.device), &record);
    }
    for device in rollout.devices.keys() {
        keep_device(out, rollout, device);
    }
}

/// Queues all of a rollout but its devices.
pub(super) fn keep_head(out: &mut Outbox, rollout: &Rollout) {
    let plan = &rollout.plan;
    let head = Head {
        name: plan.name.clone(),
        spec: plan.spec.clone(),
        model: plan.model.clone(),
        previous: plan.previous.clone(),
        state: rollout.state.clone(),
        waived: rollout.waived,
        created_at: rollout.created_at,
        actor: rollout.actor.clone(),
    };
    out.keep(keys::rollout(&plan.name), &head);
}

/// Queues where one device stands.
pub(super) fn keep_device(out: &mut Outbox, rollout: &Rollout, device: &DeviceName) {
    if let Some(progress) = rollout.devices.get(device) {
        out.keep(keys::progress(&rollout.plan.name, device), progress);
    }
    if let Some(pair) = rollout.measured.get(device) {
        out.keep(keys::measured(&rollout.plan.name, device), pair);
    }
}

/// Queues the end of a rollout.
pub(super) fn delete(out: &mut Outbox, rollout: &Rollout) {
    let name = &rollout.plan.name;
    out.delete(keys::rollout(name));
    for device in rollout.devices.keys() {
        out.delete(keys::planned(name, device));
        out.delete(keys::progress(name, device));
    }
    for device in rollout.measured.keys() {
        out.delete(keys::measured(name, device));
    }
    for unfit in &rollout.plan.unfit {
        out.delete(keys::planned(name, &unfit.device));
    }
}

/// Rows of the store with the rollout and the device that their keys name.
type Rows<T> = Vec<(Vec<u8>, T)>;

/// Puts rollouts together again. Rows come in the order of their keys, so that devices stand in
/// their waves in the order of their names, as they were planned.
pub(super) fn assemble(
    heads: Rows<Head>,
    planned: Rows<Planned>,
    progress: Rows<DeviceRollout>,
    measured: Rows<Pair>,
) -> BTreeMap<RolloutName, Rollout> {
    let heads = heads.into_iter();
    let mut all: BTreeMap<RolloutName, Rollout> = heads
        .map(|(_, head)| (head.name.clone(), empty(head)))
        .collect();
    for (key, planned) in planned {
        let rollout = keys::rollout_and_device(&key).and_then(|(name, _)| all.get_mut(&name));
        let Some(rollout) = rollout else { continue };
        match planned {
            Planned::Moves(wave, device) => {
                let waves = &mut rollout.plan.waves;
                if waves.len() <= wave {
                    waves.resize(wave + 1, Vec::new());
                }
                waves[wave].push(device);
            }
            Planned::Unfit(unfit) => rollout.plan.unfit.push(unfit),
        }
    }
    for (key, progress) in progress {
        if let Some((name, device)) = keys::rollout_and_device(&key)
            && let Some(rollout) = all.get_mut(&name)
        {
            rollout.devices.insert(device, progress);
        }
    }
    for (key, pair) in measured {
        if let Some((name, device)) = keys::rollout_and_device(&key)
            && let Some(rollout) = all.get_mut(&name)
        {
            rollout.measured.insert(device, pair);
        }
    }
    all
}

fn empty(head: Head) -> Rollout {
    Rollout {
        plan: RolloutPlan {
            name: head.name,
            spec: head.spec,
            model: head.model,
            previous: head.previous,
            waves: Vec::new(),
            unfit: Vec::new(),
        },
        state: head.state,
        devices: BTreeMap::new(),
        measured: BTreeMap::new(),
        waived: head.waived,
        created_at: head.created_at,
        actor: head.actor,
    }
}
