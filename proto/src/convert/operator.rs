//! What operators and publishers say to the controller.

use super::{ConvertError, at_most, from_json, labels, name, present, to_json};
use crate::{limits, v1};
use prost::bytes::Bytes;
use sandpiper_core::digest::ArtefactRef;
use sandpiper_core::fleet::OrderedDevices;
use sandpiper_core::names::RolloutName;
use sandpiper_core::policy::{Labels, Selector};
use sandpiper_core::update::AgentVersion;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;

pub use sandpiper_core::rollout::SteerVerb;
pub use sandpiper_core::view::Kind as ResourceKind;

/// A kind on the wire: exactly its name.
fn kind(text: &str) -> Result<ResourceKind, ConvertError> {
    if text.is_empty() {
        return Err(ConvertError::Missing("kind"));
    }
    let mut all = ResourceKind::ALL.into_iter();
    let found = all.find(|kind| kind.name() == text);
    let value = || text.chars().take(80).collect();
    found.ok_or_else(|| ConvertError::Unknown {
        field: "kind",
        value: value(),
    })
}

/// What to list or watch.
#[derive(Debug, Clone, PartialEq)]
pub struct ListQuery {
    /// Of this kind.
    pub kind: ResourceKind,
    /// Only this one.
    pub name: Option<String>,
    /// Only with these labels.
    pub selector: Option<Selector>,
}

impl From<ListQuery> for v1::ListRequest {
    fn from(query: ListQuery) -> Self {
        Self {
            kind: query.kind.to_string(),
            name: query.name.unwrap_or_default(),
            selector: query.selector.map(String::from).unwrap_or_default(),
        }
    }
}

impl TryFrom<v1::ListRequest> for ListQuery {
    type Error = ConvertError;
    fn try_from(wire: v1::ListRequest) -> Result<Self, ConvertError> {
        at_most("name", wire.name.len(), limits::MAX_TEXT_BYTES)?;
        at_most("selector", wire.selector.len(), limits::MAX_TEXT_BYTES)?;
        let selector = match wire.selector.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|source| ConvertError::Label {
                field: "selector",
                source,
            })?),
        };
        Ok(Self {
            kind: kind(&wire.kind)?,
            name: (!wire.name.is_empty()).then_some(wire.name),
            selector,
        })
    }
}

impl v1::Document {
    /// The document of a value.
    ///
    /// # Errors
    /// [`ConvertError::Json`] when the value has no JSON form.
    pub fn of<T: Serialize>(value: &T) -> Result<Self, ConvertError> {
        Ok(Self {
            json: to_json("json", value)?,
        })
    }

    /// The value of a document.
    ///
    /// # Errors
    /// [`ConvertError`] when it is missing or not the JSON of this type.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ConvertError> {
        from_json("json", &self.json)
    }
}

impl v1::Resource {
    /// The resource that shows a value.
    ///
    /// # Errors
    /// [`ConvertError::Json`] when the value has no JSON form.
    pub fn of<T: Serialize>(
        kind: ResourceKind,
        name: &str,
        value: &T,
    ) -> Result<Self, ConvertError> {
        let json = to_json("resource.json", value)?;
        Ok(Self {
            kind: kind.to_string(),
            name: name.to_owned(),
            json,
        })
    }

    /// The value it shows.
    ///
    /// # Errors
    /// [`ConvertError`] when it is missing or not the JSON of this type.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, ConvertError> {
        from_json("resource.json", &self.json)
    }
}

/// An event of a watch.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Part of the initial state.
    Current(v1::Resource),
    /// The initial state is complete.
    Synced,
    /// New or changed.
    Updated(v1::Resource),
    /// Gone; the document is the last one known.
    Deleted(v1::Resource),
}

impl From<Change> for v1::ResourceEvent {
    fn from(change: Change) -> Self {
        use v1::resource_event::Change as Wire;
        let (change, resource) = match change {
            Change::Current(resource) => (Wire::Current, Some(resource)),
            Change::Synced => (Wire::Synced, None),
            Change::Updated(resource) => (Wire::Updated, Some(resource)),
            Change::Deleted(resource) => (Wire::Deleted, Some(resource)),
        };
        Self {
            change: change.into(),
            resource,
        }
    }
}

impl TryFrom<v1::ResourceEvent> for Change {
    type Error = ConvertError;
    fn try_from(wire: v1::ResourceEvent) -> Result<Self, ConvertError> {
        use v1::resource_event::Change as Wire;
        let resource = || present("resource", wire.resource.clone());
        match Wire::try_from(wire.change) {
            Ok(Wire::Current) => Ok(Self::Current(resource()?)),
            Ok(Wire::Synced) => Ok(Self::Synced),
            Ok(Wire::Updated) => Ok(Self::Updated(resource()?)),
            Ok(Wire::Deleted) => Ok(Self::Deleted(resource()?)),
            Ok(Wire::Unspecified) => Err(ConvertError::Missing("change")),
            Err(_) => {
                let value = wire.change.to_string();
                Err(ConvertError::Unknown {
                    field: "change",
                    value,
                })
            }
        }
    }
}

/// An operator asks for a join token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinTokenRequest {
    /// How long it is good.
    pub ttl: Duration,
    /// Labels of the device that uses it.
    pub labels: Labels,
    /// For people.
    pub description: String,
}

impl From<JoinTokenRequest> for v1::CreateJoinTokenRequest {
    fn from(request: JoinTokenRequest) -> Self {
        Self {
            ttl_s: request.ttl.as_secs(),
            labels: request.labels,
            description: request.description,
        }
    }
}

