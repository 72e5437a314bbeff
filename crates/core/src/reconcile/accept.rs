//! Taking an assignment, or refusing it with a reason.

use super::machine::{Reconciler, Turn};
use super::state::{DeviceEffect, ModelSlot, Refusal, SlotVersion};
use crate::assignment::{AssignedModel, Assignment, Ladder};
use crate::invariants;
use crate::manifest::VersionManifest;
use crate::mutants::{self, Mutant};
use crate::names::ModelName;
use std::collections::BTreeMap;

impl Reconciler {
    pub(super) fn assigned(
        &mut self,
        turn: &mut Turn,
        assignment: Assignment,
        manifests: Vec<VersionManifest>,
    ) {
        turn.report = true;
        if self.state.assignment.as_ref() == Some(&assignment) {
            return; // Sent again, for example after a reconnect.
        }
        match self.admit(&assignment, &manifests) {
            Ok(wanted) => self.accept(turn, assignment, wanted),
            Err(refusal) => turn.effects.push(DeviceEffect::Refuse(refusal)),
        }
    }

    fn admit(
        &self,
        assignment: &Assignment,
        manifests: &[VersionManifest],
    ) -> Result<BTreeMap<ModelName, SlotVersion>, Refusal> {
        if assignment.device != self.device && !mutants::is(Mutant::AcceptForeign) {
            return Err(Refusal::OtherDevice(assignment.device.clone()));
        }
        let (have, got) = (self.state.generation.0, assignment.generation.0);
        if got < have && !mutants::is(Mutant::AcceptOlder) {
            return Err(Refusal::Older { have, got });
        }
        if got == have && self.state.assignment.is_some() {
            return Err(Refusal::Conflict(got));
        }
        let device = match mutants::is(Mutant::AcceptForeign) {
            true => &assignment.device,
            false => &self.device,
        };
        invariants::assignment(assignment, device)
            .map_err(|v| Refusal::Malformed(v.to_string()))?;
        let models = assignment.models.iter();
        models
            .map(|(name, model)| Ok((name.clone(), self.admit_model(model, manifests)?)))
            .collect()
    }

    fn admit_model(
        &self,
        assigned: &AssignedModel,
        manifests: &[VersionManifest],
    ) -> Result<SlotVersion, Refusal> {
        let (model, version) = (&assigned.model, &assigned.version);
        let manifest = manifests
            .iter()
            .find(|m| m.model == *model && m.version == *version)
            .or_else(|| self.held(model, version).map(|held| &held.manifest));
        let Some(manifest) = manifest else {
            return Err(Refusal::NoManifest {
                model: model.clone(),
                version: version.clone(),
            });
        };
        let held = self.held(model, version);
        if held.is_some_and(|held| held.manifest != *manifest) {
            return Err(Refusal::Changed {
                model: model.clone(),
                version: version.clone(),
            });
        }
        let wanted = SlotVersion {
            deployment: assigned.deployment.clone(),
            manifest: manifest.clone(),
            ladder: Ladder::clone(&assigned.ladder),
            latency_slo_us: assigned.latency_slo_us,
            schedule: assigned.schedule.clone(),
        };
        for variant in wanted.ladder.variants() {
            let (model, version) = (model.clone(), version.clone());
            let variant = variant.clone();
            if manifest.variant(&variant).is_none() {
                return Err(Refusal::NoVariant {
                    model,
                    version,
                    variant,
                });
            }
            if self.code_of(&wanted, &variant).is_none() {
                return Err(Refusal::NoCode {
                    model,
                    version,
                    variant,
                });
            }
        }
        Ok(wanted)
    }

    fn accept(
        &mut self,
        turn: &mut Turn,
        assignment: Assignment,
        wanted: BTreeMap<ModelName, SlotVersion>,
    ) {
        turn.dirty = true;
        turn.collect = true;
        self.drop_unassigned(turn, &assignment);
        self.state.generation = assignment.generation;
        self.state.assignment = Some(assignment);
        for (model, wanted) in wanted {
            let mut slot = self.state.models.remove(&model).unwrap_or_default();
            self.want(&mut slot, wanted);
            self.state.models.insert(model.clone(), slot);
            // Whatever was on its way belongs to an assignment that no longer counts.
            let live = self.live.entry(model).or_default();
            live.fetching = false;
            live.fetch_failures = 0;
            live.retry_at = None;
        }
    }

    /// Models that are no longer assigned stop and are forgotten.
    fn drop_unassigned(&mut self, turn: &mut Turn, assignment: &Assignment) {
        let kept = &assignment.models;
        self.state
            .models
            .retain(|model, _| kept.contains_key(model));
        let live = std::mem::take(&mut self.live);
        for (model, entry) in live {
            if kept.contains_key(&model) {
                self.live.insert(model, entry);
                continue;
            }
            for key in entry.runners.into_keys() {
                turn.stop(&model, key);
            }
        }
    }

    fn want(&self, slot: &mut ModelSlot, wanted: SlotVersion) {
        slot.pending = None;
        slot.failure = None;
        let same_code = |held: &SlotVersion| {
            held.manifest == wanted.manifest && held.ladder.variants() == wanted.ladder.variants()
        };
        if slot.active.as_ref().is_some_and(same_code) {
            // Only thresholds, rungs or objectives changed: everything needed is here.
            let runs = self.wanted_rung(slot, &wanted, self.power).is_some();
            // When nothing of it can run here any more, that is told, not waited for.
            let last = slot.failed.last().filter(|_| !runs);
            slot.failure = last.map(|f| f.failure.clone());
            slot.active = Some(wanted);
            return;
        }
        // The rung that would be tested now must not be code that failed here before.
        let code = wanted
            .ladder
            .rung(self.power)
            .and_then(|rung| self.code_of(&wanted, rung));
        let failed = code.and_then(|(_, code)| {
            let mut known = slot.failed.iter();
            known.find(|f| f.code == code.artefact.digest)
        });
        let failed = failed.map(|f| f.failure.clone());
        match failed {
            Some(failure) => slot.failure = Some(failure),
            None => slot.pending = Some(wanted),
        }
    }
}
