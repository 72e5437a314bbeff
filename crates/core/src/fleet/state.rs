//! Everything that is known, and how it is loaded.

use super::clones::Starts;
use super::devices::{Live, StreamId};
use super::leader::Term;
use super::outbox::Outbox;
use super::record::{DeploymentRecord, DeviceRecord, Published, PublishedAgent, Rows, from_rows};
use super::{Refused, keys, rollout_record};
use crate::event::{Event, Severity};
use crate::learning::LearnedMap;
use crate::mutants::{self, Mutant};
use crate::names::{DeploymentName, DeviceName, ModelName, RolloutName, VersionName};
use crate::rollout::Rollout;
use crate::rungs::RungMap;
use crate::time::Millis;
use crate::update::AgentVersion;
use crate::view::Kind;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, VecDeque};

/// Events kept. At one a second that is three hours; rollouts keep their own history.
const MAX_EVENTS: usize = 10_000;

/// Why the fleet cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError<E: std::error::Error + 'static> {
    /// The store fails.
    #[error("the store cannot be read")]
    Store(#[source] E),
    /// A record is not what it should be.
    #[error("the record `{key}` of the store is damaged: restore the data directory from a backup")]
    Record {
        /// Its key.
        key: String,
        /// What the parser says.
        source: serde_json::Error,
    },
}

/// A key of the store with its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// Everything that is known of the fleet, and every decision about it. Its methods queue effects
/// in an outbox and never block; the driver takes the outbox after every job.
#[derive(Debug, Default, Clone)]
pub struct Fleet {
    pub(super) devices: BTreeMap<DeviceName, DeviceRecord>,
    pub(super) learned: BTreeMap<DeviceName, LearnedMap>,
    pub(super) rungs: BTreeMap<DeviceName, RungMap>,
    pub(super) deployments: BTreeMap<DeploymentName, DeploymentRecord>,
    pub(super) rollouts: BTreeMap<RolloutName, Rollout>,
    pub(super) versions: BTreeMap<(ModelName, VersionName), Published>,
    pub(super) agents: BTreeMap<AgentVersion, PublishedAgent>,
    pub(super) events: VecDeque<(u64, Event)>,
    pub(super) live: BTreeMap<DeviceName, Live>,
    pub(super) starts: BTreeMap<DeviceName, Starts>,
    pub(super) term: Option<Term>,
    pub(super) next_stream: u64,
    pub(super) out: Outbox,
}

