//! Signed documents. The core knows their shape; keys and algorithms live in `transport`.

use crate::digest::Digest;
use serde::{Deserialize, Serialize};

/// What a signature speaks of, so that one kind of document cannot pass for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// A [`crate::manifest::VersionManifest`], signed by a publisher.
    Version,
    /// A [`crate::assignment::Assignment`], signed by the controller.
    Assignment,
    /// A [`crate::update::AgentRelease`], signed by a publisher.
    Agent,
}

impl Purpose {
    /// Bytes that go in front of the payload before it is signed.
    pub fn prefix(self) -> &'static [u8] {
        match self {
            Self::Version => b"sandpiper-version-v1\0",
            Self::Assignment => b"sandpiper-assignment-v1\0",
            Self::Agent => b"sandpiper-agent-v1\0",
        }
    }
}

/// A payload (JSON of the document, byte for byte as it was signed) with its signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// What it is.
    pub purpose: Purpose,
    /// JSON of the document.
    pub payload: Vec<u8>,
    /// Digest of the public key that signed it.
    pub key: Digest,
    /// Ed25519 signature over `purpose.prefix()` followed by `payload`.
    pub signature: Vec<u8>,
}

impl Signed {
    /// The bytes that the signature covers.
    pub fn message(purpose: Purpose, payload: &[u8]) -> Vec<u8> {
        [purpose.prefix(), payload].concat()
    }
}
