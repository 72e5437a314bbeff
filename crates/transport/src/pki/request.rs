//! Certificate requests of devices: what they may ask for.

use super::PkiError;
use rcgen::{CertificateSigningRequestParams, IsCa, PublicKeyData as _, SubjectPublicKeyInfo};
use rustls_pki_types::CertificateSigningRequestDer;

/// The key of a request, once the request is signed by it and asks for nothing more.
///
/// The certificate is made from the key alone, so nothing that a request asks for could slip
/// in; it is refused all the same, because a device that asks for more than its due is broken
/// or hostile, and its operator should hear of it.
pub(super) fn key_of(csr_der: &[u8]) -> Result<SubjectPublicKeyInfo, PkiError> {
    let der = CertificateSigningRequestDer::from(csr_der);
    let request = CertificateSigningRequestParams::from_der(&der).map_err(|error| match error {
        rcgen::Error::UnsupportedExtension => PkiError::Presumptuous("an unknown extension"),
        _ => PkiError::Request,
    })?;
    let params = &request.params;
    if !params.key_usages.is_empty() || !params.extended_key_usages.is_empty() {
        return Err(PkiError::Presumptuous("a key usage"));
    }
    if !params.subject_alt_names.is_empty() {
        return Err(PkiError::Presumptuous("names"));
    }
    if !matches!(params.is_ca, IsCa::NoCa) {
        return Err(PkiError::Presumptuous("basic constraints"));
    }
    if request.public_key.algorithm() != &rcgen::PKCS_ECDSA_P256_SHA256 {
        return Err(PkiError::Algorithm);
    }
    let spki = request.public_key.subject_public_key_info();
    SubjectPublicKeyInfo::from_der(&spki).map_err(|_| PkiError::Algorithm)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};

    fn request(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::default();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        params.serialize_request(&key).unwrap().der().to_vec()
    }

    #[test]
    fn a_plain_request_passes() {
        let key = super::super::KeyPair::generate().unwrap();
        let der = key.request().unwrap();
        assert_eq!(key_of(&der).unwrap().der_bytes(), key.0.public_key_raw());
    }

    #[test]
    fn foreign_key_usages_and_names_are_refused() {
        let usage = request(|p| p.key_usages.push(KeyUsagePurpose::KeyCertSign));
        assert!(matches!(
            key_of(&usage),
            Err(PkiError::Presumptuous("a key usage"))
        ));
        let serve = request(|p| {
            p.extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth)
        });
        assert!(matches!(
            key_of(&serve),
            Err(PkiError::Presumptuous("a key usage"))
        ));
        let name = rcgen::SanType::URI("spiffe://garden/operator/eve".try_into().unwrap());
        let named = request(|p| p.subject_alt_names.push(name));
        assert!(matches!(
            key_of(&named),
            Err(PkiError::Presumptuous("names"))
        ));
    }

    #[test]
    fn a_broken_signature_or_another_algorithm_is_refused() {
        let mut broken = request(|_| ());
        *broken.last_mut().unwrap() ^= 1;
        assert!(matches!(key_of(&broken), Err(PkiError::Request)));
        assert!(matches!(key_of(b"nothing"), Err(PkiError::Request)));
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let other = CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        assert!(matches!(key_of(other.der()), Err(PkiError::Algorithm)));
    }
}
