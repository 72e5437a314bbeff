//! Everything the controller knows.

use super::devices::Live;
use super::enrol::Refusals;
use super::outbox::Outbox;
use super::record::{DeploymentRecord, DeviceRecord, LearnedRows, TokenRecord, learned_map};
use super::{FleetError, journal, keys, rollout_record};
use crate::catalogue::Published;
use crate::store::{Store, StoreError};
use sandpiper_core::event::{Event, Severity};
use sandpiper_core::learning::LearnedMap;
use sandpiper_core::names::{DeploymentName, DeviceName, ModelName, RolloutName, VersionName};
use sandpiper_core::rollout::Rollout;
use sandpiper_core::time::Millis;
use sandpiper_proto::convert::ResourceKind;
use sandpiper_transport::pki::Ca;
use sandpiper_transport::signing::{SigningKey, VerifyingKeys};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Events kept. At one a second that is three hours; rollouts keep their own history.
pub(super) const MAX_EVENTS: usize = 10_000;

/// The keys that the controller acts with.
#[derive(Debug)]
pub struct Authority {
    /// Issues certificates.
    pub ca: Ca,
    /// Signs assignments.
    pub assignment: SigningKey,
    /// Whose versions are genuine.
    pub publishers: VerifyingKeys,
}

/// Why the state cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The store fails.
    #[error("the store cannot be read")]
    Store(#[from] StoreError),
    /// A record is not what it should be.
    #[error("the record `{key}` of the store is damaged: restore the data directory from a backup")]
    Record {
        /// Its key.
        key: String,
        /// What the parser says.
        source: serde_json::Error,
    },
}

/// All state. Its methods queue effects in an outbox and never block.
pub struct State {
    pub(super) authority: Arc<Authority>,
    pub(super) devices: BTreeMap<DeviceName, DeviceRecord>,
    pub(super) learned: BTreeMap<DeviceName, LearnedMap>,
    pub(super) deployments: BTreeMap<DeploymentName, DeploymentRecord>,
    pub(super) rollouts: BTreeMap<RolloutName, Rollout>,
    pub(super) tokens: BTreeMap<String, TokenRecord>,
    pub(super) versions: BTreeMap<(ModelName, VersionName), Published>,
    pub(super) events: VecDeque<(u64, Event)>,
    pub(super) live: BTreeMap<DeviceName, Live>,
    pub(super) next_stream: u64,
    pub(super) refusals: Refusals,
    pub(super) out: Outbox,
}

fn load<T: DeserializeOwned>(
    store: &dyn Store,
    prefix: &[u8],
) -> Result<Vec<(Vec<u8>, T)>, LoadError> {
    let rows = store.range(prefix)?;
    rows.into_iter()
        .map(|(key, value)| match serde_json::from_slice(&value) {
            Ok(value) => Ok((key, value)),
            Err(source) => {
                let key = String::from_utf8_lossy(&key).into_owned();
                Err(LoadError::Record { key, source })
            }
        })
        .collect()
}

