//! The TLS side of a listener.
//!
//! tonic freezes one TLS configuration for the life of a server and bounds neither the number
//! of handshakes nor their length, so accepting is done here: [`listen`] gives a stream of
//! finished connections for `serve_with_incoming`, and [`ServerTls::replace`] changes the
//! certificate for the next handshake while open streams go on.

mod accept;

pub use crate::tls::TlsError;
pub use accept::{Incoming, Limits, TlsConnection, listen};

use crate::identity::Identity;
use crate::pki::{Issued, chain_from_pem};
use crate::tls;
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use sandpiper_core::time::Millis;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Whether a listener lets in peers without a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificates {
    /// For devices: one that enrols has none yet. A certificate that is sent must be good.
    Optional,
    /// For operators.
    Required,
}

/// Who is at the other end of a connection: in the extensions of every request that came
/// through [`listen`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The identity of its certificate; none for a peer that sent no certificate.
    pub identity: Option<Identity>,
    /// Where it is.
    pub addr: SocketAddr,
    /// End of its certificate. It was checked at the handshake only, so a long stream must be
    /// cut here.
    pub expires: Option<Millis>,
}

/// A TLS configuration that can be replaced while it is in use.
#[derive(Debug)]
pub struct ServerTls {
    config: ArcSwap<ServerConfig>,
    fleet_ca_der: Vec<u8>,
    clients: ClientCertificates,
}

impl ServerTls {
    /// Serves with a certificate of the fleet's authority, and accepts only clients of it.
    ///
    /// # Errors
    /// [`TlsError`] when a certificate or key does not parse or they do not fit together.
    pub fn new(
        issued: &Issued,
        ca_der: &[u8],
        clients: ClientCertificates,
    ) -> Result<Arc<Self>, TlsError> {
        let config = ArcSwap::new(server_config(issued, ca_der, clients)?);
        Ok(Arc::new(Self {
            config,
            fleet_ca_der: ca_der.to_vec(),
            clients,
        }))
    }

    /// Uses another certificate and key from the next handshake on.
    ///
    /// # Errors
    /// [`TlsError`]; the former certificate then stays in use.
    pub fn replace(&self, issued: &Issued) -> Result<(), TlsError> {
        self.config
            .store(server_config(issued, &self.fleet_ca_der, self.clients)?);
        Ok(())
    }

    fn current(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }
}

fn server_config(
    issued: &Issued,
    ca_der: &[u8],
    clients: ClientCertificates,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = tls::provider();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(tls::roots(ca_der)?, provider.clone());
    let verifier = match clients {
        ClientCertificates::Optional => verifier.allow_unauthenticated().build()?,
        ClientCertificates::Required => verifier.build()?,
    };
    let chain = chain_from_pem(&issued.chain_pem)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(tls::VERSIONS)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(tls::chain(&chain), tls::key(&issued.key_pem)?)?;
    config.alpn_protocols = vec![tls::ALPN.to_vec()];
    // A resumed session would skip the check of the client's certificate, and tickets cost
    // memory for every connection. Streams are long; handshakes are rare.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// A tonic server with the bounds that every listener of a fleet keeps.
pub fn builder() -> tonic::transport::Server {
    tonic::transport::Server::builder()
        // tonic's default lifts hyper's 200 to unlimited. A device has one stream and a few
        // fetches, an operator a few watches.
        .max_concurrent_streams(8)
        .http2_max_header_list_size(8 << 10)
        .http2_max_pending_accept_reset_streams(Some(16))
        // Finds half-open connections whose device does not ping; devices ping every 45 s.
        .http2_keepalive_interval(Some(Duration::from_secs(120)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        // 64 KiB per stream holds one chunk; larger windows only pile up in memory.
        .initial_stream_window_size(64 << 10)
        .initial_connection_window_size(256 << 10)
}
