//! What devices and the controller say to each other.

use super::{ConvertError, at_most, fixed, from_json, labels, name, present, text, to_json};
use crate::{limits, v1};
use prost::bytes::Bytes;
use sandpiper_core::assignment::{AssignmentBundle, Generation};
use sandpiper_core::chunks::{CHUNK_BYTES, chunk_count};
use sandpiper_core::digest::ArtefactRef;
use sandpiper_core::names::{DeviceName, FleetName};
use sandpiper_core::policy::Labels;
use sandpiper_core::signed::Signed;
pub use sandpiper_core::telemetry::Hello;
use sandpiper_core::telemetry::{Observation, TelemetryWindow};
use sandpiper_core::time::Millis;

/// A device asks for its first identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolRequest {
    /// The secret of the join token.
    pub token: String,
    /// The name it wishes.
    pub name: DeviceName,
    /// PKCS#10 request. Its signature is not yet checked.
    pub csr_der: Vec<u8>,
    /// Labels the device brings.
    pub labels: Labels,
}

/// What a device holds after enrolment or renewal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Certificates, the device's own first, DER.
    pub chain_der: Vec<Vec<u8>>,
    /// Ed25519 public key that signs assignments.
    pub assignment_key: [u8; 32],
    /// Ed25519 public keys that sign versions.
    pub publisher_keys: Vec<[u8; 32]>,
}

/// A message of a device.
#[derive(Debug, Clone, PartialEq)]
pub enum FromDevice {
    /// Always the first.
    Hello(Box<Hello>),
    /// On every change.
    Observation(Box<Observation>),
    /// Windows in order.
    Telemetry(Vec<TelemetryWindow>),
}

/// A message of the controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromController {
    /// A new desired state, signatures unchecked.
    Assignment(Box<AssignmentBundle>),
    /// Windows of this installation up to the sequence are stored.
    TelemetryAck {
        /// The installation.
        boot: u64,
        /// The last sequence stored.
        sequence: u64,
    },
    /// What time it is by the controller's clock.
    Clock(Millis),
    /// The stream ends here.
    Disconnect {
        /// For people.
        reason: String,
        /// Whether to come back.
        retry: bool,
    },
}

/// A device asks for bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchRequest {
    /// Of this artefact.
    pub artefact: ArtefactRef,
    /// From this chunk on; at most the number of chunks.
    pub first_chunk: u64,
}

/// A part of a fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchPart {
    /// Chaining values, not yet checked against the digest.
    Tree(Vec<[u8; 32]>),
    /// The next chunk, not yet checked.
    Chunk(Bytes),
    /// Others have their turn; the next part comes later.
    Wait,
}

impl From<EnrolRequest> for v1::EnrolRequest {
    fn from(request: EnrolRequest) -> Self {
        Self {
            token: request.token,
            name: request.name.into(),
            csr_der: request.csr_der,
            labels: request.labels,
        }
    }
}

fn csr(csr_der: Vec<u8>) -> Result<Vec<u8>, ConvertError> {
    if csr_der.is_empty() {
        return Err(ConvertError::Missing("csr_der"));
    }
    at_most("csr_der", csr_der.len(), limits::MAX_CSR_BYTES)?;
    Ok(csr_der)
}

impl TryFrom<v1::EnrolRequest> for EnrolRequest {
    type Error = ConvertError;
    fn try_from(wire: v1::EnrolRequest) -> Result<Self, ConvertError> {
        Ok(Self {
            token: text("token", wire.token)?,
            name: name("name", wire.name)?,
            csr_der: csr(wire.csr_der)?,
            labels: labels("labels", wire.labels)?,
        })
    }
}

impl v1::RenewRequest {
    /// The certificate request, bounded in size and not empty.
    ///
    /// # Errors
    /// [`ConvertError`] when it is missing or too large.
    pub fn checked(self) -> Result<Vec<u8>, ConvertError> {
        csr(self.csr_der)
    }
}

fn credentials(
    chain_der: Vec<Vec<u8>>,
    assignment_key: &[u8],
    publisher_keys: &[Vec<u8>],
) -> Result<Credentials, ConvertError> {
    if chain_der.is_empty() || chain_der.iter().any(Vec::is_empty) {
        return Err(ConvertError::Missing("certificate_chain_der"));
    }
    at_most("certificate_chain_der", chain_der.len(), limits::MAX_CHAIN)?;
    at_most(
        "publisher_keys",
        publisher_keys.len(),
        limits::MAX_PUBLISHER_KEYS,
    )?;
    let publisher_keys = publisher_keys
        .iter()
        .map(|key| fixed("publisher_keys", key));
    Ok(Credentials {
        chain_der,
        assignment_key: fixed("assignment_key", assignment_key)?,
        publisher_keys: publisher_keys.collect::<Result<_, _>>()?,
    })
}

