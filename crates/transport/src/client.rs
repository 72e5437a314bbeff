//! The TLS side of a channel: the fleet's authority is the only root, and the controller is
//! known by its certificate, not by its address.

pub use crate::tls::TlsError;

use crate::pki::CONTROLLER_NAME;
use crate::tls;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sandpiper_core::digest::Digest;
use sandpiper_core::time::Millis;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

/// Time to reach a controller, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// How a connection that is dead at one end only is found.
#[derive(Debug, Clone, Copy)]
struct Keepalive {
    /// Time between two pings of a connection that is silent.
    every: Duration,
    /// A ping unanswered this long ends the connection.
    patience: Duration,
}

/// Load balancers cut silent connections at 60 s.
const KEEPALIVE: Keepalive = Keepalive {
    every: Duration::from_secs(45),
    patience: Duration::from_secs(20),
};

/// Longest time until a half-open connection is found.
const HALF_OPEN_MOST: Duration = Duration::from_secs(65);
const _: () = assert!(
    KEEPALIVE.every.as_millis() + KEEPALIVE.patience.as_millis() <= HALF_OPEN_MOST.as_millis()
);

/// How far the wall clock is believed when a controller's certificate is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// As it is: for operators.
    Trusted,
    /// Not at all: a Raspberry Pi has no battery-backed clock, and one that booted in 1970 must
    /// still reach its controller. The certificate must not have ended before `floor`, the
    /// latest instant that is known to have passed (the build, or a signed document).
    Untrusted {
        /// That instant.
        floor: Millis,
    },
}

/// A client's own certificate.
#[derive(Clone)]
pub struct ClientIdentity {
    /// Certificates, its own first, DER.
    pub chain_der: Vec<Vec<u8>>,
    /// Private key as PKCS#8 PEM.
    pub key_pem: String,
}

/// Everything a client needs for TLS.
#[derive(Clone)]
pub struct ClientTls {
    /// Certificate of the fleet's authority, DER.
    pub ca_der: Vec<u8>,
    /// Its own certificate; none to enrol.
    pub identity: Option<ClientIdentity>,
    /// What the clock is worth.
    pub clock: Clock,
}

/// Why a controller is not reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address does not parse.
    #[error("`{0}` is not an address: HOST:PORT is expected")]
    Address(String),
    /// The client's certificates or key are not usable.
    #[error("the client's certificates cannot be used")]
    Tls(#[from] TlsError),
    /// Nobody answers, or somebody who is not this fleet's controller.
    #[error("the controller at {address} cannot be reached")]
    Unreachable {
        /// Where it was sought.
        address: String,
        /// What happened.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A controller answers that does not belong to the fleet of the join token.
    #[error("the controller at {address} does not prove to be of the fleet that made the token")]
    Pin {
        /// Where it was sought.
        address: String,
    },
}

/// Connects to a controller: `address` is `HOST:PORT`. The channel connects again by itself.
///
/// # Errors
/// [`ConnectError`] when the first connection does not succeed.
pub async fn connect(tls: &ClientTls, address: &str) -> Result<Channel, ConnectError> {
    let (endpoint, connector) = prepare(tls, address)?;
    endpoint
        .connect_with_connector(connector)
        .await
        .map_err(|source| ConnectError::Unreachable {
            address: address.to_owned(),
            source: source.into(),
        })
}

/// Like [`connect`], but connects at the first call.
///
/// # Errors
/// [`ConnectError::Address`] and [`ConnectError::Tls`].
pub fn connect_lazy(tls: &ClientTls, address: &str) -> Result<Channel, ConnectError> {
    let (endpoint, connector) = prepare(tls, address)?;
    Ok(endpoint.connect_with_connector_lazy(connector))
}

fn prepare(tls: &ClientTls, address: &str) -> Result<(Endpoint, Connector), ConnectError> {
    let endpoint = endpoint(address, KEEPALIVE)?;
    let tls = TlsConnector::from(client_config(tls)?);
    let connector = Connector {
        tls,
        address: address.into(),
    };
    Ok((endpoint, connector))
}

fn endpoint(address: &str, keepalive: Keepalive) -> Result<Endpoint, ConnectError> {
    // TLS is the connector's affair, so the scheme that tonic sees is plain.
    let endpoint = Endpoint::from_shared(format!("http://{}", checked(address)?))
        .map_err(|_| ConnectError::Address(address.to_owned()))?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(keepalive.every)
        .keep_alive_timeout(keepalive.patience)
        .keep_alive_while_idle(true)
        .http2_max_header_list_size(8 << 10))
}

/// An address of a host and a port, so that one mistyped is told apart from one unreachable.
fn checked(address: &str) -> Result<&str, ConnectError> {
    let bad = || ConnectError::Address(address.chars().take(200).collect());
    let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
    let port: u16 = port.parse().map_err(|_| bad())?;
    let authority: http::uri::Authority = address.parse().map_err(|_| bad())?;
    if host.is_empty() || port == 0 || authority.as_str().contains('@') {
        return Err(bad());
    }
    Ok(address)
}

