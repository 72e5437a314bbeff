//! Validated names. A value of one of these types is well formed; nothing checks it again. Plans
//! of large fleets hold the same few names millions of times, so a copy shares the text.

use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Longest name accepted, in bytes.
pub const MAX_NAME_LEN: usize = 63;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a valid {kind}: use 1 to {MAX_NAME_LEN} of a-z, 0-9, `-`, `_`, `.`, beginning and ending with a letter or digit"
)]
pub struct NameError {
    /// What the text was meant to name.
    pub kind: &'static str,
    /// The offending text, cut to a printable length.
    pub text: String,
}

fn well_formed(text: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    !bytes.is_empty()
        && bytes.len() <= MAX_NAME_LEN
        && alnum(bytes[0])
        && alnum(bytes[bytes.len() - 1])
        && bytes
            .iter()
            .all(|&b| alnum(b) || matches!(b, b'-' | b'_' | b'.'))
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $kind:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses and checks a name.
            ///
            /// # Errors
            /// [`NameError`] when the text breaks the rule that its message states.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                if well_formed(&text) {
                    Ok(Self(text.into()))
                } else {
                    let text = text.chars().take(80).collect();
                    Err(NameError { kind: $kind, text })
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&self.0)
            }
        }
    )*};
}

names! {
    /// A model: a named task with one input/output signature.
    ModelName = "model name";
    /// A version (release) of a model, for example `v1`.
    VersionName = "version name";
    /// One way to run a version, for example `large-int8`.
    VariantName = "variant name";
    /// A device. Unique in the fleet; also the last part of its certificate's URI.
    DeviceName = "device name";
    /// A deployment.
    DeploymentName = "deployment name";
    /// A rollout, for example `activity-3`.
    RolloutName = "rollout name";
    /// The fleet (trust domain) that a controller rules.
    FleetName = "fleet name";
    /// A person or program that steers or publishes.
    ActorName = "actor name";
}
