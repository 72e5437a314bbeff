//! Conversions between messages and domain types.
//!
//! Into the domain: `TryFrom<v1::X>`, which checks everything and names the field that is
//! missing or wrong. Onto the wire: `From<Domain>`, or `TryFrom` where a document is written
//! as JSON on the way.

mod common;
mod device;
mod operator;

pub use device::{
    Credentials, EnrolRequest, FetchPart, FetchRequest, FromController, FromDevice, Hello,
};
pub use operator::{
    AgentOrders, Change, JoinTokenRequest, ListQuery, ResourceKind, SteerVerb, UploadPart,
};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why a message is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// A field that must be there is not.
    #[error("the field `{0}` is missing")]
    Missing(&'static str),
    /// A byte string has the wrong length.
    #[error("the field `{field}` has {have} bytes where {want} are expected")]
    Length {
        /// The field.
        field: &'static str,
        /// Bytes sent.
        have: usize,
        /// Bytes expected.
        want: usize,
    },
    /// More than the limit of [`crate::limits`].
    #[error("the field `{field}` has {have} entries or bytes; at most {limit} are accepted")]
    TooMany {
        /// The field.
        field: &'static str,
        /// How many were sent.
        have: usize,
        /// How many are accepted.
        limit: usize,
    },
    /// A name that breaks the rule of names.
    #[error("the field `{field}` holds no valid name")]
    Name {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        source: sandpiper_core::names::NameError,
    },
    /// A label or selector that breaks their rules.
    #[error("the field `{field}` holds no valid label")]
    Label {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        source: sandpiper_core::policy::LabelError,
    },
    /// A document that is not the JSON of its type.
    #[error("the field `{field}` does not hold the expected document")]
    Json {
        /// The field.
        field: &'static str,
        /// What the parser says.
        source: serde_json::Error,
    },
    /// A value outside of its enumeration or range.
    #[error("the field `{field}` has the unknown value `{value}`")]
    Unknown {
        /// The field.
        field: &'static str,
        /// The value as text.
        value: String,
    },
    /// Two fields contradict each other.
    #[error("the fields `{0}` and `{1}` contradict each other")]
    Contradiction(&'static str, &'static str),
}

impl From<ConvertError> for tonic::Status {
    /// What a server answers to a message that it does not accept.
    fn from(error: ConvertError) -> Self {
        let text = match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        tonic::Status::invalid_argument(text)
    }
}

/// Parses the document of a field.
///
/// # Errors
/// [`ConvertError::Missing`] when there is none, [`ConvertError::Json`] when it does not parse.
pub fn from_json<T: DeserializeOwned>(field: &'static str, json: &[u8]) -> Result<T, ConvertError> {
    if json.is_empty() {
        return Err(ConvertError::Missing(field));
    }
    serde_json::from_slice(json).map_err(|source| ConvertError::Json { field, source })
}

/// Writes a document.
///
/// # Errors
/// [`ConvertError::Json`] when the value has no JSON form, for example a map with keys that
/// are not texts.
pub fn to_json<T: Serialize>(field: &'static str, value: &T) -> Result<Vec<u8>, ConvertError> {
    serde_json::to_vec(value).map_err(|source| ConvertError::Json { field, source })
}

fn at_most(field: &'static str, have: usize, limit: usize) -> Result<(), ConvertError> {
    if have > limit {
        return Err(ConvertError::TooMany { field, have, limit });
    }
    Ok(())
}

fn fixed<const N: usize>(field: &'static str, bytes: &[u8]) -> Result<[u8; N], ConvertError> {
    if bytes.is_empty() {
        return Err(ConvertError::Missing(field));
    }
    bytes.try_into().map_err(|_| ConvertError::Length {
        field,
        have: bytes.len(),
        want: N,
    })
}

fn present<T>(field: &'static str, value: Option<T>) -> Result<T, ConvertError> {
    value.ok_or(ConvertError::Missing(field))
}

fn name<T>(field: &'static str, text: String) -> Result<T, ConvertError>
where
    T: TryFrom<String, Error = sandpiper_core::names::NameError>,
{
    if text.is_empty() {
        return Err(ConvertError::Missing(field));
    }
    T::try_from(text).map_err(|source| ConvertError::Name { field, source })
}

fn labels(
    field: &'static str,
    labels: std::collections::BTreeMap<String, String>,
) -> Result<sandpiper_core::policy::Labels, ConvertError> {
    use sandpiper_core::policy::{check_label_key, check_label_value};
    at_most(field, labels.len(), crate::limits::MAX_LABELS)?;
    for (key, value) in &labels {
        check_label_key(key)
            .and_then(|()| check_label_value(value))
            .map_err(|source| ConvertError::Label { field, source })?;
    }
    Ok(labels)
}

fn text(field: &'static str, text: String) -> Result<String, ConvertError> {
    if text.is_empty() {
        return Err(ConvertError::Missing(field));
    }
    at_most(field, text.len(), crate::limits::MAX_TEXT_BYTES)?;
    Ok(text)
}