#[derive(Clone)]
struct Connector {
    tls: TlsConnector,
    address: Arc<str>,
}

type TlsIo = TokioIo<tokio_rustls::client::TlsStream<TcpStream>>;

impl tower::Service<Uri> for Connector {
    type Response = TlsIo;
    type Error = io::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = io::Result<TlsIo>> + Send>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), io::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move { Ok(TokioIo::new(dial(&this.tls, &this.address).await?)) })
    }
}

async fn dial(
    tls: &TlsConnector,
    address: &str,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    tls.connect(controller_name(), socket).await
}

fn controller_name() -> ServerName<'static> {
    ServerName::try_from(CONTROLLER_NAME).expect("the constant is a DNS name")
}

fn client_config(tls: &ClientTls) -> Result<Arc<ClientConfig>, TlsError> {
    let verifier = Arc::new(FleetVerifier {
        inner: webpki(&tls.ca_der)?,
        clock: tls.clock,
    });
    let builder = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(tls::VERSIONS)?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match &tls.identity {
        Some(own) => {
            builder.with_client_auth_cert(tls::chain(&own.chain_der), tls::key(&own.key_pem)?)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![tls::ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

fn webpki(ca_der: &[u8]) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let roots = tls::roots(ca_der)?;
    Ok(WebPkiServerVerifier::builder_with_provider(roots, tls::provider()).build()?)
}

/// The instant at which a chain is checked. It can only be later than the certificate's begin,
/// so that a clock in the past changes nothing.
fn instant(clock: Clock, end_entity: &CertificateDer<'_>, now: UnixTime) -> UnixTime {
    let Clock::Untrusted { floor } = clock else {
        return now;
    };
    // A certificate that does not parse is refused by the check itself.
    let from = crate::pki::Validity::of_certificate(end_entity).map_or(Millis(0), |v| v.from);
    UnixTime::since_unix_epoch(Duration::from_millis(from.max(floor).0))
}

/// Chain, name and purpose as WebPKI asks, at an instant that does not trust the clock.
#[derive(Debug)]
struct FleetVerifier {
    inner: Arc<WebPkiServerVerifier>,
    clock: Clock,
}

impl ServerCertVerifier for FleetVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let now = instant(self.clock, end_entity, now);
        self.inner
            .verify_server_cert(end_entity, intermediates, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Fetches the certificate (DER) of the authority that a join token names by its pin. The
/// controller sends it along; it counts only when its digest is the pin and the controller
/// proves to hold a certificate of it.
///
/// # Errors
/// [`ConnectError::Pin`] when another fleet answers, [`ConnectError::Unreachable`] when nobody
/// does.
pub async fn fetch_ca_by_pin(address: &str, pin: Digest) -> Result<Vec<u8>, ConnectError> {
    checked(address)?;
    let verifier = Arc::new(PinVerifier {
        pin,
        found: Mutex::default(),
    });
    let mut config = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(tls::VERSIONS)
        .map_err(TlsError::from)?
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![tls::ALPN.to_vec()];
    let unreachable = |source: io::Error| ConnectError::Unreachable {
        address: address.to_owned(),
        source: source.into(),
    };
    let connector = TlsConnector::from(Arc::new(config));
    let dialled = tokio::time::timeout(CONNECT_TIMEOUT, dial(&connector, address)).await;
    match dialled {
        Ok(Ok(_)) => {}
        Ok(Err(error)) if is_certificate_error(&error) => {
            return Err(ConnectError::Pin {
                address: address.to_owned(),
            });
        }
        Ok(Err(error)) => return Err(unreachable(error)),
        Err(_) => return Err(unreachable(io::ErrorKind::TimedOut.into())),
    }
    let found = verifier
        .found
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    found.ok_or_else(|| ConnectError::Pin {
        address: address.to_owned(),
    })
}

fn is_certificate_error(error: &io::Error) -> bool {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
}

/// Accepts exactly a chain that ends in the pinned authority.
#[derive(Debug)]
struct PinVerifier {
    pin: Digest,
    found: Mutex<Option<Vec<u8>>>,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let unknown = || rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let ca = intermediates.iter().find(|der| Digest::of(der) == self.pin);
        let ca = ca.ok_or_else(unknown)?;
        // A device that joins may not know the time yet.
        let now = instant(Clock::Untrusted { floor: Millis(0) }, end_entity, now);
        let inner = webpki(ca).map_err(|_| unknown())?;
        let verified = inner.verify_server_cert(end_entity, intermediates, name, ocsp, now)?;
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(ca.to_vec());
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &tls::provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &tls::provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        tls::provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod half_open;
