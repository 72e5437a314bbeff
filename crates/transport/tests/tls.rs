//! Both ends of TLS against each other: who gets in, who does not, and what survives a change
//! of certificates.
#![allow(clippy::unwrap_used)]

use prost::bytes::Bytes;
use sandpiper_core::digest::Digest;
use sandpiper_core::names::{ActorName, DeviceName, FleetName};
use sandpiper_core::time::Millis;
use sandpiper_proto::v1;
use sandpiper_proto::v1::device_service_client::DeviceServiceClient;
use sandpiper_proto::v1::device_service_server::{DeviceService, DeviceServiceServer};
use sandpiper_transport::client::{
    ClientIdentity, ClientTls, Clock, ConnectError, connect, connect_lazy, fetch_ca_by_pin,
};
use sandpiper_transport::identity::Identity;
use sandpiper_transport::pki::{Ca, DEVICE_LIFE, Issued, KeyPair};
use sandpiper_transport::server::{ClientCertificates, Limits, Peer, ServerTls, builder, listen};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Code, Request, Response, Status, Streaming};

/// Longest wait for anything; reached only when something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

fn now() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Millis(since.as_millis().try_into().unwrap())
}

/// Echoes: `Attach` acknowledges every message, `Renew` answers with the caller's identity.
struct Echo;

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn who<T>(request: &Request<T>) -> Option<Identity> {
    request
        .extensions()
        .get::<Peer>()
        .and_then(|peer| peer.identity.clone())
}

#[tonic::async_trait]
impl DeviceService for Echo {
    type AttachStream = Replies<v1::ControllerMessage>;
    type FetchStream = Replies<v1::FetchChunk>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::DeviceMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let ack = v1::TelemetryAck {
            boot: 1,
            sequence: 1,
        };
        let message = v1::controller_message::Message::TelemetryAck(ack);
        let reply = v1::ControllerMessage {
            message: Some(message),
        };
        let replies = request
            .into_inner()
            .map(move |message| message.map(|_| reply.clone()));
        Ok(Response::new(Box::pin(replies)))
    }

    async fn fetch(
        &self,
        _: Request<v1::FetchRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let part = v1::fetch_chunk::Part::Chunk(Bytes::from_static(b"bytes"));
        let chunk = v1::FetchChunk { part: Some(part) };
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(chunk)))))
    }

    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewResponse>, Status> {
        let identity = who(&request).ok_or_else(|| Status::permission_denied("no identity"))?;
        let certificate_chain_der = vec![identity.to_string().into_bytes()];
        Ok(Response::new(v1::RenewResponse {
            certificate_chain_der,
            ..Default::default()
        }))
    }
}

struct Fleet {
    ca: Ca,
    address: String,
    tls: Arc<ServerTls>,
}

impl Fleet {
    fn server(ca: &Ca, at: Millis) -> Issued {
        let name = ActorName::new("controller").unwrap();
        let key = KeyPair::generate().unwrap();
        ca.issue_server(&name, &["127.0.0.1".to_owned()], &key, at)
            .unwrap()
    }

    async fn start(name: &str, clients: ClientCertificates, limits: Limits) -> Self {
        Self::start_at(name, clients, limits, now()).await
    }

    async fn start_at(name: &str, clients: ClientCertificates, limits: Limits, at: Millis) -> Self {
        let ca = Ca::create(&FleetName::new(name).unwrap(), at).unwrap();
        let issued = Self::server(&ca, at);
        let tls = ServerTls::new(&issued, ca.certificate_der(), clients).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let incoming = listen(listener, tls.clone(), limits);
        let router = builder().add_service(DeviceServiceServer::new(Echo));
        tokio::spawn(router.serve_with_incoming(incoming));
        Self { ca, address, tls }
    }

    fn client(&self, identity: Option<ClientIdentity>) -> ClientTls {
        ClientTls {
            ca_der: self.ca.certificate_der().to_vec(),
            identity,
            clock: Clock::Trusted,
        }
    }
}

fn device(ca: &Ca, at: Millis) -> ClientIdentity {
    let key = KeyPair::generate().unwrap();
    let name = DeviceName::new("shed-1").unwrap();
    let chain_der = ca.issue_device(&name, &key.request().unwrap(), at).unwrap();
    ClientIdentity {
        chain_der,
        key_pem: key.to_pem(),
    }
}

async fn ask(tls: &ClientTls, address: &str) -> Result<String, Status> {
    // TLS 1.3: a client learns with its first call that its certificate was refused.
    let channel = connect_lazy(tls, address).unwrap();
    let call = async move {
        DeviceServiceClient::new(channel)
            .renew(v1::RenewRequest::default())
            .await
    };
    let reply = tokio::time::timeout(PATIENCE, call)
        .await
        .expect("an answer in time")?;
    let chain = reply.into_inner().certificate_chain_der;
    Ok(String::from_utf8(chain[0].clone()).unwrap())
}

