//! Signatures of this world. Who does not know the key cannot make one; the real ones are tested
//! where they are made.

use sandpiper_core::digest::Digest;
use sandpiper_core::signed::{Purpose, Signed};

/// A key that signs.
#[derive(Debug, Clone, Copy)]
pub struct Key(&'static str);

/// Signs assignments.
pub const CONTROLLER: Key = Key("controller");
/// Signs versions.
pub const PUBLISHER: Key = Key("publisher");

impl Key {
    /// A key that nobody trusts.
    pub fn of_a_stranger() -> Self {
        Self("stranger")
    }

    fn signature(self, purpose: Purpose, payload: &[u8]) -> Vec<u8> {
        let message = Signed::message(purpose, payload);
        let all = [self.0.as_bytes(), &message].concat();
        Digest::of(&all).as_bytes().to_vec()
    }

    /// Signs.
    pub fn sign(self, purpose: Purpose, payload: Vec<u8>) -> Signed {
        Signed {
            purpose,
            signature: self.signature(purpose, &payload),
            key: Digest::of(self.0.as_bytes()),
            payload,
        }
    }

    /// The payload, if this key signed it for this purpose.
    pub fn verify(self, signed: &Signed, purpose: Purpose) -> Option<&[u8]> {
        let expected = self.signature(purpose, &signed.payload);
        let genuine = signed.purpose == purpose && signed.signature == expected;
        genuine.then_some(&signed.payload)
    }
}
