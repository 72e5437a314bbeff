//! Deployments.

use super::record::DeploymentRecord;
use super::state::Fleet;
use super::{Refused, keys};
use crate::event::Severity;
use crate::names::{DeploymentName, DeviceName};
use crate::policy::Deployment;
use crate::time::Millis;
use crate::view::Kind;

impl Fleet {
    /// Makes or changes a deployment. Its model cannot change: that would be another one.
    ///
    /// # Errors
    /// [`Refused::Conflict`].
    pub fn apply_deployment(
        &mut self,
        now: Millis,
        actor: &str,
        deployment: Deployment,
    ) -> Result<(), Refused> {
        let name = deployment.name.clone();
        let old = self.deployments.get(&name);
        if let Some(old) = old.filter(|o| o.deployment.model != deployment.model) {
            let text = format!(
                "deployment {name} is of model {}: delete it first",
                old.deployment.model
            );
            return Err(Refused::Conflict(text));
        }
        let twin = self.deployments.values().find(|o| {
            o.deployment.name != name
                && o.deployment.model == deployment.model
                && o.deployment.selector == deployment.selector
        });
        if let Some(twin) = twin {
            let other = &twin.deployment.name;
            let text = format!("deployment {other} selects the same devices for the same model");
            return Err(Refused::Conflict(text));
        }
        let version = old.and_then(|o| o.version.clone());
        let record = DeploymentRecord {
            deployment,
            version,
        };
        self.out.keep(keys::deployment(&name), &record);
        self.out.changed(Kind::Deployments, &name);
        self.deployments.insert(name.clone(), record);
        let text = "the next rollout selects by it".to_owned();
        self.tell(
            now,
            Severity::Info,
            format!("deployment/{name}"),
            actor,
            "Applied",
            text,
        );
        Ok(())
    }

    /// Deletes a deployment and takes its model from its devices.
    ///
    /// # Errors
    /// [`Refused::NotFound`], or [`Refused::Conflict`] while a rollout runs.
    pub fn delete_deployment(
        &mut self,
        now: Millis,
        actor: &str,
        name: &DeploymentName,
    ) -> Result<(), Refused> {
        if !self.deployments.contains_key(name) {
            return Err(Refused::not_found("deployment", name));
        }
        if let Some(running) = self.active_rollout(name) {
            let text = format!("rollout {running} is under way: abort it first");
            return Err(Refused::Conflict(text));
        }
        self.deployments.remove(name);
        self.out.delete(keys::deployment(name));
        self.out.changed(Kind::Deployments, name);
        let devices: Vec<DeviceName> = self.devices.keys().cloned().collect();
        for device in devices {
            let Some(record) = self.devices.get_mut(&device) else {
                continue;
            };
            let before = record.models.len();
            record.models.retain(|_, m| m.deployment != *name);
            record.previous.retain(|_, m| m.deployment != *name);
            if record.models.len() != before {
                self.renumber(now, &device);
            }
        }
        let text = "its model was taken from its devices".to_owned();
        self.tell(
            now,
            Severity::Info,
            format!("deployment/{name}"),
            actor,
            "Deleted",
            text,
        );
        Ok(())
    }
}
