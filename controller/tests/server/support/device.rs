//! A device played by hand.

use super::version::{MODEL, RUNTIME, VARIANT, code};
use super::{Fleet, soon};
use sandpiper_core::assignment::{Assignment, Generation};
use sandpiper_core::digest::Digest;
use sandpiper_core::energy::{EnergyScope, Provenance};
use sandpiper_core::outputs::OutputStats;
use sandpiper_core::profile::{Conditions, DeviceProfile, Power, PowerState};
use sandpiper_core::signed::Purpose;
use sandpiper_core::sketch::LatencySketch;
use sandpiper_core::target::{Arch, Target};
use sandpiper_core::telemetry::{
    FailureKind, ModelFailure, ModelPhase, ModelStatus, Observation, Serving, TelemetryWindow,
};
use sandpiper_core::time::Millis;
use sandpiper_proto::convert::{Credentials, FromController, FromDevice, Hello};
use sandpiper_proto::v1;
use sandpiper_proto::v1::device_service_client::DeviceServiceClient;
use sandpiper_proto::v1::enrolment_client::EnrolmentClient;
use sandpiper_transport::client::{ClientIdentity, connect};
use sandpiper_transport::pki::KeyPair;
use sandpiper_transport::signing::VerifyingKeys;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};

/// Number of the installation of every played device.
pub(crate) const BOOT: u64 = 77;

/// A device with its identity.
pub(crate) struct Device {
    pub(crate) name: String,
    pub(crate) identity: ClientIdentity,
    pub(crate) credentials: Credentials,
}

/// Asks to join, as a peer without a certificate.
pub(crate) async fn enrol(
    fleet: &Fleet,
    secret: &str,
    name: &str,
    csr_der: Vec<u8>,
) -> Result<v1::EnrolResponse, Status> {
    let channel = connect(&fleet.tls(None), fleet.device_address()).await;
    let request = v1::EnrolRequest {
        token: secret.to_owned(),
        name: name.to_owned(),
        csr_der,
        labels: BTreeMap::new(),
    };
    let answer = EnrolmentClient::new(channel.unwrap()).enrol(request).await;
    answer.map(tonic::Response::into_inner)
}

impl Device {
    /// Joins with a token of its own.
    pub(crate) async fn join(fleet: &Fleet, name: &str) -> Self {
        let (_, token) = fleet.token(Duration::from_secs(600)).await;
        let key = KeyPair::generate().unwrap();
        let answer = enrol(fleet, &token.secret, name, key.request().unwrap()).await;
        let (_, given, credentials) = answer.unwrap().checked().unwrap();
        assert_eq!(given.as_str(), name);
        Self {
            name: name.to_owned(),
            identity: ClientIdentity {
                chain_der: credentials.chain_der.clone(),
                key_pem: key.to_pem(),
            },
            credentials,
        }
    }

    pub(crate) async fn client(&self, fleet: &Fleet) -> DeviceServiceClient<Channel> {
        let tls = fleet.tls(Some(self.identity.clone()));
        let channel = connect(&tls, fleet.device_address()).await.unwrap();
        DeviceServiceClient::new(channel)
    }

    /// Opens the stream, as a device that has accepted a generation and serves these models.
    pub(crate) async fn attach(
        &self,
        fleet: &Fleet,
        generation: u64,
        models: Vec<ModelStatus>,
    ) -> Live {
        self.try_attach(fleet, generation, models).await.unwrap()
    }

    pub(crate) async fn try_attach(
        &self,
        fleet: &Fleet,
        generation: u64,
        models: Vec<ModelStatus>,
    ) -> Result<Live, Status> {
        self.try_attach_as(1, fleet, generation, models).await
    }

    /// The same as another start of the agent.
    pub(crate) async fn try_attach_as(
        &self,
        boot_id: u64,
        fleet: &Fleet,
        generation: u64,
        models: Vec<ModelStatus>,
    ) -> Result<Live, Status> {
        let observation = observation(generation, models);
        self.try_attach_with(boot_id, fleet, observation).await
    }

    /// The same with all that it says of itself.
    pub(crate) async fn try_attach_with(
        &self,
        boot_id: u64,
        fleet: &Fleet,
        observation: Observation,
    ) -> Result<Live, Status> {
        let mut client = self.client(fleet).await;
        let (up, outgoing) = mpsc::channel(64);
        let hello = Hello {
            boot_id,
            profile: profile(),
            observation,
        };
        let hello = FromDevice::Hello(Box::new(hello));
        up.send(hello.try_into().unwrap()).await.unwrap();
        let down = client.attach(ReceiverStream::new(outgoing)).await?;
        let key = self.credentials.assignment_key;
        Ok(Live {
            up,
            down: down.into_inner(),
            controller: VerifyingKeys::from_iter([key]),
            name: self.name.clone(),
        })
    }
}

/// An open stream of a device.
pub(crate) struct Live {
    up: mpsc::Sender<v1::DeviceMessage>,
    down: Streaming<v1::ControllerMessage>,
    controller: VerifyingKeys,
    name: String,
}

impl Live {
    /// The next message; `None` when the controller ended the stream.
    pub(crate) async fn next(&mut self) -> Option<Result<FromController, Status>> {
        let message = soon("a message", self.down.message()).await;
        match message {
            Ok(Some(message)) => Some(Ok(message.try_into().unwrap())),
            Ok(None) => None,
            Err(status) => Some(Err(status)),
        }
    }

