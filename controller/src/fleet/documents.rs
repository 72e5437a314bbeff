//! What operators see: documents of [`sandpiper_core::view`], built when asked for.

use super::FleetError;
use super::state::State;
use super::token::TokenRecord;
use sandpiper_core::event::Event;
use sandpiper_core::fleet::{DeviceRecord, Published, Refused};
use sandpiper_core::names::{DeviceName, ModelName, RolloutName, VersionName};
use sandpiper_core::policy::{Labels, Policy};
use sandpiper_core::sketch::LatencySketch;
use sandpiper_core::telemetry::ModelStatus;
use sandpiper_core::time::Millis;
use sandpiper_core::update::AgentRelease;
use sandpiper_core::view::{
    AgentReleaseDoc, DeploymentDoc, DeviceDoc, DeviceModelDoc, ExplainDoc, InRolloutDoc,
    JoinTokenDoc, LearnedDoc, ModelDoc, RolloutDoc, VariantDoc, VariantUse, VersionDoc,
};
use sandpiper_proto::convert::{ListQuery, ResourceKind};
use serde::Serialize;

/// A document with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The name of what it shows.
    pub name: String,
    /// The document as JSON.
    pub json: Vec<u8>,
}

fn shown<T: Serialize>(name: impl std::fmt::Display, doc: &T) -> Result<Shown, FleetError> {
    Ok(Shown {
        name: name.to_string(),
        json: serde_json::to_vec(doc)?,
    })
}

fn kind_name(kind: ResourceKind) -> &'static str {
    match kind {
        ResourceKind::Devices => "device",
        ResourceKind::Models => "model",
        ResourceKind::Variants => "variant",
        ResourceKind::Deployments => "deployment",
        ResourceKind::Rollouts => "rollout",
        ResourceKind::Events => "event",
        ResourceKind::JoinTokens => "join token",
        ResourceKind::AgentReleases => "agent-release",
    }
}

impl State {
    /// Documents that a query finds, in order of their names.
    ///
    /// # Errors
    /// [`Refused::NotFound`] when a name was given and nothing has it.
    pub fn list(&self, now: Millis, query: &ListQuery) -> Result<Vec<Shown>, FleetError> {
        let wanted = |name: &str| query.name.as_deref().is_none_or(|n| n == name);
        let chosen = |labels: &Labels| query.selector.as_ref().is_none_or(|s| s.matches(labels));
        let found: Vec<Shown> = match query.kind {
            ResourceKind::Devices => self
                .fleet
                .devices()
                .values()
                .filter(|d| wanted(d.name.as_str()) && chosen(&d.labels))
                .map(|d| shown(&d.name, &self.device_doc(d)))
                .collect::<Result<_, _>>()?,
            ResourceKind::Models => self.models(wanted)?,
            ResourceKind::Variants => self.variants(wanted)?,
            ResourceKind::Deployments => self
                .fleet
                .deployments()
                .iter()
                .filter(|(name, _)| wanted(name.as_str()))
                .filter_map(|(name, _)| Some(shown(name, &self.deployment_doc(name)?)))
                .collect::<Result<_, _>>()?,
            ResourceKind::Rollouts => self
                .fleet
                .rollouts()
                .values()
                .filter(|r| wanted(r.plan.name.as_str()))
                .map(|r| shown(&r.plan.name, &RolloutDoc::of(r, self.history(&r.plan.name))))
                .collect::<Result<_, _>>()?,
            ResourceKind::Events => self
                .fleet
                .events()
                .iter()
                .filter(|(number, e)| wanted(&number.to_string()) || wanted(&e.subject))
                .map(|(number, event)| shown(number, event))
                .collect::<Result<_, _>>()?,
            ResourceKind::JoinTokens => self
                .tokens
                .values()
                .filter(|t| wanted(&t.id) && chosen(&t.labels) && is_open(t, now))
                .map(|t| shown(&t.id, &token_doc(t)))
                .collect::<Result<_, _>>()?,
            ResourceKind::AgentReleases => self
                .fleet
                .agents()
                .iter()
                .filter(|(version, _)| wanted(&version.to_string()))
                .map(|(version, a)| shown(version, &self.agent_doc(&a.release)))
                .collect::<Result<_, _>>()?,
        };
        match &query.name {
            // No events about something is an answer, not a mistake.
            Some(name) if found.is_empty() && query.kind != ResourceKind::Events => {
                Err(Refused::not_found(kind_name(query.kind), name).into())
            }
            _ => Ok(found),
        }
    }

