//! What the device reports of its models.

use super::machine::Reconciler;
use super::state::ModelSlot;
use crate::assignment::AssignedModel;
use crate::names::ModelName;
use crate::telemetry::{ModelPhase, ModelStatus, Serving};

impl Reconciler {
    /// The observed state of every assigned model, by model name.
    pub fn statuses(&self) -> Vec<ModelStatus> {
        let Some(assignment) = &self.state.assignment else {
            return Vec::new();
        };
        let models = assignment.models.iter();
        models
            .filter_map(|(name, assigned)| {
                let slot = self.state.models.get(name)?;
                Some(self.status(name, assigned, slot))
            })
            .collect()
    }

    fn status(&self, name: &ModelName, assigned: &AssignedModel, slot: &ModelSlot) -> ModelStatus {
        let serving = self.serving(name);
        let wanted = slot.pending.as_ref().or(slot.active.as_ref());
        let wanted = wanted.filter(|v| *v.version() == assigned.version);
        let missing = wanted.map_or(0, |v| match slot.pending {
            Some(_) => self.missing(v).iter().map(|a| a.size_bytes).sum(),
            None => 0,
        });
        let needed_bytes = wanted.map_or(0, |v| self.needed(v).iter().map(|a| a.size_bytes).sum());
        let serves_wanted = serving
            .as_ref()
            .is_some_and(|s| s.version == assigned.version);
        let pending = slot.pending.as_ref().filter(|_| wanted.is_some());
        let waits = pending.and_then(|pending| self.waits(pending, missing > 0));
        let phase = if slot.failure.is_some() {
            ModelPhase::Failed
        } else if let Some(waits) = waits {
            waits
        } else if missing > 0 {
            ModelPhase::Fetching
        } else if slot.pending.is_none() && serves_wanted {
            ModelPhase::Serving
        } else {
            ModelPhase::Testing
        };
        ModelStatus {
            deployment: assigned.deployment.clone(),
            model: name.clone(),
            wanted: assigned.version.clone(),
            phase,
            serving,
            failure: slot.failure.clone(),
            fetched_bytes: needed_bytes - missing,
            needed_bytes,
        }
    }

    /// What requests of this model go to now.
    pub fn serving(&self, model: &ModelName) -> Option<Serving> {
        let (version, variant) = self.live.get(model)?.routed.as_ref()?;
        let code = self.code_run(model, &(version.clone(), variant.clone()))?;
        Some(Serving {
            version: version.clone(),
            variant: variant.clone(),
            code,
            power_state: self.power,
        })
    }
}
