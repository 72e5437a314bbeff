//! A controller for one device: enrols, notes what it hears, sends what a test wants.

use sandpiper_core::chunks::{CHUNK_BYTES, ChunkTree};
use sandpiper_core::digest::{ArtefactRef, Digest};
use sandpiper_core::names::{ActorName, DeviceName, FleetName};
use sandpiper_core::signed::{Purpose, Signed};
use sandpiper_core::time::Millis;
use sandpiper_proto::convert::{
    Credentials, EnrolRequest, FetchPart, FetchRequest, FromController, FromDevice, Hello,
};
use sandpiper_proto::v1;
use sandpiper_proto::v1::device_service_server::{DeviceService, DeviceServiceServer};
use sandpiper_proto::v1::enrolment_server::{Enrolment, EnrolmentServer};
use sandpiper_transport::pki::{Ca, KeyPair};
use sandpiper_transport::server::{ClientCertificates, Limits, Peer, ServerTls, builder, listen};
use sandpiper_transport::signing::SigningKey;
use sandpiper_transport::token::JoinToken;
use serde::Serialize;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

/// What is done to one fetch instead of the right thing.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mishap {
    /// This chunk is altered.
    Damage(usize),
    /// The stream is cut before this chunk.
    Cut(usize),
    /// The stream ends before this chunk, as if it were the end.
    Ends(usize),
    /// This chunk has one byte more than it should.
    Longer(usize),
    /// After the last chunk others follow for ever.
    Endless,
}

/// A stream of a device.
pub(crate) struct Attached {
    pub(crate) hello: Hello,
    /// End of the certificate that it came with.
    pub(crate) expires: Option<Millis>,
    pub(crate) down: mpsc::Sender<Result<v1::ControllerMessage, Status>>,
}

/// What was heard and what is to be done.
#[derive(Default)]
pub(crate) struct Desk {
    pub(crate) blobs: BTreeMap<Digest, Vec<u8>>,
    /// First chunk of every fetch, in order.
    pub(crate) fetches: Vec<usize>,
    /// One for each of the next fetches.
    pub(crate) mishaps: Vec<Option<Mishap>>,
    pub(crate) streams: Vec<Attached>,
    pub(crate) renewals: usize,
    /// How old the certificates of enrolment are made.
    pub(crate) age: Duration,
}

/// The controller.
pub(crate) struct Controller {
    ca: Ca,
    pub(crate) assigner: SigningKey,
    pub(crate) publisher: SigningKey,
    desk: Mutex<Desk>,
    /// Fetches wait for a permit, which is taken for ever.
    pub(crate) gate: Semaphore,
}

fn now() -> Millis {
    sandpiper_agent::clock::now()
}

pub(crate) fn fleet() -> FleetName {
    FleetName::new("test").unwrap()
}

impl Controller {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            ca: Ca::create(&fleet(), now()).unwrap(),
            assigner: SigningKey::generate().unwrap(),
            publisher: SigningKey::generate().unwrap(),
            desk: Mutex::default(),
            gate: Semaphore::new(1000),
        })
    }

    pub(crate) fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap()
    }

    /// Keeps a blob to be fetched.
    pub(crate) fn hold(&self, bytes: Vec<u8>) -> ArtefactRef {
        let artefact = ArtefactRef::of(&bytes);
        self.desk().blobs.insert(artefact.digest, bytes);
        artefact
    }

    /// Serves on TLS; gives the address and the task.
    pub(crate) async fn serve(self: &Arc<Self>) -> (String, JoinHandle<()>) {
        let name = ActorName::new("controller").unwrap();
        let key = KeyPair::generate().unwrap();
        let issued = self.ca.issue_server(&name, &[], &key, now()).unwrap();
        let clients = ClientCertificates::Optional;
        let tls = ServerTls::new(&issued, self.ca.certificate_der(), clients).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let router = builder()
            .add_service(DeviceServiceServer::new(Service(self.clone())))
            .add_service(EnrolmentServer::new(Service(self.clone())));
        let incoming = listen(listener, tls, Limits::default());
        let task = tokio::spawn(async move {
            router.serve_with_incoming(incoming).await.unwrap();
        });
        (address, task)
    }

    /// Serves in plain text, for fetches alone.
    pub(crate) async fn channel(self: &Arc<Self>) -> tonic::transport::Channel {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let router = builder().add_service(DeviceServiceServer::new(Service(self.clone())));
        tokio::spawn(router.serve_with_incoming(incoming));
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}"));
        endpoint.unwrap().connect().await.unwrap()
    }

    pub(crate) fn token(&self, address: &str) -> JoinToken {
        JoinToken {
            address: address.to_owned(),
            fleet: fleet(),
            ca_pin: self.ca.pin(),
            secret: "secret".into(),
        }
    }

    pub(crate) fn sign(key: &SigningKey, purpose: Purpose, document: &impl Serialize) -> Signed {
        key.sign(purpose, serde_json::to_vec(document).unwrap())
    }

    /// Sends on the newest stream.
    pub(crate) async fn send(&self, message: FromController) {
        let down = self.desk().streams.last().unwrap().down.clone();
        down.send(Ok(message.into())).await.unwrap();
    }

    fn credentials(&self, csr: &[u8], at: Millis) -> Credentials {
        let name = DeviceName::new("shed-1").unwrap();
        Credentials {
            chain_der: self.ca.issue_device(&name, csr, at).unwrap(),
            assignment_key: self.assigner.public_key(),
            publisher_keys: vec![self.publisher.public_key()],
        }
    }
}

