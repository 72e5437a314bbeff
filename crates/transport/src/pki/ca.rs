//! The authority that issues every certificate of a fleet.

use super::{
    BACKDATED, CA_LIFE, CONTROLLER_NAME, DEVICE_LIFE, KeyPair, PkiError, SERVICE_LIFE, request,
};
use crate::identity::{Identity, IdentityKind};
use crate::pem;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use sandpiper_core::digest::Digest;
use sandpiper_core::names::{ActorName, DeviceName, FleetName};
use sandpiper_core::time::Millis;
use std::net::IpAddr;
use std::time::Duration;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A certificate with its key, as they lie on disk.
#[derive(Clone)]
pub struct Issued {
    /// Certificates as PEM, its own first, the authority's last.
    pub chain_pem: String,
    /// Private key as PKCS#8 PEM. A secret: store it with mode 0600.
    pub key_pem: String,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued")
            .field("chain_pem", &self.chain_pem)
            .finish_non_exhaustive()
    }
}

/// A fleet's certificate authority.
pub struct Ca {
    fleet: FleetName,
    certificate_der: Vec<u8>,
    key_pem: String,
    issuer: Issuer<'static, rcgen::KeyPair>,
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ca({}, {})", self.fleet, self.pin().short())
    }
}

fn uri(text: &str) -> Result<SanType, PkiError> {
    let text = text
        .try_into()
        .map_err(|_| PkiError::Host(text.to_owned()))?;
    Ok(SanType::URI(text))
}

fn host(text: &str) -> Result<SanType, PkiError> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let bad = || PkiError::Host(text.chars().take(200).collect());
    rustls_pki_types::DnsName::try_from(text).map_err(|_| bad())?;
    Ok(SanType::DnsName(text.try_into().map_err(|_| bad())?))
}

/// What all certificates share. `now` is cut to whole seconds, which is all X.509 holds.
fn params(common_name: &str, now: Millis, life: Duration) -> Result<CertificateParams, PkiError> {
    let mut serial = [0; 16];
    SystemRandom::new()
        .fill(&mut serial)
        .map_err(|_| PkiError::Random)?;
    // A serial number is positive and has no leading zero byte.
    serial[0] = serial[0] & 0x3f | 0x40;
    let mut params = CertificateParams::default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = Duration::from_secs(now.0 / 1000);
    params.not_before = epoch + now.saturating_sub(BACKDATED);
    params.not_after = epoch + now.saturating_add(life);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

impl Ca {
    /// A new authority for a fleet.
    ///
    /// # Errors
    /// [`PkiError::Make`] or [`PkiError::Random`].
    pub fn create(fleet: &FleetName, now: Millis) -> Result<Self, PkiError> {
        let key = KeyPair::generate()?;
        let mut params = params(&format!("Sandpiper fleet {fleet}"), now, CA_LIFE)?;
        params.subject_alt_names = vec![uri(&format!("spiffe://{fleet}"))?];
        // It issues end entities only.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params
            .self_signed(&key.0)
            .map_err(|source| PkiError::Make {
                what: "certificate authority",
                source,
            })?;
        Self::load(&certificate.pem(), &key.to_pem())
    }

    /// From its files.
    ///
    /// # Errors
    /// [`PkiError`] when a file does not parse, is no authority, or the two do not belong
    /// together.
    pub fn load(certificate_pem: &str, key_pem: &str) -> Result<Self, PkiError> {
        let certificates = pem::certificates(certificate_pem);
        let der = certificates.first().ok_or(PkiError::Certificate)?;
        let key = KeyPair::from_pem(key_pem)?;
        let (_, parsed) = X509Certificate::from_der(der).map_err(|_| PkiError::Certificate)?;
        if parsed.public_key().subject_public_key.data.as_ref() != key.0.public_key_raw() {
            return Err(PkiError::Pair);
        }
        let fleet = fleet_of(&parsed)?;
        let issuer = Issuer::from_ca_cert_der(der, key.0).map_err(|source| PkiError::Make {
            what: "certificate authority",
            source,
        })?;
        let key_pem = key_pem.to_owned();
        Ok(Self {
            fleet,
            certificate_der: der.to_vec(),
            key_pem,
            issuer,
        })
    }

    /// The fleet.
    pub fn fleet(&self) -> &FleetName {
        &self.fleet
    }

    /// Its certificate, DER.
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate_der
    }

    /// Its certificate as PEM.
    pub fn certificate_pem(&self) -> String {
        pem::encode("CERTIFICATE", &self.certificate_der)
    }

    /// Its private key as PEM. A secret: store it with mode 0600.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// The digest by which a join token names it.
    pub fn pin(&self) -> Digest {
        Digest::of(&self.certificate_der)
    }

    /// A certificate for the controller's listeners, for this key: it stays the same from one
    /// certificate to the next, since [`KeyPair::pin`] of it is in commands that people keep.
    /// `hosts` are further names and addresses, for clients that are not ours; ours ask for
    /// [`CONTROLLER_NAME`].
    ///
    /// # Errors
    /// [`PkiError::Host`] naming the host that is not valid, or [`PkiError::Make`].
    pub fn issue_server(
        &self,
        name: &ActorName,
        hosts: &[String],
        key: &KeyPair,
        now: Millis,
    ) -> Result<Issued, PkiError> {
        let mut sans = vec![host(CONTROLLER_NAME)?];
        for text in hosts {
            let san = host(text)?;
            if !sans.contains(&san) {
                sans.push(san);
            }
        }
        self.with_key(IdentityKind::Controller, name, sans, key, now)
    }

    /// A certificate and key for an operator.
    ///
    /// # Errors
    /// [`PkiError::Make`].
    pub fn issue_operator(&self, name: &ActorName, now: Millis) -> Result<Issued, PkiError> {
        let key = KeyPair::generate()?;
        self.with_key(IdentityKind::Operator, name, Vec::new(), &key, now)
    }

    /// A certificate for the key of a device's request: 7 days, the device's own certificate
    /// first, the authority's last, DER.
    ///
    /// # Errors
    /// [`PkiError`] when the request is malformed, not signed by its key or asks for more than
    /// a device gets.
    pub fn issue_device(
        &self,
        name: &DeviceName,
        csr_der: &[u8],
        now: Millis,
    ) -> Result<Vec<Vec<u8>>, PkiError> {
        let key = request::key_of(csr_der)?;
        let identity = Identity::device(&self.fleet, name);
        let own = self.issue(&identity, Vec::new(), &key, now, DEVICE_LIFE)?;
        Ok(vec![own, self.certificate_der.clone()])
    }

    fn with_key(
        &self,
        kind: IdentityKind,
        name: &ActorName,
        sans: Vec<SanType>,
        key: &KeyPair,
        now: Millis,
    ) -> Result<Issued, PkiError> {
        let identity = Identity {
            fleet: self.fleet.clone(),
            kind,
            name: name.clone(),
        };
        let own = self.issue(&identity, sans, &key.0, now, SERVICE_LIFE)?;
        let chain_pem = super::chain_to_pem(&[&own, &self.certificate_der]);
        Ok(Issued {
            chain_pem,
            key_pem: key.to_pem(),
        })
    }

    fn issue(
        &self,
        identity: &Identity,
        mut sans: Vec<SanType>,
        key: &impl PublicKeyData,
        now: Millis,
        life: Duration,
    ) -> Result<Vec<u8>, PkiError> {
        let mut params = params(identity.name.as_str(), now, life)?;
        sans.push(uri(&identity.to_string())?);
        params.subject_alt_names = sans;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match identity.kind {
            IdentityKind::Controller => ExtendedKeyUsagePurpose::ServerAuth,
            IdentityKind::Device | IdentityKind::Operator | IdentityKind::Publisher => {
                ExtendedKeyUsagePurpose::ClientAuth
            }
        }];
        let certificate = params
            .signed_by(key, &self.issuer)
            .map_err(|source| PkiError::Make {
                what: "certificate",
                source,
            })?;
        Ok(certificate.der().to_vec())
    }
}