impl Credentials {
    /// The answer to an enrolment.
    pub fn into_enrol_response(self, fleet: FleetName, name: DeviceName) -> v1::EnrolResponse {
        let renewal = v1::RenewResponse::from(self);
        v1::EnrolResponse {
            fleet: fleet.into(),
            name: name.into(),
            certificate_chain_der: renewal.certificate_chain_der,
            assignment_key: renewal.assignment_key,
            publisher_keys: renewal.publisher_keys,
        }
    }
}

impl v1::EnrolResponse {
    /// Fleet, the name that was given (not always the one wished) and the credentials.
    ///
    /// # Errors
    /// [`ConvertError`] naming the field that is missing or wrong.
    pub fn checked(self) -> Result<(FleetName, DeviceName, Credentials), ConvertError> {
        let credentials = credentials(
            self.certificate_chain_der,
            &self.assignment_key,
            &self.publisher_keys,
        )?;
        Ok((
            name("fleet", self.fleet)?,
            name("name", self.name)?,
            credentials,
        ))
    }
}

impl From<Credentials> for v1::RenewResponse {
    fn from(credentials: Credentials) -> Self {
        Self {
            certificate_chain_der: credentials.chain_der,
            assignment_key: credentials.assignment_key.to_vec(),
            publisher_keys: credentials
                .publisher_keys
                .iter()
                .map(|key| key.to_vec())
                .collect(),
        }
    }
}

impl TryFrom<v1::RenewResponse> for Credentials {
    type Error = ConvertError;
    fn try_from(wire: v1::RenewResponse) -> Result<Self, ConvertError> {
        credentials(
            wire.certificate_chain_der,
            &wire.assignment_key,
            &wire.publisher_keys,
        )
    }
}

impl TryFrom<Observation> for v1::Observation {
    type Error = ConvertError;
    fn try_from(observation: Observation) -> Result<Self, ConvertError> {
        Ok(Self {
            generation: observation.generation.0,
            observation_json: to_json("observation_json", &observation)?,
        })
    }
}

impl TryFrom<v1::Observation> for Observation {
    type Error = ConvertError;
    fn try_from(wire: v1::Observation) -> Result<Self, ConvertError> {
        let observation: Self = from_json("observation_json", &wire.observation_json)?;
        if observation.generation != Generation(wire.generation) {
            return Err(ConvertError::Contradiction(
                "generation",
                "observation_json",
            ));
        }
        at_most(
            "observation_json.models",
            observation.models.len(),
            limits::MAX_MODELS_PER_DEVICE,
        )?;
        Ok(observation)
    }
}

impl TryFrom<Hello> for v1::Hello {
    type Error = ConvertError;
    fn try_from(hello: Hello) -> Result<Self, ConvertError> {
        Ok(Self {
            boot_id: hello.boot_id,
            profile_json: to_json("profile_json", &hello.profile)?,
            observation: Some(hello.observation.try_into()?),
        })
    }
}

impl TryFrom<v1::Hello> for Hello {
    type Error = ConvertError;
    fn try_from(wire: v1::Hello) -> Result<Self, ConvertError> {
        Ok(Self {
            boot_id: wire.boot_id,
            profile: from_json("profile_json", &wire.profile_json)?,
            observation: present("observation", wire.observation)?.try_into()?,
        })
    }
}

fn windows(wire: &v1::TelemetryBatch) -> Result<Vec<TelemetryWindow>, ConvertError> {
    at_most(
        "window_json",
        wire.window_json.len(),
        limits::MAX_WINDOWS_PER_BATCH,
    )?;
    wire.window_json
        .iter()
        .map(|json| from_json("window_json", json))
        .collect()
}

impl TryFrom<FromDevice> for v1::DeviceMessage {
    type Error = ConvertError;
    fn try_from(message: FromDevice) -> Result<Self, ConvertError> {
        use v1::device_message::Message;
        let message = match message {
            FromDevice::Hello(hello) => Message::Hello((*hello).try_into()?),
            FromDevice::Observation(observation) => {
                Message::Observation((*observation).try_into()?)
            }
            FromDevice::Telemetry(windows) => {
                let json = windows.iter().map(|window| to_json("window_json", window));
                let window_json = json.collect::<Result<_, _>>()?;
                Message::Telemetry(v1::TelemetryBatch { window_json })
            }
        };
        Ok(Self {
            message: Some(message),
        })
    }
}