impl State {
    /// Reads everything from the store.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load(store: &dyn Store, authority: Arc<Authority>) -> Result<Self, LoadError> {
        journal::recover(store)?;
        let devices = load::<DeviceRecord>(store, keys::DEVICES)?;
        let deployments = load::<DeploymentRecord>(store, keys::DEPLOYMENTS)?;
        let rollouts = rollout_record::assemble(
            load(store, keys::ROLLOUTS)?,
            load(store, keys::PLANNED)?,
            load(store, keys::PROGRESS)?,
        );
        let tokens = load::<TokenRecord>(store, keys::TOKENS)?;
        let versions = load::<Published>(store, keys::VERSIONS)?;
        let events = load::<Event>(store, keys::EVENTS)?;
        let learned = load::<LearnedRows>(store, keys::LEARNED)?;
        let learned = learned.into_iter().filter_map(|(key, rows)| {
            let name = std::str::from_utf8(key.strip_prefix(keys::LEARNED)?).ok()?;
            Some((DeviceName::new(name).ok()?, learned_map(rows)))
        });
        let events = events.into_iter().filter_map(|(key, event)| {
            let number = key.strip_prefix(keys::EVENTS)?.try_into().ok()?;
            Some((u64::from_be_bytes(number), event))
        });
        Ok(Self {
            authority,
            learned: learned.collect(),
            events: events.collect(),
            devices: devices
                .into_iter()
                .map(|(_, d)| (d.name.clone(), d))
                .collect(),
            deployments: deployments
                .into_iter()
                .map(|(_, d)| (d.deployment.name.clone(), d))
                .collect(),
            rollouts,
            tokens: tokens.into_iter().map(|(_, t)| (t.id.clone(), t)).collect(),
            versions: versions
                .into_iter()
                .map(|(_, p)| ((p.manifest.model.clone(), p.manifest.version.clone()), p))
                .collect(),
            live: BTreeMap::new(),
            next_stream: 0,
            refusals: Refusals::default(),
            out: Outbox::default(),
        })
    }

    /// Records an event; the oldest makes room.
    pub(super) fn note(&mut self, event: Event) {
        tracing::info!(
            subject = event.subject,
            reason = event.reason,
            "{}",
            event.message
        );
        let number = self.events.back().map_or(0, |(n, _)| n + 1);
        if self.events.len() >= MAX_EVENTS
            && let Some((old, _)) = self.events.pop_front()
        {
            self.out.delete(keys::event(old));
        }
        self.out.keep(keys::event(number), &event);
        self.out.changed(ResourceKind::Events, number);
        self.events.push_back((number, event));
    }

    pub(super) fn tell(
        &mut self,
        now: Millis,
        severity: Severity,
        subject: String,
        actor: &str,
        reason: &str,
        message: String,
    ) {
        let (actor, reason) = (actor.to_owned(), reason.to_owned());
        self.note(Event {
            at: now,
            severity,
            subject,
            actor,
            reason,
            message,
        });
    }

    pub(super) fn keep_device(&mut self, name: &DeviceName) {
        if let Some(record) = self.devices.get(name) {
            self.out.keep(keys::device(name), record);
            self.out.changed(ResourceKind::Devices, name);
        }
    }

    pub(super) fn device(&self, name: &DeviceName) -> Result<&DeviceRecord, FleetError> {
        self.devices
            .get(name)
            .ok_or_else(|| FleetError::not_found("device", name))
    }

    /// Takes a version that was admitted to the catalogue.
    ///
    /// # Errors
    /// [`FleetError::Conflict`] when the version exists with another content.
    pub fn publish(
        &mut self,
        now: Millis,
        actor: &str,
        published: Published,
    ) -> Result<(), FleetError> {
        let key = (
            published.manifest.model.clone(),
            published.manifest.version.clone(),
        );
        let (model, version) = &key;
        if let Some(old) = self.versions.get(&key) {
            return if old.signed.payload == published.signed.payload {
                Ok(())
            } else {
                let text = format!("{model} {version} is published already: versions never change");
                Err(FleetError::Conflict(text))
            };
        }
        self.out.keep(keys::version(model, version), &published);
        self.out.changed(ResourceKind::Models, model);
        for variant in &published.manifest.variants {
            self.out.changed(
                ResourceKind::Variants,
                format_args!("{model}/{version}/{}", variant.name),
            );
        }
        let text = format!(
            "version {version} with {} variants",
            published.manifest.variants.len()
        );
        self.tell(
            now,
            Severity::Info,
            format!("model/{model}"),
            actor,
            "Published",
            text,
        );
        self.versions.insert(key, published);
        Ok(())
    }

    /// The newest published version of a model.
    pub(super) fn newest(&self, model: &ModelName) -> Option<&Published> {
        let of_model = self
            .versions
            .values()
            .filter(|p| p.manifest.model == *model);
        of_model.max_by_key(|p| p.manifest.published_at)
    }
}