    /// The next assignment, whose signature and addressee are checked.
    pub(crate) async fn assignment(&mut self) -> Assignment {
        loop {
            if let FromController::Assignment(bundle) = self.next().await.unwrap().unwrap() {
                let payload = self
                    .controller
                    .verify(&bundle.assignment, Purpose::Assignment);
                let assignment: Assignment = serde_json::from_slice(payload.unwrap()).unwrap();
                assert_eq!(assignment.device.as_str(), self.name);
                return assignment;
            }
        }
    }

    /// The next acknowledgement: installation and sequence.
    pub(crate) async fn ack(&mut self) -> (u64, u64) {
        loop {
            match self.next().await.unwrap().unwrap() {
                FromController::TelemetryAck { boot, sequence } => return (boot, sequence),
                FromController::Assignment(_)
                | FromController::Clock(_)
                | FromController::Disconnect { .. } => {}
            }
        }
    }

    pub(crate) async fn say(&self, message: FromDevice) {
        self.up.send(message.try_into().unwrap()).await.unwrap();
    }

    /// Says something; false when the stream is gone.
    pub(crate) async fn try_say(&self, message: FromDevice) -> bool {
        self.up.send(message.try_into().unwrap()).await.is_ok()
    }

    pub(crate) async fn observe(&self, generation: u64, models: Vec<ModelStatus>) {
        let observation = observation(generation, models);
        self.say(FromDevice::Observation(Box::new(observation)))
            .await;
    }

    /// Sends windows and waits until they are acknowledged.
    pub(crate) async fn report(&mut self, windows: Vec<TelemetryWindow>) -> (u64, u64) {
        self.say(FromDevice::Telemetry(windows)).await;
        self.ack().await
    }
}

/// A board that runs what [`super::version`] makes.
pub(crate) fn profile() -> DeviceProfile {
    DeviceProfile {
        zone: None,
        agent_version: "test".to_owned(),
        emulated: true,
        board: "Raspberry Pi 4 Model B Rev 1.4".to_owned(),
        soc: "bcm2711".to_owned(),
        arch: Arch::X86_64,
        cpu_model: String::new(),
        cpu_features: BTreeSet::new(),
        cores: 4,
        ram_total_bytes: 1 << 30,
        dtypes: BTreeSet::new(),
        targets: vec![Target::X8664V2],
        runtime_keys: [RUNTIME.to_owned()].into(),
        speed: None,
        energy_sources: Vec::new(),
        lockdown: BTreeMap::new(),
    }
}

pub(crate) fn observation(generation: u64, models: Vec<ModelStatus>) -> Observation {
    Observation {
        generation: Generation(generation),
        conditions: Conditions {
            ram_available_bytes: 1 << 30,
            disk_free_bytes: 1 << 30,
            power: Power::Mains,
            temperature_mc: None,
            throttled: false,
        },
        models,
        refused: None,
        agent: None,
    }
}

/// The device serves the version that it shall serve.
pub(crate) fn serving(version: &str) -> ModelStatus {
    ModelStatus {
        deployment: "watch".parse().unwrap(),
        model: MODEL.parse().unwrap(),
        wanted: version.parse().unwrap(),
        phase: ModelPhase::Serving,
        serving: Some(Serving {
            version: version.parse().unwrap(),
            variant: VARIANT.parse().unwrap(),
            code: code(version),
            power_state: PowerState::Mains,
        }),
        failure: None,
        fetched_bytes: 1,
        needed_bytes: 1,
    }
}

/// The device tested a version, which failed; an earlier one serves, or none.
pub(crate) fn failed(version: &str, still: Option<&str>) -> ModelStatus {
    ModelStatus {
        wanted: version.parse().unwrap(),
        phase: ModelPhase::Failed,
        serving: still.and_then(|still| serving(still).serving),
        failure: Some(ModelFailure {
            variant: VARIANT.parse().unwrap(),
            kind: FailureKind::SelfTest,
            message: "the self-test gave NaN".to_owned(),
        }),
        ..serving(version)
    }
}

/// A window of inferences under the code of a version.
pub(crate) fn window(sequence: u64, version: &str, inferences: u64) -> TelemetryWindow {
    window_of(sequence, version, inferences, code(version))
}

/// A window of inferences under some code.
pub(crate) fn window_of(
    sequence: u64,
    version: &str,
    inferences: u64,
    code: Digest,
) -> TelemetryWindow {
    let mut latency = LatencySketch::default();
    latency.record(200);
    TelemetryWindow {
        boot: BOOT,
        sequence,
        // Of whatever the device is assigned now.
        generation: Generation(u64::MAX),
        from: Millis(1),
        to: Millis(2),
        deployment: "watch".parse().unwrap(),
        model: MODEL.parse().unwrap(),
        version: version.parse().unwrap(),
        variant: VARIANT.parse().unwrap(),
        code,
        power_state: PowerState::Mains,
        inferences,
        errors: 0,
        rejected: 0,
        traps: 0,
        nonfinite: 0,
        outputs: OutputStats::default(),
        latency,
        energy_uj: 0,
        energy_variance_uj2: 0.0,
        energy_provenance: Provenance::Unknown,
        energy_scope: EnergyScope::Board,
    }
}
