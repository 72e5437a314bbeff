//! Signed payloads and artefact references.

use super::{ConvertError, fixed};
use crate::v1;
use sandpiper_core::digest::{ArtefactRef, Digest};
use sandpiper_core::signed::{Purpose, Signed};

impl From<Signed> for v1::Signed {
    fn from(signed: Signed) -> Self {
        let purpose = match signed.purpose {
            Purpose::Version => v1::signed::Purpose::Version,
            Purpose::Assignment => v1::signed::Purpose::Assignment,
            Purpose::Agent => v1::signed::Purpose::Agent,
        };
        Self {
            purpose: purpose.into(),
            payload: signed.payload,
            key: signed.key.as_bytes().to_vec(),
            signature: signed.signature,
        }
    }
}

impl TryFrom<v1::Signed> for Signed {
    type Error = ConvertError;
    fn try_from(wire: v1::Signed) -> Result<Self, ConvertError> {
        let purpose = match v1::signed::Purpose::try_from(wire.purpose) {
            Ok(v1::signed::Purpose::Version) => Purpose::Version,
            Ok(v1::signed::Purpose::Assignment) => Purpose::Assignment,
            Ok(v1::signed::Purpose::Agent) => Purpose::Agent,
            Ok(v1::signed::Purpose::Unspecified) => {
                return Err(ConvertError::Missing("signed.purpose"));
            }
            Err(_) => {
                let value = wire.purpose.to_string();
                return Err(ConvertError::Unknown {
                    field: "signed.purpose",
                    value,
                });
            }
        };
        if wire.payload.is_empty() {
            return Err(ConvertError::Missing("signed.payload"));
        }
        let signature: [u8; 64] = fixed("signed.signature", &wire.signature)?;
        Ok(Self {
            purpose,
            payload: wire.payload,
            key: Digest::from_bytes(fixed("signed.key", &wire.key)?),
            signature: signature.to_vec(),
        })
    }
}

impl From<ArtefactRef> for v1::ArtefactRef {
    fn from(artefact: ArtefactRef) -> Self {
        Self {
            digest: artefact.digest.as_bytes().to_vec(),
            size_bytes: artefact.size_bytes,
        }
    }
}

impl TryFrom<v1::ArtefactRef> for ArtefactRef {
    type Error = ConvertError;
    fn try_from(wire: v1::ArtefactRef) -> Result<Self, ConvertError> {
        let limit = sandpiper_core::chunks::MAX_ARTEFACT_BYTES;
        if wire.size_bytes > limit {
            return Err(ConvertError::TooMany {
                field: "artefact.size_bytes",
                have: usize::try_from(wire.size_bytes).unwrap_or(usize::MAX),
                limit: usize::try_from(limit).unwrap_or(usize::MAX),
            });
        }
        let digest = Digest::from_bytes(fixed("artefact.digest", &wire.digest)?);
        Ok(Self {
            digest,
            size_bytes: wire.size_bytes,
        })
    }
}
