//! Who may call what. The certificate decides, and nothing else.

use crate::support::device::{Device, enrol, observation, profile};
use crate::support::{Fleet, make};
use sandpiper_core::digest::ArtefactRef;
use sandpiper_core::names::{ActorName, DeviceName};
use sandpiper_proto::convert::{FetchRequest, FromDevice, Hello, UploadPart};
use sandpiper_proto::v1;
use sandpiper_proto::v1::device_service_client::DeviceServiceClient;
use sandpiper_proto::v1::operator_service_client::OperatorServiceClient;
use sandpiper_transport::client::{ClientIdentity, connect};
use sandpiper_transport::identity::Identity;
use sandpiper_transport::pki::{Ca, KeyPair, chain_from_pem};
use std::collections::BTreeMap;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

const OPERATOR_PROTO: &str = include_str!("../../../proto/proto/sandpiper/v1/operator.proto");
const DEVICE_PROTO: &str = include_str!("../../../proto/proto/sandpiper/v1/device.proto");

/// Names of the calls of a service, so that a new one cannot be forgotten here.
fn calls_of(proto: &str, service: &str) -> Vec<String> {
    let (_, body) = proto.split_once(&format!("service {service} {{")).unwrap();
    let (body, _) = body.split_once("\n}").unwrap();
    let calls = body.lines().filter_map(|l| l.trim().strip_prefix("rpc "));
    calls
        .map(|call| call.split('(').next().unwrap().to_owned())
        .collect()
}

type Answers = BTreeMap<&'static str, Option<Status>>;

fn note<T>(answers: &mut Answers, call: &'static str, answer: Result<Response<T>, Status>) {
    answers.insert(call, answer.err());
}

async fn call_operator_service(channel: Channel) -> Answers {
    let mut client = OperatorServiceClient::new(channel);
    let (mut all, list) = (Answers::new(), v1::ListRequest::default());
    note(&mut all, "List", client.list(list.clone()).await);
    note(&mut all, "Watch", client.watch(list).await);
    let explain = v1::ExplainRequest::default();
    note(&mut all, "Explain", client.explain(explain).await);
    let token = v1::CreateJoinTokenRequest::default();
    let answer = client.create_join_token(token).await;
    note(&mut all, "CreateJoinToken", answer);
    let name = v1::NameRequest {
        name: "shed".to_owned(),
    };
    let answer = client.revoke_join_token(name.clone()).await;
    note(&mut all, "RevokeJoinToken", answer);
    let labels = v1::SetLabelsRequest::default();
    note(&mut all, "SetLabels", client.set_labels(labels).await);
    let answer = client.revoke_device(name.clone()).await;
    note(&mut all, "RevokeDevice", answer);
    let answer = client.release_device(name.clone()).await;
    note(&mut all, "ReleaseDevice", answer);
    let artefacts = v1::ArtefactList::default();
    let answer = client.missing_artefacts(artefacts).await;
    note(&mut all, "MissingArtefacts", answer);
    let part = v1::UploadChunk::from(UploadPart::Artefact(ArtefactRef::of(b"x")));
    let answer = client.upload_artefact(tokio_stream::iter([part])).await;
    note(&mut all, "UploadArtefact", answer);
    let answer = client.publish_version(v1::Signed::default()).await;
    note(&mut all, "PublishVersion", answer);
    let answer = client.publish_agent(v1::Signed::default()).await;
    note(&mut all, "PublishAgent", answer);
    let orders = v1::OrderAgentsRequest::default();
    note(&mut all, "OrderAgents", client.order_agents(orders).await);
    let answer = client.apply_deployment(v1::Document::default()).await;
    note(&mut all, "ApplyDeployment", answer);
    let answer = client.delete_deployment(name).await;
    note(&mut all, "DeleteDeployment", answer);
    let rollout = v1::RolloutRequest::default();
    let answer = client.plan_rollout(rollout.clone()).await;
    note(&mut all, "PlanRollout", answer);
    let answer = client.start_rollout(rollout).await;
    note(&mut all, "StartRollout", answer);
    let steer = v1::SteerRequest::default();
    note(&mut all, "SteerRollout", client.steer_rollout(steer).await);
    all
}

