//! What both ends of a TLS connection share.

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::sync::Arc;

/// TLS 1.3 only: every peer is ours, and 1.2 would only add attack surface.
pub(crate) const VERSIONS: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// gRPC speaks HTTP/2 only.
pub(crate) const ALPN: &[u8] = b"h2";

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate or key file does not parse.
    #[error("a certificate or key cannot be read")]
    Pki(#[from] crate::pki::PkiError),
    /// Certificates and key are not usable together.
    #[error("the certificates and the key cannot be used for TLS")]
    Config(#[from] rustls::Error),
    /// The authority cannot be used to check peers.
    #[error("peers cannot be checked with this certificate authority")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

pub(crate) fn roots(ca_der: &[u8]) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(ca_der.to_vec()))?;
    Ok(Arc::new(roots))
}

pub(crate) fn chain(chain_der: &[Vec<u8>]) -> Vec<CertificateDer<'static>> {
    chain_der
        .iter()
        .cloned()
        .map(CertificateDer::from)
        .collect()
}

pub(crate) fn key(key_pem: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    let der = crate::pem::pkcs8(key_pem).ok_or(crate::pki::PkiError::Key)?;
    Ok(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der)))
}
