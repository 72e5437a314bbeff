//! Ed25519 signatures over documents, each bound to a purpose.

use crate::pem;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use sandpiper_core::digest::Digest;
use sandpiper_core::signed::{Purpose, Signed};
use std::collections::BTreeMap;

/// Bytes of an Ed25519 public key.
pub const PUBLIC_KEY_BYTES: usize = 32;

/// Why a key cannot be made or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The system gave no randomness.
    #[error("the system gives no random bytes")]
    Random,
    /// Not an Ed25519 key in PKCS#8.
    #[error("this is not an Ed25519 private key in PKCS#8 PEM (`BEGIN PRIVATE KEY`)")]
    Format,
}

/// Why a signed payload is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// It was signed for another purpose.
    #[error("the payload is a signed {have:?} where a {want:?} is expected")]
    Purpose {
        /// Its purpose.
        have: Purpose,
        /// The purpose it must have.
        want: Purpose,
    },
    /// Nobody trusted has this key.
    #[error("the payload is signed by the key {0}, which is not trusted here")]
    UnknownKey(Digest),
    /// The signature does not fit payload and key.
    #[error("the signature of the key {0} does not fit the payload: it was altered")]
    Bad(Digest),
}

/// A private key that signs.
pub struct SigningKey {
    pkcs8: Vec<u8>,
    pair: Ed25519KeyPair,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.id().short())
    }
}

impl SigningKey {
    /// A new key.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn generate() -> Result<Self, KeyError> {
        let document =
            Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KeyError::Random)?;
        Self::from_pkcs8(document.as_ref())
    }

    /// From PKCS#8, versions 1 and 2.
    ///
    /// # Errors
    /// [`KeyError::Format`].
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        // Version 1, as OpenSSL writes it, lacks the public key.
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| KeyError::Format)?;
        Ok(Self {
            pkcs8: der.to_vec(),
            pair,
        })
    }

    /// From PEM (`BEGIN PRIVATE KEY`).
    ///
    /// # Errors
    /// [`KeyError::Format`].
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        Self::from_pkcs8(&pem::pkcs8(text).ok_or(KeyError::Format)?)
    }

    /// As PEM. A secret: store it with mode 0600.
    pub fn to_pem(&self) -> String {
        pem::encode("PRIVATE KEY", &self.pkcs8)
    }

    /// The public key.
    pub fn public_key(&self) -> [u8; PUBLIC_KEY_BYTES] {
        let bytes = self.pair.public_key().as_ref();
        bytes
            .try_into()
            .expect("an Ed25519 public key has 32 bytes")
    }

    /// The digest that names the public key.
    pub fn id(&self) -> Digest {
        Digest::of(&self.public_key())
    }

    /// Signs a payload for a purpose.
    pub fn sign(&self, purpose: Purpose, payload: Vec<u8>) -> Signed {
        let signature = self.pair.sign(&Signed::message(purpose, &payload));
        Signed {
            purpose,
            payload,
            key: self.id(),
            signature: signature.as_ref().to_vec(),
        }
    }
}

/// Public keys that are trusted for one purpose or several.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyingKeys(BTreeMap<Digest, [u8; PUBLIC_KEY_BYTES]>);

impl FromIterator<[u8; PUBLIC_KEY_BYTES]> for VerifyingKeys {
    fn from_iter<I: IntoIterator<Item = [u8; PUBLIC_KEY_BYTES]>>(keys: I) -> Self {
        Self(
            keys.into_iter()
                .map(|key| (Digest::of(&key), key))
                .collect(),
        )
    }
}

impl VerifyingKeys {
    /// The keys.
    pub fn keys(&self) -> impl Iterator<Item = &[u8; PUBLIC_KEY_BYTES]> {
        self.0.values()
    }

    /// The payload, once its purpose, key and signature are right.
    ///
    /// # Errors
    /// [`SignatureError`] saying which of them is not.
    pub fn verify<'a>(
        &self,
        signed: &'a Signed,
        purpose: Purpose,
    ) -> Result<&'a [u8], SignatureError> {
        if signed.purpose != purpose {
            return Err(SignatureError::Purpose {
                have: signed.purpose,
                want: purpose,
            });
        }
        let key = self
            .0
            .get(&signed.key)
            .ok_or(SignatureError::UnknownKey(signed.key))?;
        UnparsedPublicKey::new(&ED25519, key)
            .verify(
                &Signed::message(purpose, &signed.payload),
                &signed.signature,
            )
            .map_err(|_| SignatureError::Bad(signed.key))?;
        Ok(&signed.payload)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn signed() -> (VerifyingKeys, Signed) {
        let key = SigningKey::generate().unwrap();
        let signed = key.sign(Purpose::Version, b"{\"version\":\"v1\"}".to_vec());
        (VerifyingKeys::from_iter([key.public_key()]), signed)
    }

    #[test]
    fn what_was_signed_verifies() {
        let (keys, signed) = signed();
        assert_eq!(
            keys.verify(&signed, Purpose::Version),
            Ok(signed.payload.as_slice())
        );
    }

    #[test]
    fn purposes_cannot_be_swapped() {
        let (keys, mut signed) = signed();
        let swapped = keys.verify(&signed, Purpose::Assignment);
        let want = Purpose::Assignment;
        assert_eq!(
            swapped,
            Err(SignatureError::Purpose {
                have: Purpose::Version,
                want
            })
        );
        // Nor by rewriting the label: the prefix is part of what was signed.
        signed.purpose = want;
        assert_eq!(
            keys.verify(&signed, want),
            Err(SignatureError::Bad(signed.key))
        );
    }

    #[test]
    fn altered_or_foreign_payloads_are_refused_and_the_key_is_named() {
        let (keys, signed) = signed();
        let mut altered = signed.clone();
        altered.payload[0] ^= 1;
        assert_eq!(
            keys.verify(&altered, Purpose::Version),
            Err(SignatureError::Bad(signed.key))
        );
        let mut short = signed.clone();
        short.signature.truncate(63);
        assert_eq!(
            keys.verify(&short, Purpose::Version),
            Err(SignatureError::Bad(signed.key))
        );
        let stranger = SigningKey::generate().unwrap();
        let mut foreign = stranger.sign(Purpose::Version, signed.payload.clone());
        let unknown = SignatureError::UnknownKey(stranger.id());
        assert_eq!(keys.verify(&foreign, Purpose::Version), Err(unknown));
        foreign.key = signed.key;
        assert_eq!(
            keys.verify(&foreign, Purpose::Version),
            Err(SignatureError::Bad(signed.key))
        );
    }

    #[test]
    fn a_key_survives_its_pem() {
        let key = SigningKey::generate().unwrap();
        let again = SigningKey::from_pem(&key.to_pem()).unwrap();
        assert_eq!(again.public_key(), key.public_key());
        assert_eq!(
            SigningKey::from_pem("nothing").unwrap_err(),
            KeyError::Format
        );
        assert!(!format!("{key:?}").contains(&key.to_pem()[30..60]));
    }
}
