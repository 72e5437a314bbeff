//! The context file: how a command finds its controller and who it speaks as.

use sandpiper_transport::fsio::{FsError, write_atomic};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Content of `admin.toml`. It holds a private key: its mode is 0600.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// The fleet.
    pub fleet: String,
    /// Operator listener, `HOST:PORT`.
    pub address: String,
    /// The fleet's certificate authority, PEM.
    pub ca_pem: String,
    /// The operator's certificates, PEM, its own first.
    pub chain_pem: String,
    /// The operator's private key, PKCS#8 PEM.
    pub key_pem: String,
    /// Private key that signs versions, if this operator is a publisher too.
    pub publisher_key_pem: Option<String>,
}

impl std::fmt::Debug for Context {
    /// Without the keys, so that they cannot reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("fleet", &self.fleet)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// Why a context cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// The file cannot be read.
    #[error("cannot read the context file")]
    Read(#[from] std::io::Error),
    /// The file is not a context.
    #[error("the context file is malformed")]
    Parse(#[from] toml::de::Error),
    /// The context has no TOML form.
    #[error("the context cannot be written as TOML")]
    Encode(#[from] toml::ser::Error),
    /// The file cannot be written.
    #[error("cannot write the context file")]
    Write(#[from] FsError),
}

impl Context {
    /// Reads a context file.
    ///
    /// # Errors
    /// [`ContextError::Read`] or [`ContextError::Parse`].
    pub fn load(path: &Path) -> Result<Self, ContextError> {
        Ok(toml::from_str(&std::fs::read_to_string(path)?)?)
    }

    /// Writes a context file, atomically, readable by its owner only.
    ///
    /// # Errors
    /// [`ContextError::Encode`] or [`ContextError::Write`].
    pub fn save(&self, path: &Path) -> Result<(), ContextError> {
        write_atomic(path, toml::to_string(self)?.as_bytes(), 0o600)?;
        Ok(())
    }
}