    fn history(&self, rollout: &RolloutName) -> Vec<Event> {
        let subject = format!("rollout/{rollout}");
        let events = self
            .fleet
            .events()
            .iter()
            .filter(|(_, e)| e.subject == subject);
        events.map(|(_, event)| event.clone()).collect()
    }

    fn device_doc(&self, record: &DeviceRecord) -> DeviceDoc {
        let observation = record.observation.as_ref();
        let statuses = observation.map_or(&[][..], |o| &o.models);
        DeviceDoc {
            name: record.name.clone(),
            labels: record.labels.clone(),
            connected: self.fleet.stream(&record.name).is_some(),
            revoked: record.revoked_by.is_some(),
            quarantined: record.quarantined.is_some(),
            enrolled_at: record.enrolled_at,
            last_seen: record.last_seen,
            profile: record.profile.clone(),
            conditions: observation.map(|o| o.conditions.clone()),
            generation: record.generation,
            observed_generation: observation.map(|o| o.generation).unwrap_or_default(),
            agent: observation.and_then(|o| o.agent.clone()),
            agent_order: record.agent.clone(),
            models: statuses
                .iter()
                .map(|s| self.device_model_doc(&record.name, s))
                .collect(),
        }
    }

    fn agent_doc(&self, release: &AgentRelease) -> AgentReleaseDoc {
        let (mut ordered, mut running) = (0, 0);
        let version = &release.version;
        for device in self.fleet.devices().values() {
            let order = device.agent.as_ref().and_then(|o| o.version());
            ordered += u64::from(order == Some(version));
            let told = device.observation.as_ref().and_then(|o| o.agent.as_ref());
            let runs = told.is_some_and(|t| !t.installed && t.running == version.to_string());
            running += u64::from(runs);
        }
        AgentReleaseDoc::of(release, ordered, running)
    }

    fn device_model_doc(&self, device: &DeviceName, status: &ModelStatus) -> DeviceModelDoc {
        let serving = status.serving.as_ref();
        let accuracy = serving.and_then(|s| {
            let key = (status.model.clone(), s.version.clone());
            Some(
                self.fleet
                    .versions()
                    .get(&key)?
                    .manifest
                    .variant(&s.variant)?
                    .accuracy
                    .value,
            )
        });
        let learned = serving.and_then(|s| {
            let key = (status.model.clone(), s.version.clone(), s.variant.clone());
            let learned = self.fleet.learned().get(device)?.get(&key)?;
            Some(LearnedDoc::of(&key.0, &key.1, &key.2, learned))
        });
        DeviceModelDoc {
            status: status.clone(),
            accuracy,
            learned,
        }
    }

    /// Statuses of devices that serve a version of a model now.
    fn serving(
        &self,
        model: &ModelName,
        version: &VersionName,
    ) -> impl Iterator<Item = &ModelStatus> {
        let observations = self
            .fleet
            .devices()
            .values()
            .filter_map(|d| d.observation.as_ref());
        observations.flat_map(|o| &o.models).filter(move |s| {
            s.model == *model && s.serving.as_ref().is_some_and(|s| s.version == *version)
        })
    }