impl TryFrom<v1::CreateJoinTokenRequest> for JoinTokenRequest {
    type Error = ConvertError;
    fn try_from(wire: v1::CreateJoinTokenRequest) -> Result<Self, ConvertError> {
        if wire.ttl_s == 0 {
            return Err(ConvertError::Missing("ttl_s"));
        }
        at_most(
            "description",
            wire.description.len(),
            limits::MAX_TEXT_BYTES,
        )?;
        Ok(Self {
            ttl: Duration::from_secs(wire.ttl_s),
            labels: labels("labels", wire.labels)?,
            description: wire.description,
        })
    }
}

/// An operator wants devices to run a release of the agent.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentOrders {
    /// The release; the program that is installed on the device when missing.
    pub version: Option<AgentVersion>,
    /// Which devices.
    pub devices: OrderedDevices,
}

impl From<AgentOrders> for v1::OrderAgentsRequest {
    fn from(orders: AgentOrders) -> Self {
        let (device, selector) = match orders.devices {
            OrderedDevices::One(name) => (name.into(), String::new()),
            OrderedDevices::Matching(selector) => (String::new(), selector.into()),
        };
        Self {
            version: orders.version.map(String::from).unwrap_or_default(),
            device,
            selector,
        }
    }
}

impl TryFrom<v1::OrderAgentsRequest> for AgentOrders {
    type Error = ConvertError;
    fn try_from(wire: v1::OrderAgentsRequest) -> Result<Self, ConvertError> {
        at_most("selector", wire.selector.len(), limits::MAX_TEXT_BYTES)?;
        let version = match wire.version.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| ConvertError::Unknown {
                field: "version",
                value: text.chars().take(80).collect(),
            })?),
        };
        let devices = match (wire.device.is_empty(), wire.selector.is_empty()) {
            (false, true) => OrderedDevices::One(name("device", wire.device)?),
            // An empty selector would mean all devices, which nobody asks for by forgetting it.
            (true, true) => return Err(ConvertError::Missing("device")),
            (false, false) => return Err(ConvertError::Contradiction("device", "selector")),
            (true, false) => {
                let parsed = wire.selector.parse();
                OrderedDevices::Matching(parsed.map_err(|source| ConvertError::Label {
                    field: "selector",
                    source,
                })?)
            }
        };
        Ok(Self { version, devices })
    }
}

/// A part of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UploadPart {
    /// What follows.
    Artefact(ArtefactRef),
    /// The next bytes.
    Data(Bytes),
}

impl From<UploadPart> for v1::UploadChunk {
    fn from(part: UploadPart) -> Self {
        use v1::upload_chunk::Part;
        let part = match part {
            UploadPart::Artefact(artefact) => Part::Artefact(artefact.into()),
            UploadPart::Data(bytes) => Part::Data(bytes),
        };
        Self { part: Some(part) }
    }
}

impl TryFrom<v1::UploadChunk> for UploadPart {
    type Error = ConvertError;
    fn try_from(wire: v1::UploadChunk) -> Result<Self, ConvertError> {
        use v1::upload_chunk::Part;
        match present("part", wire.part)? {
            Part::Artefact(artefact) => Ok(Self::Artefact(artefact.try_into()?)),
            Part::Data(bytes) => {
                at_most("data", bytes.len(), limits::MAX_UPLOAD_DATA_BYTES)?;
                Ok(Self::Data(bytes))
            }
        }
    }
}

impl v1::SteerRequest {
    /// The request for a rollout.
    pub fn of(name: &RolloutName, verb: SteerVerb) -> Self {
        use v1::steer_request::Verb;
        let (mut full, mut to, mut because) = (false, String::new(), String::new());
        let verb = match verb {
            SteerVerb::Pause => Verb::Pause,
            SteerVerb::Resume => Verb::Resume,
            SteerVerb::Approve { why } => {
                because = why.unwrap_or_default();
                Verb::Approve
            }
            SteerVerb::Promote { full: all } => {
                full = all;
                Verb::Promote
            }
            SteerVerb::Abort => Verb::Abort,
            SteerVerb::Retry => Verb::Retry,
            SteerVerb::Undo { to: version } => {
                to = version.map(String::from).unwrap_or_default();
                Verb::Undo
            }
        };
        Self {
            name: name.to_string(),
            verb: verb.into(),
            full,
            to,
            why: because,
        }
    }

    /// Which rollout, and what to do with it.
    ///
    /// # Errors
    /// [`ConvertError`] naming the field that is missing or wrong.
    pub fn checked(self) -> Result<(RolloutName, SteerVerb), ConvertError> {
        use v1::steer_request::Verb;
        at_most("why", self.why.len(), limits::MAX_TEXT_BYTES)?;
        let verb = match Verb::try_from(self.verb) {
            Ok(Verb::Pause) => SteerVerb::Pause,
            Ok(Verb::Resume) => SteerVerb::Resume,
            Ok(Verb::Approve) => SteerVerb::Approve {
                why: (!self.why.is_empty()).then_some(self.why),
            },
            Ok(Verb::Promote) => SteerVerb::Promote { full: self.full },
            Ok(Verb::Abort) => SteerVerb::Abort,
            Ok(Verb::Retry) => SteerVerb::Retry,
            Ok(Verb::Undo) => SteerVerb::Undo {
                to: match self.to.is_empty() {
                    true => None,
                    false => Some(name("to", self.to)?),
                },
            },
            Ok(Verb::Unspecified) => return Err(ConvertError::Missing("verb")),
            Err(_) => {
                let value = self.verb.to_string();
                return Err(ConvertError::Unknown {
                    field: "verb",
                    value,
                });
            }
        };
        Ok((name("name", self.name)?, verb))
    }
}