async fn call_device_service(channel: Channel) -> Answers {
    let mut client = DeviceServiceClient::new(channel);
    let mut all = Answers::new();
    let hello = Hello {
        boot_id: 1,
        profile: profile(),
        observation: observation(0, Vec::new()),
    };
    let hello = FromDevice::Hello(Box::new(hello)).try_into().unwrap();
    let hello: v1::DeviceMessage = hello;
    let answer = client.attach(tokio_stream::iter([hello])).await;
    note(&mut all, "Attach", answer);
    let fetch = FetchRequest {
        artefact: ArtefactRef::of(b"x"),
        first_chunk: 0,
    };
    let answer = client.fetch(v1::FetchRequest::from(fetch)).await;
    note(&mut all, "Fetch", answer);
    let csr_der = KeyPair::generate().unwrap().request().unwrap();
    let answer = client.renew(v1::RenewRequest { csr_der }).await;
    note(&mut all, "Renew", answer);
    all
}

/// Every call of a service was made and refused with this code.
fn all_refused(answers: &Answers, proto: &str, service: &str, code: Code) {
    let mut calls = calls_of(proto, service);
    calls.sort();
    let made: Vec<&str> = answers.keys().copied().collect();
    assert_eq!(made, calls, "every call of {service} is tried");
    for (call, answer) in answers {
        let status = answer.as_ref();
        let status = status.unwrap_or_else(|| panic!("{call} was allowed"));
        assert_eq!(status.code(), code, "{call}: {}", status.message());
    }
}

#[tokio::test]
async fn a_device_may_call_nothing_of_an_operator() {
    let fleet = Fleet::start().await;
    let device = Device::join(&fleet, "shed").await;
    let tls = fleet.tls(Some(device.identity.clone()));
    let channel = connect(&tls, fleet.operator_address()).await.unwrap();
    let answers = call_operator_service(channel).await;
    let refused = Code::PermissionDenied;
    all_refused(&answers, OPERATOR_PROTO, "OperatorService", refused);
    assert!(!fleet.device("shed").await.revoked);
}

#[tokio::test]
async fn an_operator_may_call_nothing_of_a_device() {
    let fleet = Fleet::start().await;
    let tls = fleet.tls(Some(fleet.operator_identity()));
    let channel = connect(&tls, fleet.device_address()).await.unwrap();
    let answers = call_device_service(channel).await;
    let refused = Code::PermissionDenied;
    all_refused(&answers, DEVICE_PROTO, "DeviceService", refused);
}

#[tokio::test]
async fn without_a_certificate_one_may_only_join() {
    let fleet = Fleet::start().await;
    let tls = fleet.tls(None);
    let channel = connect(&tls, fleet.device_address()).await.unwrap();
    let answers = call_device_service(channel).await;
    let refused = Code::Unauthenticated;
    all_refused(&answers, DEVICE_PROTO, "DeviceService", refused);
    // The operators' listener does not even finish the handshake.
    assert_no_answer(&fleet, None).await;
    Device::join(&fleet, "shed").await;
}

#[tokio::test]
async fn a_certificate_of_this_fleet_for_an_unknown_device_is_refused() {
    let fleet = Fleet::start().await;
    let key = KeyPair::generate().unwrap();
    let identity = device_of(&fleet.ca(), &key);
    let tls = fleet.tls(Some(identity));
    let channel = connect(&tls, fleet.device_address()).await.unwrap();
    let answers = call_device_service(channel).await;
    let refused = Code::PermissionDenied;
    all_refused(&answers, DEVICE_PROTO, "DeviceService", refused);
}

fn device_of(ca: &Ca, key: &KeyPair) -> ClientIdentity {
    let name = DeviceName::new("shed").unwrap();
    let request = key.request().unwrap();
    ClientIdentity {
        chain_der: ca
            .issue_device(&name, &request, sandpiper::clock::now())
            .unwrap(),
        key_pem: key.to_pem(),
    }
}

