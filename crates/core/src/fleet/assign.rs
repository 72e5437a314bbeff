//! Desired states of devices, with rising generations.

use super::record::Published;
use super::state::Fleet;
use crate::assignment::{AssignedModel, Assignment, Generation, Ladder};
use crate::digest::Digest;
use crate::event::Severity;
use crate::invariants;
use crate::ladder::ladder;
use crate::learning::LearnedMap;
use crate::mutants::{self, Mutant};
use crate::names::{DeploymentName, DeviceName, ModelName, VariantName, VersionName};
use crate::policy::Policy;
use crate::profile::DeviceProfile;
use crate::selection::{DeviceView, Selection, select};
use crate::signed::Signed;
use crate::time::Millis;
use crate::window::Schedule;
use std::collections::BTreeMap;
use std::sync::Arc;

impl Fleet {
    /// Selects for a device; nothing when it has not reported yet.
    pub fn selection(
        &self,
        name: &DeviceName,
        published: &Published,
        policy: &Policy,
    ) -> Option<Selection> {
        let record = self.devices.get(name)?;
        let (nothing, failed) = (LearnedMap::new(), record.failed_variants());
        let model = &published.manifest.model;
        let current = record.models.get(model);
        let current = current.filter(|m| m.version == published.manifest.version);
        let view = DeviceView {
            name,
            profile: record.profile.as_ref()?,
            conditions: &record.observation.as_ref()?.conditions,
            learned: self.learned.get(name).unwrap_or(&nothing),
            failed: &failed,
            current: current.map(|m| &*m.ladder),
        };
        Some(select(&view, &published.manifest, policy))
    }

    fn assigned_model(
        &self,
        deployment: &DeploymentName,
        version: VersionName,
        ladder: Arc<Ladder>,
    ) -> Option<AssignedModel> {
        let deployment = &self.deployments.get(deployment)?.deployment;
        Some(AssignedModel {
            deployment: deployment.name.clone(),
            model: deployment.model.clone(),
            version,
            ladder,
            latency_slo_us: deployment.policy.latency_slo_us,
            schedule: None,
        })
    }

    /// Assigns a version, remembering what was there.
    pub(super) fn assign(
        &mut self,
        now: Millis,
        device: &DeviceName,
        deployment: &DeploymentName,
        version: VersionName,
        ladder: Arc<Ladder>,
        schedule: Option<Arc<Schedule>>,
    ) {
        let Some(mut assigned) = self.assigned_model(deployment, version, ladder) else {
            return;
        };
        assigned.schedule = schedule;
        let Some(record) = self.devices.get_mut(device) else {
            return;
        };
        let model = assigned.model.clone();
        match record.models.insert(model.clone(), assigned) {
            Some(old) => record.previous.insert(model.clone(), old),
            None => record.previous.remove(&model),
        };
        record.begin(model);
        self.renumber(now, device);
    }

    /// Assigns the version before again, or takes the model away where there was none.
    pub(super) fn assign_previous(
        &mut self,
        now: Millis,
        device: &DeviceName,
        deployment: &DeploymentName,
        model: &ModelName,
        version: Option<VersionName>,
    ) {
        let back = version.and_then(|version| {
            let record = self.devices.get(device)?;
            let held = record.previous.get(model).filter(|m| m.version == version);
            // Going back waits for no window, and the windows of then are over.
            let held = held.map(|held| AssignedModel {
                schedule: None,
                ..held.clone()
            });
            held.or_else(|| self.fresh(device, deployment, model, version))
        });
        let Some(record) = self.devices.get_mut(device) else {
            return;
        };
        record.previous.remove(model);
        record.begin(model.clone());
        match back {
            Some(back) => record.models.insert(model.clone(), back),
            None => record.models.remove(model),
        };
        self.renumber(now, device);
    }