/// An authority names its fleet by a URI without a path.
fn fleet_of(certificate: &X509Certificate<'_>) -> Result<FleetName, PkiError> {
    if !certificate.is_ca() {
        return Err(PkiError::NoAuthority);
    }
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| PkiError::Certificate)?;
    let uri = names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .find_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix("spiffe://"),
            _ => None,
        });
    Ok(FleetName::new(uri.ok_or(PkiError::NoAuthority)?)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::Validity;
    use super::*;

    const NOW: Millis = Millis(1_790_000_000_123);

    fn ca() -> Ca {
        Ca::create(&FleetName::new("garden").unwrap(), NOW).unwrap()
    }

    #[test]
    fn an_authority_survives_its_files() {
        let ca = ca();
        let again = Ca::load(&ca.certificate_pem(), ca.key_pem()).unwrap();
        assert_eq!((again.fleet(), again.pin()), (ca.fleet(), ca.pin()));
        let other = self::ca();
        let mixed = Ca::load(&ca.certificate_pem(), other.key_pem());
        assert!(matches!(mixed, Err(PkiError::Pair)));
        assert!(matches!(
            Ca::load("", ca.key_pem()),
            Err(PkiError::Certificate)
        ));
    }

    #[test]
    fn a_service_certificate_is_no_authority() {
        let issued = ca()
            .issue_operator(&ActorName::new("admin").unwrap(), NOW)
            .unwrap();
        let loaded = Ca::load(&issued.chain_pem, &issued.key_pem);
        assert!(matches!(loaded, Err(PkiError::NoAuthority)));
    }

    #[test]
    fn a_device_gets_its_identity_for_seven_days() {
        let (ca, key) = (ca(), KeyPair::generate().unwrap());
        let name = DeviceName::new("shed-1").unwrap();
        let chain = ca
            .issue_device(&name, &key.request().unwrap(), NOW)
            .unwrap();
        let identity = Identity::of_certificate(&chain[0]).unwrap();
        assert_eq!(identity.to_string(), "spiffe://garden/device/shed-1");
        assert_eq!(identity.device_name(), Some(name.clone()));
        let validity = Validity::of_certificate(&chain[0]).unwrap();
        assert_eq!(validity.to.0 - NOW.0 / 1000 * 1000, 7 * 86_400_000);
        assert!(validity.from < NOW && validity.renew_at() > NOW);
        assert_eq!(chain[1], ca.certificate_der());
        let again = ca
            .issue_device(&name, &key.request().unwrap(), NOW)
            .unwrap();
        assert_ne!(
            again[0], chain[0],
            "a renewed certificate has a serial number of its own"
        );
    }

    #[test]
    fn hosts_are_checked() {
        let name = ActorName::new("controller").unwrap();
        let good = [
            "127.0.0.1".to_owned(),
            "pi.local".to_owned(),
            "::1".to_owned(),
        ];
        let key = KeyPair::generate().unwrap();
        assert!(ca().issue_server(&name, &good, &key, NOW).is_ok());
        let bad = ca().issue_server(&name, &["not a host".to_owned()], &key, NOW);
        assert!(matches!(bad, Err(PkiError::Host(_))));
    }
}