/// The operators' listener lets a client get no answer at all: with TLS 1.3 a client may think
/// that it is connected until its first call.
async fn assert_no_answer(fleet: &Fleet, identity: Option<ClientIdentity>) {
    for address in [fleet.operator_address(), fleet.device_address()] {
        if identity.is_none() && address == fleet.device_address() {
            continue;
        }
        let Ok(channel) = connect(&fleet.tls(identity.clone()), address).await else {
            continue;
        };
        let mut client = OperatorServiceClient::new(channel);
        let list = v1::ListRequest {
            kind: "devices".to_owned(),
            ..v1::ListRequest::default()
        };
        let status = client.list(list).await.unwrap_err();
        // Whoever answers says so in the trailers; a connection that was cut has none.
        assert!(
            std::error::Error::source(&status).is_some(),
            "{address} answered {status:?}"
        );
    }
}

#[tokio::test]
async fn certificates_of_another_authority_are_refused_at_the_handshake() {
    let fleet = Fleet::start().await;
    // Of the same name, to see that the name is not what counts.
    let other = tempfile::tempdir().unwrap();
    let data = other.path().join("controller");
    make(&data);
    let read = |name: &str| std::fs::read_to_string(data.join(name)).unwrap();
    let ca = Ca::load(&read("ca.pem"), &read("ca.key")).unwrap();
    assert_eq!(ca.fleet(), fleet.ca().fleet());
    let now = sandpiper::clock::now();
    let admin = ca.issue_operator(&ActorName::new("admin").unwrap(), now);
    let admin = admin.unwrap();
    let operator = ClientIdentity {
        chain_der: chain_from_pem(&admin.chain_pem).unwrap(),
        key_pem: admin.key_pem,
    };
    assert_no_answer(&fleet, Some(operator)).await;
    let key = KeyPair::generate().unwrap();
    assert_no_answer(&fleet, Some(device_of(&ca, &key))).await;
    // The other way round, a client does not talk to a controller of another fleet.
    let mut tls = fleet.tls(None);
    tls.ca_der = ca.certificate_der().to_vec();
    assert!(connect(&tls, fleet.device_address()).await.is_err());
}

#[tokio::test]
async fn a_renewed_certificate_names_the_caller_again() {
    let fleet = Fleet::start().await;
    let device = Device::join(&fleet, "shed").await;
    let mut client = device.client(&fleet).await;
    let csr_der = KeyPair::generate().unwrap().request().unwrap();
    let renewed = client.renew(v1::RenewRequest { csr_der }).await.unwrap();
    let chain = renewed.into_inner().certificate_chain_der;
    let identity = Identity::of_certificate(&chain[0]).unwrap();
    assert_eq!(identity.to_string(), "spiffe://garden/device/shed");
    let nonsense = v1::RenewRequest {
        csr_der: b"not a request".to_vec(),
    };
    let status = client.renew(nonsense).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_stream_begins_with_one_hello() {
    let fleet = Fleet::start().await;
    let device = Device::join(&fleet, "shed").await;
    let mut client = device.client(&fleet).await;
    let windows = FromDevice::Telemetry(Vec::new()).try_into().unwrap();
    let windows: v1::DeviceMessage = windows;
    let status = client.attach(tokio_stream::iter([windows])).await;
    assert_eq!(status.unwrap_err().code(), Code::InvalidArgument);
    let mut live = device.attach(&fleet, 0, Vec::new()).await;
    let hello = Hello {
        boot_id: 1,
        profile: profile(),
        observation: observation(0, Vec::new()),
    };
    live.say(FromDevice::Hello(Box::new(hello))).await;
    let status = live.next().await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let again = enrol(&fleet, "guess", "shed", vec![1]).await.unwrap_err();
    assert_eq!(again.code(), Code::PermissionDenied);
}
