//! A fleet in a temporary directory, and everything that its tests play with.

pub(crate) mod device;
pub(crate) mod version;

use sandpiper::api::client::OperatorClient;
use sandpiper::clock;
use sandpiper::context::Context;
use sandpiper::init::{InitArgs, init};
use sandpiper::serve::Server;
use sandpiper_core::event::Event;
use sandpiper_core::policy::{Deployment, Labels, Policy};
use sandpiper_core::rollout::RolloutSpec;
use sandpiper_core::view::{DeviceDoc, RolloutDoc};
use sandpiper_proto::convert::{JoinTokenRequest, ListQuery, ResourceKind};
use sandpiper_transport::client::{ClientIdentity, ClientTls, Clock};
use sandpiper_transport::pki::{Ca, chain_from_pem};
use sandpiper_transport::signing::SigningKey;
use sandpiper_transport::token::JoinToken;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest that anything here may take; far more than it does.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(20);

/// Fails the test when a future takes too long.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(PATIENCE, future).await;
    ended.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

/// A fleet whose controller runs in this process.
pub(crate) struct Fleet {
    data: PathBuf,
    server: Option<Server>,
    _dir: Option<tempfile::TempDir>,
}

/// Makes a fleet in a directory, on ports that the system gives.
pub(crate) fn make(data: &Path) {
    let address = || Some("127.0.0.1:0".to_owned());
    let args = InitArgs {
        data: data.to_owned(),
        fleet: "garden".to_owned(),
        device_address: address(),
        operator_address: address(),
        listen: Some("127.0.0.1".parse().unwrap()),
    };
    init(&args, clock::now()).unwrap();
}

impl Fleet {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("controller");
        make(&data);
        Self {
            server: Some(Server::start(&data).await.unwrap()),
            data,
            _dir: Some(dir),
        }
    }

    /// What a power cut at this moment would leave: the files as they are, served anew.
    pub(crate) async fn after_power_cut(&self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("controller");
        copy(&self.data, &data);
        Self {
            server: Some(Server::start(&data).await.unwrap()),
            data,
            _dir: Some(dir),
        }
    }

    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.resume().await;
    }

    pub(crate) async fn stop(&mut self) {
        let server = self.server.take().unwrap();
        soon("the server to stop", server.stop()).await.unwrap();
    }

    pub(crate) async fn resume(&mut self) {
        self.server = Some(Server::start(&self.data).await.unwrap());
    }

    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    pub(crate) fn device_address(&self) -> &str {
        &self.server.as_ref().unwrap().addresses.device
    }

    pub(crate) fn operator_address(&self) -> &str {
        &self.server.as_ref().unwrap().addresses.operator
    }

    pub(crate) fn context(&self) -> Context {
        Context::load(&self.data.join("admin.toml")).unwrap()
    }

    pub(crate) fn ca_der(&self) -> Vec<u8> {
        chain_from_pem(&self.context().ca_pem)
            .unwrap()
            .swap_remove(0)
    }

    /// The fleet's authority, with its key.
    pub(crate) fn ca(&self) -> Ca {
        let read = |name: &str| std::fs::read_to_string(self.data.join(name)).unwrap();
        Ca::load(&read("ca.pem"), &read("ca.key")).unwrap()
    }

    pub(crate) fn publisher(&self) -> SigningKey {
        SigningKey::from_pem(&self.context().publisher_key_pem.unwrap()).unwrap()
    }

    /// TLS with this certificate, or without one.
    pub(crate) fn tls(&self, identity: Option<ClientIdentity>) -> ClientTls {
        ClientTls {
            ca_der: self.ca_der(),
            identity,
            clock: Clock::Trusted,
        }
    }

    /// The certificate of the first operator.
    pub(crate) fn operator_identity(&self) -> ClientIdentity {
        let context = self.context();
        ClientIdentity {
            chain_der: chain_from_pem(&context.chain_pem).unwrap(),
            key_pem: context.key_pem,
        }
    }

    pub(crate) async fn operator(&self) -> OperatorClient {
        let tls = self.tls(Some(self.operator_identity()));
        OperatorClient::connect(&tls, self.operator_address())
            .await
            .unwrap()
    }

    /// A join token with its id.
    pub(crate) async fn token(&self, ttl: Duration) -> (String, JoinToken) {
        let request = JoinTokenRequest {
            ttl,
            labels: Labels::new(),
            description: String::new(),
        };
        let mut operator = self.operator().await;
        let (id, text) = operator.create_join_token(request).await.unwrap();
        (id, text.parse().unwrap())
    }

    /// All documents of a kind.
    pub(crate) async fn list<T: DeserializeOwned>(&self, kind: ResourceKind) -> Vec<T> {
        let query = ListQuery {
            kind,
            name: None,
            selector: None,
        };
        let items = self.operator().await.list(query).await.unwrap();
        let documents = items.into_iter().map(|item| item.document);
        documents
            .map(|document| serde_json::from_value(document).unwrap())
            .collect()
    }

    pub(crate) async fn device(&self, name: &str) -> DeviceDoc {
        let all: Vec<DeviceDoc> = self.list(ResourceKind::Devices).await;
        all.into_iter().find(|d| d.name.as_str() == name).unwrap()
    }

    pub(crate) async fn rollout(&self, name: &str) -> RolloutDoc {
        let all: Vec<RolloutDoc> = self.list(ResourceKind::Rollouts).await;
        all.into_iter().find(|r| r.name.as_str() == name).unwrap()
    }

    /// Waits until a rollout is in a state, by its word.
    pub(crate) async fn rollout_is(&self, name: &str, word: &str) -> RolloutDoc {
        let what = format!("rollout {name} to be {word}");
        let reached = async {
            loop {
                let doc = self.rollout(name).await;
                if doc.state.word() == word {
                    return doc;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        soon(&what, reached).await
    }

    /// Waits until a device is attached, or no longer is.
    pub(crate) async fn connected(&self, name: &str, wanted: bool) {
        let reached = async {
            while self.device(name).await.connected != wanted {
                tokio::time::sleep(LOOK).await;
            }
        };
        soon(&format!("{name} connected: {wanted}"), reached).await;
    }

    /// Messages of the events about something, oldest first.
    pub(crate) async fn events(&self, subject: &str, reason: &str) -> Vec<String> {
        let all: Vec<Event> = self.list(ResourceKind::Events).await;
        all.into_iter()
            .filter(|e| e.subject == subject && e.reason == reason)
            .map(|e| e.message)
            .collect()
    }

    /// Applies the deployment `watch` of the model `activity` for all devices.
    pub(crate) async fn deploy(&self) {
        let deployment = Deployment {
            name: "watch".parse().unwrap(),
            model: version::MODEL.parse().unwrap(),
            selector: "".parse().unwrap(),
            policy: Policy::default(),
        };
        let mut operator = self.operator().await;
        operator.apply_deployment(&deployment).await.unwrap();
    }

    /// Starts a rollout of `watch` to a version; gives its name.
    pub(crate) async fn roll_out(&self, version: &str) -> String {
        let mut operator = self.operator().await;
        operator.start_rollout(&spec(version)).await.unwrap()
    }
}

/// A rollout of `watch` in one wave.
pub(crate) fn spec(version: &str) -> RolloutSpec {
    RolloutSpec {
        min_inferences: 3,
        ..RolloutSpec::new("watch".parse().unwrap(), version.parse().unwrap())
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
