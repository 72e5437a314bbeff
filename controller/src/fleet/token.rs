//! Join tokens as the store keeps them.

use sandpiper_core::digest::Digest;
use sandpiper_core::names::DeviceName;
use sandpiper_core::policy::Labels;
use sandpiper_core::time::Millis;
use serde::{Deserialize, Serialize};

/// Where join tokens are kept.
pub(super) const TOKENS: &[u8] = b"t/";

/// Where a join token is kept.
pub(super) fn key(id: &str) -> Vec<u8> {
    [TOKENS, id.as_bytes()].concat()
}

/// A join token. Its secret is not kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Short public name.
    pub id: String,
    /// Hash of the secret.
    pub secret: Digest,
    /// Labels of the device that uses it.
    pub labels: Labels,
    /// For people.
    pub description: String,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created_at: Millis,
    /// Until when it is good.
    pub expires_at: Millis,
    /// The device that used it.
    pub used_by: Option<DeviceName>,
    /// Whether an operator took it back.
    pub revoked: bool,
}
