//! The fleet's certificate authority, key pairs and certificate requests.
//!
//! One authority per fleet, kept by the controller. What it issues names exactly one
//! [`Identity`](crate::identity::Identity) as URI, and says what it may be used for: a device's
//! certificate can never serve, a controller's can never act as a client.

mod ca;
mod request;

pub use ca::{Ca, Issued};

use crate::identity::IdentityError;
use crate::pem;
use sandpiper_core::names::NameError;
use sandpiper_core::time::Millis;
use std::time::Duration;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Life of a device's certificate. Renewed at half of it.
pub const DEVICE_LIFE: Duration = Duration::from_secs(7 * 86_400);
/// Life of the controller's and the operators' certificates.
pub const SERVICE_LIFE: Duration = Duration::from_secs(365 * 86_400);
/// Life of the authority.
pub const CA_LIFE: Duration = Duration::from_secs(3650 * 86_400);
/// Certificates are good this long before they were made, for peers whose clock is late.
pub const BACKDATED: Duration = Duration::from_secs(3600);

/// The DNS name that every controller's certificate carries and every client asks for, so that
/// a controller may change its address without a new certificate. `.internal` is reserved.
pub const CONTROLLER_NAME: &str = "controller.sandpiper.internal";

/// Why a key, certificate or request is not made or accepted.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The library that writes certificates refused.
    #[error("cannot make a {what}")]
    Make {
        /// What was to be made.
        what: &'static str,
        /// Why not.
        source: rcgen::Error,
    },
    /// The system gave no randomness.
    #[error("the system gives no random bytes")]
    Random,
    /// Not a key that this fleet uses.
    #[error("this is not a P-256 private key in PKCS#8 PEM (`BEGIN PRIVATE KEY`)")]
    Key,
    /// Not a certificate.
    #[error("this is not a certificate in PEM (`BEGIN CERTIFICATE`) or DER")]
    Certificate,
    /// Certificate and key do not belong together.
    #[error("the private key does not belong to the certificate")]
    Pair,
    /// A certificate that is no fleet's authority.
    #[error("the certificate is not the authority of a fleet")]
    NoAuthority,
    /// Not a certificate request, or its signature does not fit.
    #[error("this is not a PKCS#10 certificate request signed by its own key")]
    Request,
    /// A request for more than a device gets.
    #[error(
        "the certificate request asks for {0}; a device may only ask for a signature by its key"
    )]
    Presumptuous(&'static str),
    /// The key of a request is of an algorithm that this fleet does not use.
    #[error("the certificate request holds no P-256 key")]
    Algorithm,
    /// A name in a certificate is not valid.
    #[error("`{0}` is neither a host name nor an address")]
    Host(String),
    /// The identity is not valid.
    #[error("the certificate names no identity")]
    Identity(#[from] IdentityError),
    /// The fleet's name is not valid.
    #[error("the authority names no fleet")]
    Fleet(#[from] NameError),
}

/// A P-256 key pair for TLS.
pub struct KeyPair(rcgen::KeyPair);

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyPair(P-256)")
    }
}

impl KeyPair {
    /// A new pair.
    ///
    /// # Errors
    /// [`PkiError::Make`] when the system gives no randomness.
    pub fn generate() -> Result<Self, PkiError> {
        rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
            .map(Self)
            .map_err(|source| PkiError::Make {
                what: "key pair",
                source,
            })
    }

    /// From PEM.
    ///
    /// # Errors
    /// [`PkiError::Key`].
    pub fn from_pem(text: &str) -> Result<Self, PkiError> {
        let der = pem::pkcs8(text).ok_or(PkiError::Key)?;
        let der = rustls_pki_types::PrivatePkcs8KeyDer::from(der);
        rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ECDSA_P256_SHA256)
            .map(Self)
            .map_err(|_| PkiError::Key)
    }

    /// As PEM. A secret: store it with mode 0600.
    pub fn to_pem(&self) -> String {
        pem::encode("PRIVATE KEY", self.0.serialized_der())
    }

    /// SHA-256 of the public key (SubjectPublicKeyInfo, RFC 7469), as `curl --pinnedpubkey` takes
    /// it: by this a program that knows nothing of the fleet recognises its controller.
    pub fn pin(&self) -> String {
        use base64::Engine as _;
        use rcgen::PublicKeyData as _;
        let key = self.0.subject_public_key_info();
        let digest = ring::digest::digest(&ring::digest::SHA256, &key);
        let text = base64::engine::general_purpose::STANDARD.encode(digest.as_ref());
        format!("sha256//{text}")
    }

    /// A certificate request (PKCS#10 DER) that proves possession of the key and asks for
    /// nothing else: the authority decides what the certificate says.
    ///
    /// # Errors
    /// [`PkiError::Make`].
    pub fn request(&self) -> Result<Vec<u8>, PkiError> {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let request = params
            .serialize_request(&self.0)
            .map_err(|source| PkiError::Make {
                what: "certificate request",
                source,
            })?;
        Ok(request.der().to_vec())
    }
}

/// Span in which a certificate is good, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// From this instant on.
    pub from: Millis,
    /// Up to this instant.
    pub to: Millis,
}

impl Validity {
    /// Reads it from a certificate.
    ///
    /// # Errors
    /// [`PkiError::Certificate`].
    pub fn of_certificate(der: &[u8]) -> Result<Self, PkiError> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| PkiError::Certificate)?;
        let millis = |time: x509_parser::time::ASN1Time| {
            Millis(
                u64::try_from(time.timestamp())
                    .unwrap_or(0)
                    .saturating_mul(1000),
            )
        };
        let validity = certificate.validity();
        Ok(Self {
            from: millis(validity.not_before),
            to: millis(validity.not_after),
        })
    }

    /// When to renew: at half of its life.
    pub fn renew_at(&self) -> Millis {
        self.from.plus(self.to.since(self.from) / 2)
    }
}

/// Certificates as PEM, one after the other.
pub fn chain_to_pem<C: AsRef<[u8]>>(chain_der: &[C]) -> String {
    chain_der
        .iter()
        .map(|der| pem::encode("CERTIFICATE", der.as_ref()))
        .collect()
}

/// Certificates from PEM, in order.
///
/// # Errors
/// [`PkiError::Certificate`] when there is none.
pub fn chain_from_pem(text: &str) -> Result<Vec<Vec<u8>>, PkiError> {
    let chain: Vec<_> = pem::certificates(text)
        .iter()
        .map(|der| der.to_vec())
        .collect();
    if chain.is_empty() {
        Err(PkiError::Certificate)
    } else {
        Ok(chain)
    }
}