#[tokio::test]
async fn a_device_is_known_by_its_certificate_and_an_anonymous_peer_has_no_identity() {
    let fleet = Fleet::start("garden", ClientCertificates::Optional, Limits::default()).await;
    let known = ask(
        &fleet.client(Some(device(&fleet.ca, now()))),
        &fleet.address,
    )
    .await;
    assert_eq!(known.unwrap(), "spiffe://garden/device/shed-1");
    let anonymous = ask(&fleet.client(None), &fleet.address).await;
    assert_eq!(anonymous.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn an_operator_listener_refuses_anonymous_peers() {
    let fleet = Fleet::start("garden", ClientCertificates::Required, Limits::default()).await;
    assert!(ask(&fleet.client(None), &fleet.address).await.is_err());
    let name = ActorName::new("admin").unwrap();
    let issued = fleet.ca.issue_operator(&name, now()).unwrap();
    let chain_der = sandpiper_transport::pki::chain_from_pem(&issued.chain_pem).unwrap();
    let own = ClientIdentity {
        chain_der,
        key_pem: issued.key_pem,
    };
    let known = ask(&fleet.client(Some(own)), &fleet.address).await;
    assert_eq!(known.unwrap(), "spiffe://garden/operator/admin");
}

#[tokio::test]
async fn certificates_of_another_fleet_or_expired_are_refused() {
    let fleet = Fleet::start("garden", ClientCertificates::Optional, Limits::default()).await;
    let other = Ca::create(&FleetName::new("garden").unwrap(), now()).unwrap();
    let foreign = fleet.client(Some(device(&other, now())));
    let refused = ask(&foreign, &fleet.address).await.unwrap_err();
    assert_ne!(refused.code(), Code::PermissionDenied, "{refused:?}");
    let past = Millis(now().0 - 2 * u64::try_from(DEVICE_LIFE.as_millis()).unwrap());
    // Made by the fleet's own authority, long ago.
    let expired = fleet.client(Some(device(&fleet.ca, past)));
    let refused = ask(&expired, &fleet.address).await.unwrap_err();
    assert_ne!(refused.code(), Code::PermissionDenied, "{refused:?}");
}

#[tokio::test]
async fn a_client_refuses_a_controller_of_another_fleet_and_one_that_is_a_device() {
    let fleet = Fleet::start("garden", ClientCertificates::Optional, Limits::default()).await;
    let other = Ca::create(&FleetName::new("garden").unwrap(), now()).unwrap();
    let mut tls = fleet.client(None);
    tls.ca_der = other.certificate_der().to_vec();
    let refused = connect(&tls, &fleet.address).await;
    assert!(matches!(refused, Err(ConnectError::Unreachable { .. })));

    let own = device(&fleet.ca, now());
    let chain_pem = sandpiper_transport::pki::chain_to_pem(&own.chain_der);
    let issued = Issued {
        chain_pem,
        key_pem: own.key_pem,
    };
    fleet.tls.replace(&issued).unwrap();
    let refused = connect(&fleet.client(None), &fleet.address).await;
    assert!(matches!(refused, Err(ConnectError::Unreachable { .. })));
}

#[tokio::test]
async fn the_clock_of_a_device_is_not_believed_but_a_known_instant_is() {
    // The controller lives 50 years ahead of this client.
    let ahead = Millis(now().0 + 50 * 365 * 86_400_000);
    let limits = Limits::default();
    let fleet = Fleet::start_at("garden", ClientCertificates::Optional, limits, ahead).await;
    let mut tls = fleet.client(None);
    assert!(
        connect(&tls, &fleet.address).await.is_err(),
        "not yet good by a trusted clock"
    );
    tls.clock = Clock::Untrusted { floor: Millis(0) };
    connect(&tls, &fleet.address).await.unwrap();
    tls.clock = Clock::Untrusted {
        floor: Millis(ahead.0 + 2 * 365 * 86_400_000),
    };
    assert!(
        connect(&tls, &fleet.address).await.is_err(),
        "ended before a known instant"
    );
}

#[tokio::test]
async fn the_authority_is_fetched_by_its_pin_and_only_by_it() {
    let fleet = Fleet::start("garden", ClientCertificates::Optional, Limits::default()).await;
    let found = fetch_ca_by_pin(&fleet.address, fleet.ca.pin())
        .await
        .unwrap();
    assert_eq!(found, fleet.ca.certificate_der());
    let wrong = fetch_ca_by_pin(&fleet.address, Digest::of(b"another")).await;
    assert!(matches!(wrong, Err(ConnectError::Pin { .. })), "{wrong:?}");

    // Somebody who merely sends the right authority along proves nothing.
    let liar = Ca::create(&FleetName::new("liar").unwrap(), now()).unwrap();
    let own = Fleet::server(&liar, now());
    let leaf = sandpiper_transport::pki::chain_from_pem(&own.chain_pem)
        .unwrap()
        .remove(0);
    let chain = [leaf, fleet.ca.certificate_der().to_vec()];
    let chain_pem = sandpiper_transport::pki::chain_to_pem(&chain);
    fleet
        .tls
        .replace(&Issued {
            chain_pem,
            key_pem: own.key_pem,
        })
        .unwrap();
    let lied = fetch_ca_by_pin(&fleet.address, fleet.ca.pin()).await;
    assert!(matches!(lied, Err(ConnectError::Pin { .. })), "{lied:?}");
}

#[tokio::test]
async fn addresses_are_checked_before_anything_is_tried() {
    for bad in [
        "",
        "pi.local",
        "pi.local:",
        "pi.local:0",
        "pi.local:99999",
        ":1",
        "a@b:1",
        "a b:1",
    ] {
        let refused = fetch_ca_by_pin(bad, Digest::of(b"")).await;
        assert!(
            matches!(refused, Err(ConnectError::Address(_))),
            "{bad}: {refused:?}"
        );
    }
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = gone.local_addr().unwrap().to_string();
    drop(gone);
    let refused = fetch_ca_by_pin(&address, Digest::of(b"")).await;
    assert!(
        matches!(refused, Err(ConnectError::Unreachable { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_slow_handshake_is_cut_and_does_not_hold_up_others() {
    let limits = Limits {
        handshake_timeout: Duration::from_millis(300),
        ..Limits::default()
    };
    let fleet = Fleet::start("garden", ClientCertificates::Optional, limits).await;
    let mut silent = TcpStream::connect(&fleet.address).await.unwrap();
    connect(&fleet.client(None), &fleet.address).await.unwrap();
    let end = tokio::time::timeout(PATIENCE, silent.read(&mut [0; 16])).await;
    assert!(matches!(
        end.expect("the connection is cut"),
        Ok(0) | Err(_)
    ));
}

#[tokio::test]
async fn connections_beyond_the_limit_of_an_address_are_closed_and_places_come_back() {
    let limits = Limits {
        max_per_address: 2,
        ..Limits::default()
    };
    let fleet = Fleet::start("garden", ClientCertificates::Optional, limits).await;
    let first = TcpStream::connect(&fleet.address).await.unwrap();
    let _second = TcpStream::connect(&fleet.address).await.unwrap();
    let mut third = TcpStream::connect(&fleet.address).await.unwrap();
    let end = tokio::time::timeout(PATIENCE, third.read(&mut [0; 16])).await;
    assert!(matches!(
        end.expect("the connection is closed"),
        Ok(0) | Err(_)
    ));
    drop(first);
    let freed = async {
        while connect(&fleet.client(None), &fleet.address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, freed)
        .await
        .expect("the place is free again");
}

#[tokio::test]
async fn silent_handshakes_of_one_address_leave_places_for_others() {
    let limits = Limits {
        max_handshakes: 3,
        max_handshakes_per_address: 2,
        handshake_timeout: PATIENCE,
        ..Limits::default()
    };
    let fleet = Fleet::start("garden", ClientCertificates::Optional, limits).await;
    let mut silent = Vec::new();
    for _ in 0..3 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        silent.push(
            socket
                .connect(fleet.address.parse().unwrap())
                .await
                .unwrap(),
        );
    }
    let mut buffer = [0; 16];
    let third = silent[2].read(&mut buffer);
    let end = tokio::time::timeout(PATIENCE, third).await;
    assert!(matches!(
        end.expect("one too many is closed"),
        Ok(0) | Err(_)
    ));
    connect(&fleet.client(None), &fleet.address).await.unwrap();
}

#[tokio::test]
async fn new_certificates_are_used_and_open_streams_go_on() {
    let fleet = Fleet::start("garden", ClientCertificates::Optional, Limits::default()).await;
    let tls = fleet.client(Some(device(&fleet.ca, now())));
    let channel = connect(&tls, &fleet.address).await.unwrap();
    let (say, heard) = tokio::sync::mpsc::channel(4);
    let outgoing = tokio_stream::wrappers::ReceiverStream::new(heard);
    let mut replies = DeviceServiceClient::new(channel)
        .attach(outgoing)
        .await
        .unwrap()
        .into_inner();
    say.send(v1::DeviceMessage::default()).await.unwrap();
    assert!(replies.message().await.unwrap().is_some());

    // A certificate that ended: whoever connects anew is refused, which proves that it is used.
    let past = Millis(now().0 - 800 * 86_400_000);
    fleet.tls.replace(&Fleet::server(&fleet.ca, past)).unwrap();
    assert!(connect(&tls, &fleet.address).await.is_err());
    say.send(v1::DeviceMessage::default()).await.unwrap();
    assert!(
        replies.message().await.unwrap().is_some(),
        "the open stream goes on"
    );

    let broken = Issued {
        chain_pem: String::new(),
        key_pem: String::new(),
    };
    assert!(fleet.tls.replace(&broken).is_err());
    fleet.tls.replace(&Fleet::server(&fleet.ca, now())).unwrap();
    connect(&tls, &fleet.address).await.unwrap();
    say.send(v1::DeviceMessage::default()).await.unwrap();
    assert!(replies.message().await.unwrap().is_some());
}
