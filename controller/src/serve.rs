//! `sandpiper serve`: binds, serves, and stops gracefully.

mod certificate;

use self::certificate::ServerCertificate;
use crate::api::{Devices, Enrolments, Operators, Throttle};
use crate::catalogue::{BlobError, Blobs};
use crate::clock;
use crate::config::{Config, ConfigError};
use crate::context::{Context, ContextError};
use crate::fleet::{self, Authority, FleetHandle, Running, State};
use crate::init::InitError;
use crate::store::{SledStore, Store, StoreError};
use sandpiper_proto::limits::MAX_MESSAGE_BYTES;
use sandpiper_proto::v1::device_service_server::DeviceServiceServer;
use sandpiper_proto::v1::enrolment_server::EnrolmentServer;
use sandpiper_proto::v1::operator_service_server::OperatorServiceServer;
use sandpiper_transport::fsio::{FsError, write_atomic};
use sandpiper_transport::pki::{Ca, PkiError};
use sandpiper_transport::server::{self, ClientCertificates, Limits, ServerTls, TlsError};
use sandpiper_transport::signing::{KeyError, SigningKey, VerifyingKeys};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Longest that open calls may take to end after a stop was asked for; live streams of
/// devices never end by themselves and are cut then.
const DRAIN: Duration = Duration::from_secs(2);

/// Options of `sandpiper serve`.
#[derive(Debug, Clone, clap::Args)]
pub struct ServeArgs {
    /// Directory that `sandpiper init` made
    #[arg(long)]
    pub data: PathBuf,
}

