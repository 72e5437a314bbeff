//! What a plan looks at.

use super::Refused;
use super::record::{DeviceRecord, Published};
use super::state::Fleet;
use crate::assignment::AssignedModel;
use crate::digest::Digest;
use crate::learning::LearnedMap;
use crate::manifest::VersionManifest;
use crate::names::{DeploymentName, RolloutName};
use crate::policy::Deployment;
use crate::profile::PowerState;
use crate::rollout::{FleetDevice, Pace, RolloutPlan, RolloutSpec, forecast, plan};
use crate::time::Millis;
use crate::view::PlanDoc;
use std::collections::BTreeSet;

/// Devices up to which a plan that is shown holds every candidate of each: some 15 KB for a device
/// and 16 variants. With more of them, `explain` tells it of one.
const MAX_SELECTIONS: usize = 1_000;

/// A plan that nobody has started, and everything that its forecast needs: for a large fleet that
/// takes as long as planning, and the fleet need not wait for it.
#[derive(Debug)]
pub struct Draft {
    plan: RolloutPlan,
    deployment: Deployment,
}

impl Draft {
    /// The plan with what it would do from `now` on.
    pub fn foresee(self, now: Millis) -> PlanDoc {
        let forecast = forecast(&self.plan, &self.deployment, now);
        PlanDoc {
            plan: self.plan,
            forecast,
        }
    }
}

impl Fleet {
    /// Plans a rollout without doing anything.
    ///
    /// # Errors
    /// [`Refused::NotFound`] or [`Refused::Plan`].
    pub fn plan_rollout(&self, spec: RolloutSpec) -> Result<RolloutPlan, Refused> {
        let entry = self.deployments.get(&spec.deployment);
        let entry = entry.ok_or_else(|| Refused::not_found("deployment", &spec.deployment))?;
        let key = (entry.deployment.model.clone(), spec.version.clone());
        let published = self
            .versions
            .get(&key)
            .ok_or_else(|| Refused::not_found("version", format_args!("{}/{}", key.0, key.1)))?;
        let name = self.next_rollout_name(&spec.deployment)?;
        let previous = entry.version.clone();
        let nothing = LearnedMap::new();
        // Nothing would be heard of a device in quarantine; it catches up when it is let out.
        let heard = |d: &&DeviceRecord| d.revoked_by.is_none() && d.quarantined.is_none();
        let devices = self.devices.values().filter(heard);
        let devices = devices.filter_map(|d| self.for_planning(d, published, &nothing));
        let (deployment, manifest) = (&entry.deployment, &published.manifest);
        let moves = self.devices.values().filter_map(|d| d.moved.as_ref());
        let pace = Pace::of(moves);
        let plan = plan(name, spec, deployment, manifest, previous, &pace, devices)?;
        Ok(plan)
    }

    /// What a rollout would do, without doing anything; with the selections of its devices, if they
    /// are few enough to be read.
    ///
    /// # Errors
    /// As [`Fleet::plan_rollout`].
    pub fn draft_rollout(&self, spec: RolloutSpec) -> Result<Draft, Refused> {
        let mut plan = self.plan_rollout(spec)?;
        let entry = self.deployments.get(&plan.spec.deployment);
        let entry = entry.ok_or_else(|| Refused::not_found("deployment", &plan.spec.deployment))?;
        let devices = plan.waves.iter().map(Vec::len).sum::<usize>() + plan.unfit.len();
        let key = (plan.model.clone(), plan.spec.version.clone());
        if let Some(published) = self
            .versions
            .get(&key)
            .filter(|_| devices <= MAX_SELECTIONS)
        {
            let policy = &entry.deployment.policy;
            let of = |device| self.selection(device, published, policy).map(Box::new);
            for planned in plan.waves.iter_mut().flatten() {
                planned.selection = of(&planned.device);
            }
            for unfit in &mut plan.unfit {
                unfit.selection = of(&unfit.device);
            }
        }
        let deployment = entry.deployment.clone();
        Ok(Draft { plan, deployment })
    }

    /// What a plan looks at of a device; nothing before it has said what it is.
    fn for_planning<'a>(
        &'a self,
        record: &'a DeviceRecord,
        published: &'a Published,
        nothing: &'a LearnedMap,
    ) -> Option<FleetDevice<'a>> {
        let (profile, observation) = (record.profile.as_ref()?, record.observation.as_ref()?);
        let manifest = &published.manifest;
        let assigned = record.models.get(&manifest.model);
        // A ladder of another version means nothing for this one.
        let current = assigned.filter(|m| m.version == manifest.version);
        let before = assigned.and_then(|held| {
            let manifest = self.manifest(held)?;
            let variant = held.ladder.rung(PowerState::Mains)?;
            Some((manifest, manifest.variant(variant)?))
        });
        Some(FleetDevice {
            name: &record.name,
            profile,
            conditions: &observation.conditions,
            learned: self.learned.get(&record.name).unwrap_or(nothing),
            failed: record.failed_variants(),
            current: current.map(|m| &*m.ladder),
            before,
            held: self.held(record),
            moved: record.moved.as_ref(),
            labels: &record.labels,
        })
    }

    fn manifest(&self, held: &AssignedModel) -> Option<&VersionManifest> {
        let key = (held.model.clone(), held.version.clone());
        self.versions.get(&key).map(|published| &published.manifest)
    }

    /// Artefacts of what a device was assigned, now and before, which it keeps.
    fn held(&self, record: &DeviceRecord) -> BTreeSet<Digest> {
        let Some(profile) = &record.profile else {
            return BTreeSet::new();
        };
        let all = record.models.values().chain(record.previous.values());
        let variants = all.flat_map(|held| {
            let manifest = self.manifest(held);
            let names = held.ladder.variants().into_iter();
            names.filter_map(move |name| manifest?.variant(name))
        });
        let artefacts = variants.filter_map(|variant| {
            let target = variant.best_target(&profile.targets, &profile.runtime_keys)?;
            variant.artefacts_for(target)
        });
        artefacts
            .flatten()
            .map(|artefact| artefact.digest)
            .collect()
    }

    fn next_rollout_name(&self, deployment: &DeploymentName) -> Result<RolloutName, Refused> {
        let prefix = format!("{deployment}-");
        let numbers = self
            .rollouts
            .keys()
            .filter_map(|name| name.as_str().strip_prefix(&prefix)?.parse::<u64>().ok());
        let next = numbers.max().unwrap_or(0) + 1;
        RolloutName::new(format!("{prefix}{next}")).map_err(|e| Refused::Invalid(e.to_string()))
    }
}