impl TryFrom<v1::DeviceMessage> for FromDevice {
    type Error = ConvertError;
    fn try_from(wire: v1::DeviceMessage) -> Result<Self, ConvertError> {
        use v1::device_message::Message;
        Ok(match present("message", wire.message)? {
            Message::Hello(hello) => Self::Hello(Box::new(hello.try_into()?)),
            Message::Observation(observation) => {
                Self::Observation(Box::new(observation.try_into()?))
            }
            Message::Telemetry(batch) => Self::Telemetry(windows(&batch)?),
        })
    }
}

impl From<AssignmentBundle> for v1::AssignmentBundle {
    fn from(bundle: AssignmentBundle) -> Self {
        Self {
            assignment: Some(bundle.assignment.into()),
            versions: bundle.versions.into_iter().map(Into::into).collect(),
            agent: bundle.agent.map(Into::into),
        }
    }
}

impl TryFrom<v1::AssignmentBundle> for AssignmentBundle {
    type Error = ConvertError;
    fn try_from(wire: v1::AssignmentBundle) -> Result<Self, ConvertError> {
        at_most(
            "versions",
            wire.versions.len(),
            limits::MAX_VERSIONS_PER_BUNDLE,
        )?;
        let versions = wire.versions.into_iter().map(Signed::try_from);
        Ok(Self {
            assignment: present("assignment", wire.assignment)?.try_into()?,
            versions: versions.collect::<Result<_, _>>()?,
            agent: wire.agent.map(Signed::try_from).transpose()?,
        })
    }
}

impl From<FromController> for v1::ControllerMessage {
    fn from(message: FromController) -> Self {
        use v1::controller_message::Message;
        let message = match message {
            FromController::Assignment(bundle) => Message::Assignment((*bundle).into()),
            FromController::TelemetryAck { boot, sequence } => {
                Message::TelemetryAck(v1::TelemetryAck { boot, sequence })
            }
            FromController::Clock(time) => Message::Clock(v1::Clock { unix_ms: time.0 }),
            FromController::Disconnect { reason, retry } => {
                Message::Disconnect(v1::Disconnect { reason, retry })
            }
        };
        Self {
            message: Some(message),
        }
    }
}

impl TryFrom<v1::ControllerMessage> for FromController {
    type Error = ConvertError;
    fn try_from(wire: v1::ControllerMessage) -> Result<Self, ConvertError> {
        use v1::controller_message::Message;
        Ok(match present("message", wire.message)? {
            Message::Assignment(bundle) => Self::Assignment(Box::new(bundle.try_into()?)),
            Message::TelemetryAck(ack) => Self::TelemetryAck {
                boot: ack.boot,
                sequence: ack.sequence,
            },
            Message::Clock(clock) => Self::Clock(Millis(clock.unix_ms)),
            Message::Disconnect(end) => Self::Disconnect {
                reason: end.reason,
                retry: end.retry,
            },
        })
    }
}

impl From<FetchRequest> for v1::FetchRequest {
    fn from(request: FetchRequest) -> Self {
        Self {
            artefact: Some(request.artefact.into()),
            first_chunk: request.first_chunk,
        }
    }
}

impl TryFrom<v1::FetchRequest> for FetchRequest {
    type Error = ConvertError;
    fn try_from(wire: v1::FetchRequest) -> Result<Self, ConvertError> {
        let artefact: ArtefactRef = present("artefact", wire.artefact)?.try_into()?;
        let chunks = chunk_count(artefact.size_bytes) as u64;
        if wire.first_chunk > chunks {
            let value = wire.first_chunk.to_string();
            return Err(ConvertError::Unknown {
                field: "first_chunk",
                value,
            });
        }
        Ok(Self {
            artefact,
            first_chunk: wire.first_chunk,
        })
    }
}

impl From<FetchPart> for v1::FetchChunk {
    fn from(part: FetchPart) -> Self {
        use v1::fetch_chunk::Part;
        let part = match part {
            FetchPart::Tree(values) => Part::Tree(values.concat().into()),
            FetchPart::Chunk(bytes) => Part::Chunk(bytes),
            FetchPart::Wait => Part::Wait(v1::Wait {}),
        };
        Self { part: Some(part) }
    }
}

impl TryFrom<v1::FetchChunk> for FetchPart {
    type Error = ConvertError;
    fn try_from(wire: v1::FetchChunk) -> Result<Self, ConvertError> {
        use v1::fetch_chunk::Part;
        match present("part", wire.part)? {
            Part::Wait(v1::Wait {}) => Ok(Self::Wait),
            Part::Tree(bytes) => {
                let values = bytes.chunks(32).map(|value| fixed("tree", value));
                Ok(Self::Tree(values.collect::<Result<_, _>>()?))
            }
            Part::Chunk(bytes) => {
                at_most("chunk", bytes.len(), CHUNK_BYTES)?;
                Ok(Self::Chunk(bytes))
            }
        }
    }
}