    fn fresh(
        &self,
        device: &DeviceName,
        deployment: &DeploymentName,
        model: &ModelName,
        version: VersionName,
    ) -> Option<AssignedModel> {
        let published = self.versions.get(&(model.clone(), version.clone()))?;
        let policy = &self.deployments.get(deployment)?.deployment.policy;
        let rungs = ladder(&self.selection(device, published, policy)?, policy)?;
        self.assigned_model(deployment, version, Arc::new(rungs))
    }

    /// Gives a device that a deployment selects the version that the deployment stands at,
    /// unless it has the model already or a rollout is about to decide.
    pub(super) fn converge(&mut self, now: Millis, device: &DeviceName) {
        let Some(record) = self.devices.get(device) else {
            return;
        };
        let mut due = Vec::new();
        for entry in self.deployments.values() {
            let Some(version) = &entry.version else {
                continue;
            };
            let deployment = &entry.deployment;
            let planned = self.rollouts.values().any(|r| {
                !r.state.is_final()
                    && r.plan.spec.deployment == deployment.name
                    && r.devices.contains(device)
            });
            let holds = record.models.contains_key(&deployment.model);
            if !planned && !holds && deployment.selector.matches(&record.labels) {
                let name = deployment.name.clone();
                let fresh = self.fresh(device, &name, &deployment.model, version.clone());
                due.extend(fresh);
            }
        }
        for model in due {
            let AssignedModel {
                deployment,
                version,
                ladder,
                ..
            } = model;
            self.assign(now, device, &deployment, version, ladder, None);
        }
    }

    /// Gives the desired state the next generation and queues it for the device.
    pub(super) fn renumber(&mut self, now: Millis, device: &DeviceName) {
        let Some(record) = self.devices.get_mut(device) else {
            return;
        };
        let step = u64::from(!mutants::is(Mutant::SameGeneration));
        record.generation = Generation(record.generation.0 + step);
        let assignment = record.assignment();
        if let Err(violation) = invariants::assignment(&assignment, device) {
            let subject = format!("device/{device}");
            let text = format!("assignment withheld: {violation}");
            self.tell(
                now,
                Severity::Warning,
                subject,
                "controller",
                "Invariant",
                text,
            );
        }
        if !mutants::is(Mutant::ForgetAssignment) {
            self.keep_device(device);
        }
        self.tell_time(now, device);
        self.push(device);
    }

    /// The assignment of a device, for the driver to sign, with the versions it names. Nothing
    /// for a device that was never assigned anything, and for one that breaks an invariant.
    pub fn assignment(&self, device: &DeviceName) -> Option<(Assignment, Vec<&Signed>)> {
        let record = self.devices.get(device)?;
        let assignment = record.assignment();
        let assigned = record.generation > Generation::default();
        if !assigned || invariants::assignment(&assignment, device).is_err() {
            return None;
        }
        // The version before comes along, so that the device can go back to it offline.
        let held = record.models.values().chain(record.previous.values());
        let named: BTreeMap<_, &Signed> = held
            .filter_map(|m| {
                let key = (m.model.clone(), m.version.clone());
                let signed = &self.versions.get(&key)?.signed;
                Some((key, signed))
            })
            .collect();
        Some((assignment, named.into_values().collect()))
    }

    /// Queues the present assignment for a live device.
    pub(super) fn push(&mut self, device: &DeviceName) {
        if self.live.contains_key(device) {
            self.out.assigned.insert(device.clone());
        }
    }

    /// Whether this is code that was published for a variant and that the device can run.
    /// Figures of anything else say nothing about the variant.
    pub(super) fn is_code_of(
        &self,
        profile: Option<&DeviceProfile>,
        model: &ModelName,
        version: &VersionName,
        variant: &VariantName,
        code: Digest,
    ) -> bool {
        let published = self.versions.get(&(model.clone(), version.clone()));
        let variant = published.and_then(|p| p.manifest.variant(variant));
        let targets = profile.map_or(&[][..], |p| &p.targets);
        variant.is_some_and(|v| {
            let mut native = v.native.iter().filter(|(t, _)| targets.contains(t));
            native.any(|(_, n)| n.artefact.digest == code) || mutants::is(Mutant::BelieveEverything)
        })
    }
}