/// The controller as tonic sees it.
struct Service(Arc<Controller>);

type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Enrolment for Service {
    async fn enrol(
        &self,
        request: Request<v1::EnrolRequest>,
    ) -> Result<Response<v1::EnrolResponse>, Status> {
        let request = EnrolRequest::try_from(request.into_inner())?;
        let age = self.0.desk().age;
        let at = Millis(now().0 - u64::try_from(age.as_millis()).unwrap());
        let credentials = self.0.credentials(&request.csr_der, at);
        let answer = credentials.into_enrol_response(fleet(), request.name);
        Ok(Response::new(answer))
    }
}

#[tonic::async_trait]
impl DeviceService for Service {
    type AttachStream = Replies<v1::ControllerMessage>;
    type FetchStream = Replies<v1::FetchChunk>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::DeviceMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let expires = request.extensions().get::<Peer>().and_then(|p| p.expires);
        let mut up = request.into_inner();
        let first = up.message().await?.unwrap();
        let FromDevice::Hello(hello) = FromDevice::try_from(first)? else {
            return Err(Status::invalid_argument("no hello"));
        };
        let (down, messages) = mpsc::channel(8);
        self.0.desk().streams.push(Attached {
            hello: *hello,
            expires,
            down,
        });
        let controller = self.0.clone();
        let at = controller.desk().streams.len() - 1;
        tokio::spawn(async move {
            while let Some(Ok(message)) = up.next().await {
                if let Ok(FromDevice::Observation(seen)) = FromDevice::try_from(message) {
                    controller.desk().streams[at].hello.observation = *seen;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }

    async fn fetch(
        &self,
        request: Request<v1::FetchRequest>,
    ) -> Result<Response<Self::FetchStream>, Status> {
        let request = FetchRequest::try_from(request.into_inner())?;
        let first = usize::try_from(request.first_chunk).unwrap();
        let (bytes, mishap) = {
            let mut desk = self.0.desk();
            desk.fetches.push(first);
            let mishap = if desk.mishaps.is_empty() {
                None
            } else {
                desk.mishaps.remove(0)
            };
            let bytes = desk.blobs.get(&request.artefact.digest).cloned();
            (bytes, mishap)
        };
        let bytes = bytes.ok_or_else(|| Status::not_found("no such artefact"))?;
        self.0.gate.acquire().await.unwrap().forget();
        let tree = ChunkTree::of(&bytes).values().to_vec();
        // Others have their turn first, before the first chunk as well as between two.
        let wait = || Ok(FetchPart::Wait.into());
        let mut parts = vec![wait(), Ok(FetchPart::Tree(tree).into()), wait()];
        for (index, chunk) in bytes.chunks(CHUNK_BYTES).enumerate().skip(first) {
            let mut chunk = chunk.to_vec();
            match mishap {
                Some(Mishap::Cut(at)) if at == index => {
                    parts.push(Err(Status::unavailable("cut")));
                    break;
                }
                Some(Mishap::Ends(at)) if at == index => break,
                Some(Mishap::Damage(at)) if at == index => chunk[0] ^= 1,
                Some(Mishap::Longer(at)) if at == index => chunk.push(0),
                _ => {}
            }
            parts.push(Ok(FetchPart::Chunk(chunk.into()).into()));
        }
        if matches!(mishap, Some(Mishap::Endless)) {
            let more = std::iter::repeat_with(|| {
                let chunk = vec![7; CHUNK_BYTES];
                Ok(FetchPart::Chunk(chunk.into()).into())
            });
            let parts = tokio_stream::iter(parts.into_iter().chain(more));
            return Ok(Response::new(Box::pin(parts)));
        }
        Ok(Response::new(Box::pin(tokio_stream::iter(parts))))
    }

    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewResponse>, Status> {
        let csr = request.into_inner().checked()?;
        self.0.desk().renewals += 1;
        Ok(Response::new(self.0.credentials(&csr, now()).into()))
    }
}