/// Why the controller does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration is unusable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file of the data directory is missing.
    #[error("cannot read `{path}`: is this a directory that `sandpiper init` made?")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A certificate is unusable.
    #[error("the fleet's certificates cannot be used")]
    Pki(#[from] PkiError),
    /// A signing key is unusable.
    #[error("the fleet's signing keys cannot be used")]
    Key(#[from] KeyError),
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[from] TlsError),
    /// The store fails.
    #[error("the store fails")]
    Store(#[from] StoreError),
    /// The state cannot be loaded.
    #[error("the fleet's state cannot be loaded")]
    Load(#[from] fleet::LoadError),
    /// The artefacts cannot be reached.
    #[error("the artefacts cannot be reached")]
    Blobs(#[from] BlobError),
    /// A port cannot be bound.
    #[error("cannot listen on {address}: is another controller running?")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The bound addresses cannot be written.
    #[error("cannot write the bound addresses")]
    Write(#[from] FsError),
    /// The operator's context cannot be rewritten.
    #[error("cannot rewrite the operator's context")]
    Context(#[from] ContextError),
    /// The server's certificate cannot be renewed.
    #[error("cannot renew the controller's certificate")]
    Renew(#[from] InitError),
    /// A server ended with an error.
    #[error("a listener failed")]
    Listener(#[from] tonic::transport::Error),
    /// A task panicked.
    #[error("a part of the controller ended unexpectedly")]
    Task(#[from] tokio::task::JoinError),
}

/// Content of `DATA/addresses.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// What devices connect to.
    pub device: String,
    /// What operators connect to.
    pub operator: String,
}

/// A controller that runs.
pub struct Server {
    /// What it bound.
    pub addresses: Addresses,
    stop: watch::Sender<bool>,
    listeners: Vec<JoinHandle<Result<(), tonic::transport::Error>>>,
    fleet: Running,
}

fn read(dir: &Path, name: &str) -> Result<String, ServeError> {
    let path = dir.join(name);
    std::fs::read_to_string(&path).map_err(|source| ServeError::Read { path, source })
}

fn authority(dir: &Path) -> Result<Authority, ServeError> {
    let publisher = SigningKey::from_pem(&read(dir, "publisher.key")?)?;
    Ok(Authority {
        ca: Ca::load(&read(dir, "ca.pem")?, &read(dir, "ca.key")?)?,
        assignment: SigningKey::from_pem(&read(dir, "assignment.key")?)?,
        publishers: VerifyingKeys::from_iter([publisher.public_key()]),
    })
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, u16), ServeError> {
    let failed = |source| ServeError::Bind { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    Ok((listener, port))
}

impl Server {
    /// Starts the controller of a data directory. When this returns, both listeners accept,
    /// and `addresses.json` and `admin.toml` name them.
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn start(dir: &Path) -> Result<Self, ServeError> {
        let config = Config::load(dir)?;
        let authority = Arc::new(authority(dir)?);
        let hosts = [&config.device_address, &config.operator_address];
        let hosts = hosts.into_iter().cloned().collect();
        let owner = Arc::clone(&authority);
        let mut certificate = ServerCertificate::issue(dir.to_owned(), owner, hosts, clock::now())?;
        let (db, blob_dir, for_state) = (dir.join("db"), dir.join("blobs"), Arc::clone(&authority));
        let opened = tokio::task::spawn_blocking(move || {
            let store: Arc<dyn Store> = Arc::new(SledStore::open(&db)?);
            let state = State::load(store.as_ref(), for_state)?;
            Ok::<_, ServeError>((store, state, Arc::new(Blobs::open(blob_dir)?)))
        });
        let (store, state, blobs) = opened.await??;
        let (devices, device_port) = bind(config.device_listen).await?;
        let (operators, operator_port) = bind(config.operator_listen).await?;
        let addresses = Addresses {
            device: config.device_address.bound(device_port).to_string(),
            operator: config.operator_address.bound(operator_port).to_string(),
        };
        let (handle, fleet) = fleet::spawn(state, store);
        let (stop, stopped) = watch::channel(false);
        let parts = Parts {
            config,
            authority,
            blobs,
            handle,
            addresses: addresses.clone(),
        };
        let for_devices = certificate.listener(ClientCertificates::Optional)?;
        let for_operators = certificate.listener(ClientCertificates::Required)?;
        let listeners = vec![
            parts.devices(devices, for_devices, stopped.clone()),
            parts.operators(operators, for_operators, stopped.clone()),
        ];
        tokio::spawn(certificate.keep(stopped));
        announce(dir, &addresses)?;
        tracing::info!(
            device = addresses.device,
            operator = addresses.operator,
            "serving"
        );
        Ok(Self {
            addresses,
            stop,
            listeners,
            fleet,
        })
    }

    /// Runs until the signal to stop resolves or a part fails, then drains.
    ///
    /// # Errors
    /// [`ServeError::Store`] when the store failed, [`ServeError::Listener`].
    pub async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
        tokio::select! {
            () = stop => tracing::info!("stopping"),
            // It ends by itself only when the store fails.
            ended = &mut self.fleet => {
                ended??;
                return Ok(());
            }
        }
        self.stop().await
    }

    /// Stops accepting, lets open calls end for a moment, and waits until all is durable.
    ///
    /// # Errors
    /// As [`Server::run`].
    pub async fn stop(self) -> Result<(), ServeError> {
        // Nobody listens only if the listeners have ended already.
        let _ = self.stop.send(true);
        for mut listener in self.listeners {
            match tokio::time::timeout(DRAIN, &mut listener).await {
                Ok(ended) => ended??,
                Err(_) => listener.abort(),
            }
        }
        // Streams hold handles until their connections are gone; every answered job is durable
        // already, so the task may be ended.
        let mut fleet = self.fleet;
        match tokio::time::timeout(DRAIN, &mut fleet).await {
            Ok(ended) => ended??,
            Err(_) => {
                fleet.abort();
                // Waited for, so that the store is closed when this returns.
                let _ = fleet.await;
            }
        }
        Ok(())
    }
}

struct Parts {
    config: Config,
    authority: Arc<Authority>,
    blobs: Arc<Blobs>,
    handle: FleetHandle,
    addresses: Addresses,
}

type Listener = JoinHandle<Result<(), tonic::transport::Error>>;

impl Parts {
    fn devices(
        &self,
        listener: TcpListener,
        tls: Arc<ServerTls>,
        stop: watch::Receiver<bool>,
    ) -> Listener {
        let enrolments = Enrolments {
            fleet: self.handle.clone(),
            name: self.config.fleet.clone(),
        };
        let devices = Devices {
            fleet: self.handle.clone(),
            blobs: Arc::clone(&self.blobs),
            throttle: Throttle::new(),
            bandwidth: self.config.bandwidth.clone(),
        };
        let router = server::builder()
            .add_service(
                EnrolmentServer::new(enrolments).max_decoding_message_size(MAX_MESSAGE_BYTES),
            )
            .add_service(
                DeviceServiceServer::new(devices).max_decoding_message_size(MAX_MESSAGE_BYTES),
            );
        let incoming = server::listen(listener, tls, Limits::default());
        tokio::spawn(router.serve_with_incoming_shutdown(incoming, stopped(stop)))
    }

    fn operators(
        &self,
        listener: TcpListener,
        tls: Arc<ServerTls>,
        stop: watch::Receiver<bool>,
    ) -> Listener {
        let operators = Operators {
            fleet: self.handle.clone(),
            blobs: Arc::clone(&self.blobs),
            authority: Arc::clone(&self.authority),
            device_address: self.addresses.device.clone(),
            name: self.config.fleet.clone(),
        };
        let router = server::builder().add_service(
            OperatorServiceServer::new(operators).max_decoding_message_size(MAX_MESSAGE_BYTES),
        );
        let incoming = server::listen(listener, tls, Limits::default());
        tokio::spawn(router.serve_with_incoming_shutdown(incoming, stopped(stop)))
    }
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // An error means that the server was dropped, which is a stop as well.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Writes what was bound, and points the operator's context at it.
fn announce(dir: &Path, addresses: &Addresses) -> Result<(), ServeError> {
    let path = dir.join("admin.toml");
    if path.exists() {
        let mut context = Context::load(&path)?;
        if context.address != addresses.operator {
            context.address = addresses.operator.clone();
            context.save(&path)?;
        }
    }
    let json = serde_json::to_vec_pretty(addresses).expect("two texts have JSON");
    write_atomic(&dir.join("addresses.json"), &json, 0o644)?;
    Ok(())
}

/// Resolves at SIGTERM or SIGINT.
///
/// # Errors
/// When the system refuses a signal handler.
pub fn signals() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}