    fn models(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<Shown>, FleetError> {
        let mut docs: Vec<ModelDoc> = Vec::new();
        for ((model, version), published) in self.fleet.versions() {
            if !wanted(model.as_str()) {
                continue;
            }
            let devices = self.serving(model, version).count() as u64;
            let doc = VersionDoc::of(&published.manifest, devices);
            match docs.last_mut().filter(|d| d.name == *model) {
                Some(last) => last.versions.push(doc),
                None => docs.push(ModelDoc {
                    name: model.clone(),
                    versions: vec![doc],
                }),
            }
        }
        for doc in &mut docs {
            doc.versions.sort_by_key(|v| v.published_at);
        }
        docs.iter().map(|d| shown(&d.name, d)).collect()
    }

    fn variants(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<Shown>, FleetError> {
        let mut all = Vec::new();
        for ((model, version), published) in self.fleet.versions() {
            for variant in &published.manifest.variants {
                let name = format!("{model}/{version}/{}", variant.name);
                let prefix = format!("{model}/{version}");
                if wanted(&name) || wanted(&prefix) || wanted(model.as_str()) {
                    let usage = self.usage(published, &variant.name);
                    all.push(shown(
                        name,
                        &VariantDoc::of(&published.manifest, variant, usage),
                    )?);
                }
            }
        }
        Ok(all)
    }

    fn usage(
        &self,
        published: &Published,
        variant: &sandpiper_core::names::VariantName,
    ) -> VariantUse {
        let manifest = &published.manifest;
        let serving = self.serving(&manifest.model, &manifest.version);
        let serving = serving.filter(|s| s.serving.as_ref().is_some_and(|s| s.variant == *variant));
        let mut usage = VariantUse {
            devices: serving.count() as u64,
            ..VariantUse::default()
        };
        let key = (
            manifest.model.clone(),
            manifest.version.clone(),
            variant.clone(),
        );
        let mut sketch = LatencySketch::default();
        for learned in self.fleet.learned().values().filter_map(|l| l.get(&key)) {
            usage.inferences = usage.inferences.saturating_add(learned.inferences);
            usage.errors = usage.errors.saturating_add(learned.errors);
            sketch.merge(&learned.recent);
        }
        usage.latency_us_p50 = sketch.quantile(0.5);
        usage.latency_us_p95 = sketch.quantile(0.95);
        usage
    }

    fn deployment_doc(
        &self,
        name: &sandpiper_core::names::DeploymentName,
    ) -> Option<DeploymentDoc> {
        let entry = self.fleet.deployments().get(name)?;
        let newest = self
            .fleet
            .rollouts()
            .values()
            .filter(|r| r.plan.spec.deployment == *name);
        let newest = newest.max_by_key(|r| r.created_at);
        let members = self
            .fleet
            .devices()
            .values()
            .filter(|d| d.revoked_by.is_none());
        let selected = members.filter(|d| entry.deployment.selector.matches(&d.labels));
        let (mut devices_selected, mut devices_serving) = (0, 0);
        for device in selected {
            devices_selected += 1;
            let statuses = device.observation.iter().flat_map(|o| &o.models);
            let mut ours = statuses.filter(|s| s.deployment == *name);
            devices_serving += u64::from(ours.any(|s| s.serving.is_some()));
        }
        Some(DeploymentDoc {
            deployment: entry.deployment.clone(),
            version: entry.version.clone(),
            rollout: newest.map(|r| r.plan.name.clone()),
            devices_selected,
            devices_serving,
        })
    }

    /// Why a device would run which variant, as JSON of [`ExplainDoc`]. Without a version, the
    /// one the device is assigned, or else the newest.
    ///
    /// # Errors
    /// [`Refused::NotFound`], or [`Refused::Conflict`] when the device has not reported.
    pub fn explain(
        &self,
        device: &DeviceName,
        model: &ModelName,
        version: Option<VersionName>,
    ) -> Result<Vec<u8>, FleetError> {
        let record = self.fleet.device(device)?;
        let version = version.or_else(|| Some(record.models.get(model)?.version.clone()));
        let published = match version {
            Some(version) => self.fleet.versions().get(&(model.clone(), version)),
            None => self.fleet.newest(model),
        };
        let published = published.ok_or_else(|| Refused::not_found("version of model", model))?;
        let deployment = self.fleet.deployments().values().find(|d| {
            d.deployment.model == *model && d.deployment.selector.matches(&record.labels)
        });
        let policy = deployment.map_or_else(Policy::default, |d| d.deployment.policy.clone());
        let selection = self
            .fleet
            .selection(device, published, &policy)
            .ok_or_else(|| {
                Refused::Conflict(format!("device {device} has not reported what it is yet"))
            })?;
        let statuses = record.observation.iter().flat_map(|o| &o.models);
        let current = statuses
            .filter(|s| s.model == *model)
            .find_map(|s| s.serving.clone());
        let open = self.fleet.rollouts().values();
        let mut open = open.filter(|r| r.plan.model == *model && !r.state.is_final());
        let moving = open.find_map(|rollout| InRolloutDoc::of(rollout, device));
        Ok(serde_json::to_vec(&ExplainDoc {
            selection,
            policy,
            current,
            moving,
        })?)
    }
}

/// Whether a token still lets somebody in, or tells who came in with it.
fn is_open(token: &TokenRecord, now: Millis) -> bool {
    !token.revoked && (token.used_by.is_some() || token.expires_at > now)
}

fn token_doc(token: &TokenRecord) -> JoinTokenDoc {
    JoinTokenDoc {
        id: token.id.clone(),
        description: token.description.clone(),
        labels: token.labels.clone(),
        created_by: token.created_by.clone(),
        created_at: token.created_at,
        expires_at: token.expires_at,
        used_by: token.used_by.as_ref().map(ToString::to_string),
    }
}