/// Reads the records under a prefix, of which the driver gives the rows in the order of their keys.
fn load<T: DeserializeOwned, E: std::error::Error>(
    range: &mut impl FnMut(&[u8]) -> Result<Vec<Row>, E>,
    prefix: &[u8],
) -> Result<Vec<(Vec<u8>, T)>, LoadError<E>> {
    let rows = range(prefix).map_err(LoadError::Store)?;
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

/// What windows taught, by device and by version and variant or rung `K`.
type Taught<K, T> = BTreeMap<DeviceName, BTreeMap<(ModelName, VersionName, K), T>>;

fn load_taught<K: DeserializeOwned + Ord, T: DeserializeOwned, E: std::error::Error>(
    range: &mut impl FnMut(&[u8]) -> Result<Vec<Row>, E>,
    prefix: &[u8],
) -> Result<Taught<K, T>, LoadError<E>> {
    let all = load::<Rows<K, T>, E>(range, prefix)?.into_iter();
    let all = all.filter_map(|(key, rows)| {
        let name = std::str::from_utf8(key.strip_prefix(prefix)?).ok()?;
        Some((DeviceName::new(name).ok()?, from_rows(rows)))
    });
    Ok(all.collect())
}

impl Fleet {
    /// Reads everything from a store, of which `range` gives all rows under a prefix by key.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load<E: std::error::Error>(
        mut range: impl FnMut(&[u8]) -> Result<Vec<Row>, E>,
    ) -> Result<Self, LoadError<E>> {
        let range = &mut range;
        let devices = load::<DeviceRecord, E>(range, keys::DEVICES)?;
        let deployments = load::<DeploymentRecord, E>(range, keys::DEPLOYMENTS)?;
        let rollouts = rollout_record::assemble(
            load(range, keys::ROLLOUTS)?,
            load(range, keys::PLANNED)?,
            load(range, keys::PROGRESS)?,
            load(range, keys::MEASURED)?,
        );
        let versions = load::<Published, E>(range, keys::VERSIONS)?;
        let agents = load::<PublishedAgent, E>(range, keys::AGENTS)?;
        let events = load::<Event, E>(range, keys::EVENTS)?;
        let learned = load_taught(range, keys::LEARNED)?;
        let rungs = load_taught(range, keys::RUNGS)?;
        let events = events.into_iter().filter_map(|(key, event)| {
            let number = key.strip_prefix(keys::EVENTS)?.try_into().ok()?;
            Some((u64::from_be_bytes(number), event))
        });
        Ok(Self {
            learned,
            rungs,
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
            versions: versions
                .into_iter()
                .map(|(_, p)| ((p.manifest.model.clone(), p.manifest.version.clone()), p))
                .collect(),
            agents: agents
                .into_iter()
                .map(|(_, a)| (a.release.version.clone(), a))
                .collect(),
            ..Self::default()
        })
    }

    /// Devices by name.
    pub fn devices(&self) -> &BTreeMap<DeviceName, DeviceRecord> {
        &self.devices
    }

    /// What was learned, by device.
    pub fn learned(&self) -> &BTreeMap<DeviceName, LearnedMap> {
        &self.learned
    }

    /// What devices measured on each rung of their ladders.
    pub fn rungs(&self) -> &BTreeMap<DeviceName, RungMap> {
        &self.rungs
    }

    /// Deployments by name.
    pub fn deployments(&self) -> &BTreeMap<DeploymentName, DeploymentRecord> {
        &self.deployments
    }

    /// Rollouts by name.
    pub fn rollouts(&self) -> &BTreeMap<RolloutName, Rollout> {
        &self.rollouts
    }

    /// Published versions.
    pub fn versions(&self) -> &BTreeMap<(ModelName, VersionName), Published> {
        &self.versions
    }

    /// Events with their numbers, oldest first.
    pub fn events(&self) -> &VecDeque<(u64, Event)> {
        &self.events
    }

    /// The open stream of a device.
    pub fn stream(&self, device: &DeviceName) -> Option<StreamId> {
        self.live.get(device).map(|live| live.id)
    }

    /// Where the driver queues what it keeps besides.
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.out
    }

    /// It acts in this term from now on: what it writes counts only while the store holds it.
    pub fn lead(&mut self, term: Term) {
        self.term = Some(term);
    }

    /// Everything that is to be done now.
    pub fn take_outbox(&mut self) -> Outbox {
        let mut out = std::mem::take(&mut self.out);
        let fenced = !mutants::is(Mutant::ForgetFence);
        out.expect = self.term.filter(|_| fenced).map(Term::row);
        out
    }

    /// Records an event; the oldest makes room.
    pub(super) fn note(&mut self, event: Event) {
        let number = self.events.back().map_or(0, |(n, _)| n + 1);
        if self.events.len() >= MAX_EVENTS
            && let Some((old, _)) = self.events.pop_front()
        {
            self.out.delete(keys::event(old));
        }
        self.out.keep(keys::event(number), &event);
        self.out.changed(Kind::Events, number);
        self.out.noted.push(event.clone());
        self.events.push_back((number, event));
    }

    /// Records an event of these parts.
    pub fn tell(
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
            self.out.changed(Kind::Devices, name);
        }
    }

    /// The record of a device.
    ///
    /// # Errors
    /// [`Refused::NotFound`].
    pub fn device(&self, name: &DeviceName) -> Result<&DeviceRecord, Refused> {
        self.devices
            .get(name)
            .ok_or_else(|| Refused::not_found("device", name))
    }

    /// Takes a version that was admitted to the catalogue.
    ///
    /// # Errors
    /// [`Refused::Conflict`] when the version exists with another content.
    pub fn publish(
        &mut self,
        now: Millis,
        actor: &str,
        published: Published,
    ) -> Result<(), Refused> {
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
                Err(Refused::Conflict(text))
            };
        }
        self.out.keep(keys::version(model, version), &published);
        self.out.changed(Kind::Models, model);
        for variant in &published.manifest.variants {
            self.out.changed(
                Kind::Variants,
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
    pub fn newest(&self, model: &ModelName) -> Option<&Published> {
        let of_model = self
            .versions
            .values()
            .filter(|p| p.manifest.model == *model);
        of_model.max_by_key(|p| p.manifest.published_at)
    }
}
