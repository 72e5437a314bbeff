//! Rollouts as the store keeps them: a head, and per device a plan that never changes and a
//! state that does. As one record, a rollout of many devices would exceed what a value may hold,
//! and every report of one device would write all of them again.

use super::keys;
use super::outbox::Outbox;
use crate::names::{DeviceName, ModelName, RolloutName, VersionName};
use crate::rollout::{
    DeviceRollout, Devices, Measured, Pairs, PlannedDevice, Rollout, RolloutPlan, RolloutSpec,
    RolloutState, Unfit,
};
use crate::time::Millis;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

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
    #[serde(default)]
    merged_from: Option<usize>,
    #[serde(default)]
    approved: BTreeSet<usize>,
    #[serde(default)]
    resumed_at: Option<Millis>,
    created_at: Millis,
    actor: String,
}

/// What a rollout plans for one device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Planned {
    /// It moves in this wave, counted from 0.
    Moves(usize, Box<PlannedDevice>),
    /// Nothing fits it.
    Unfit(Unfit),
}

/// Queues a rollout with all of its devices.
pub(super) fn keep_whole(out: &mut Outbox, rollout: &Rollout) {
    keep_head(out, rollout);
    let name = &rollout.plan.name;
    for (wave, devices) in rollout.plan.waves.iter().enumerate() {
        for planned in devices {
            let record = Planned::Moves(wave, Box::new(planned.clone()));
            out.keep(keys::planned(name, &planned.device), &record);
        }
    }
    for unfit in &rollout.plan.unfit {
        let record = Planned::Unfit(unfit.clone());
        out.keep(keys::planned(name, &unfit.device), &record);
    }
    for (device, _) in rollout.devices.iter() {
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
        merged_from: rollout.merged_from,
        approved: rollout.approved.clone(),
        resumed_at: rollout.resumed_at,
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
    if let Some(pairs) = rollout.measured.get(device) {
        out.keep(keys::measured(&rollout.plan.name, device), pairs);
    }
}

/// Queues the end of a rollout.
pub(super) fn delete(out: &mut Outbox, rollout: &Rollout) {
    let name = &rollout.plan.name;
    out.delete(keys::rollout(name));
    for (device, _) in rollout.devices.iter() {
        out.delete(keys::planned(name, device));
        out.delete(keys::progress(name, device));
    }
    for device in rollout.measured.devices() {
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
    measured: Rows<Pairs>,
) -> BTreeMap<RolloutName, Rollout> {
    let heads = heads.into_iter();
    let mut plans: BTreeMap<RolloutName, (RolloutPlan, Head)> = heads
        .map(|(_, head)| (head.name.clone(), (head.plan(), head)))
        .collect();
    for (key, planned) in planned {
        let rollout = keys::rollout_and_device(&key).and_then(|(name, _)| plans.get_mut(&name));
        let Some((plan, _)) = rollout else { continue };
        match planned {
            Planned::Moves(wave, device) => {
                if plan.waves.len() <= wave {
                    plan.waves.resize(wave + 1, Vec::new());
                }
                plan.waves[wave].push(*device);
            }
            Planned::Unfit(unfit) => plan.unfit.push(unfit),
        }
    }
    let (mut states, mut pairs) = (by_rollout(progress), by_rollout(measured));
    let restored = plans.into_iter().map(|(name, (plan, head))| {
        let states = states.remove(&name).unwrap_or_default();
        let pairs = pairs.remove(&name).unwrap_or_default();
        let rollout = Rollout {
            devices: Devices::restored(&plan, &states),
            measured: Measured::restored(plan.spec.gates.clone(), pairs),
            plan,
            state: head.state,
            waived: head.waived,
            merged_from: head.merged_from,
            approved: head.approved,
            resumed_at: head.resumed_at,
            created_at: head.created_at,
            actor: head.actor,
        };
        (name, rollout)
    });
    restored.collect()
}

/// Rows by the rollout and the device that their keys name.
fn by_rollout<T>(rows: Rows<T>) -> BTreeMap<RolloutName, BTreeMap<DeviceName, T>> {
    let mut all: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for (key, value) in rows {
        if let Some((rollout, device)) = keys::rollout_and_device(&key) {
            all.entry(rollout).or_default().insert(device, value);
        }
    }
    all
}

impl Head {
    fn plan(&self) -> RolloutPlan {
        RolloutPlan {
            name: self.name.clone(),
            spec: self.spec.clone(),
            model: self.model.clone(),
            previous: self.previous.clone(),
            waves: Vec::new(),
            unfit: Vec::new(),
        }
    }
}
