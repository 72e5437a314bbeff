//! Connecting to the controller that the context file names.

use super::error::CliError;
use crate::api::client::OperatorClient;
use crate::context::Context;
use sandpiper_transport::client::{ClientIdentity, ClientTls, Clock};
use sandpiper_transport::signing::SigningKey;
use std::path::{Path, PathBuf};

/// The context file: as given, or `~/.config/sandpiper/config.toml`.
fn path(given: Option<&Path>) -> Result<PathBuf, CliError> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let found = home
        .map(|home| home.join(".config/sandpiper/config.toml"))
        .filter(|p| p.exists());
    found.ok_or_else(|| {
        CliError::Usage(
            "no controller is known: give --context FILE or set SANDPIPER_CONTEXT (`sandpiper init` writes DIR/admin.toml)"
                .to_owned(),
        )
    })
}

/// Reads the context.
///
/// # Errors
/// [`CliError::Usage`] without one, [`CliError::Content`] when it is not readable.
pub fn load(given: Option<&Path>) -> Result<Context, CliError> {
    let path = path(given)?;
    Context::load(&path).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|s| format!(": {s}"));
        let why = format!("{error}{}", cause.unwrap_or_default());
        CliError::Content { path, why }
    })
}

/// Connects to the operator listener.
///
/// # Errors
/// As [`load`], and [`CliError::Call`] when it is not reached.
pub async fn connect(given: Option<&Path>) -> Result<OperatorClient, CliError> {
    let context = load(given)?;
    Ok(OperatorClient::connect(&tls(&context)?, &context.address).await?)
}

/// The key that signs what is published.
///
/// # Errors
/// As [`load`], and [`CliError::Usage`] when the context has none, or none that is usable.
pub fn publisher_key(given: Option<&Path>) -> Result<SigningKey, CliError> {
    let context = load(given)?;
    let pem = context.publisher_key_pem.as_ref().ok_or_else(|| {
        CliError::Usage("this context holds no publisher key: only a publisher imports".to_owned())
    })?;
    SigningKey::from_pem(pem)
        .map_err(|e| CliError::Usage(format!("the publisher key is not usable: {e}")))
}

fn tls(context: &Context) -> Result<ClientTls, CliError> {
    let bad = |e: sandpiper_transport::pki::PkiError| {
        CliError::Usage(format!("the context file is not usable: {e}"))
    };
    let certificates = |pem: &str| sandpiper_transport::pki::chain_from_pem(pem).map_err(bad);
    // An empty chain is an error of `chain_from_pem`.
    let ca_der = certificates(&context.ca_pem)?.swap_remove(0);
    let identity = ClientIdentity {
        chain_der: certificates(&context.chain_pem)?,
        key_pem: context.key_pem.clone(),
    };
    Ok(ClientTls {
        ca_der,
        identity: Some(identity),
        clock: Clock::Trusted,
    })
}
