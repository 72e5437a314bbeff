//! `sandpiper init`: the authority, keys, configuration and first operator of a new fleet.

use crate::config::{ConfigError, DEVICE_PORT, HostPort, OPERATOR_PORT, RawConfig};
use crate::context::{Context, ContextError};
use sandpiper_core::names::{ActorName, NameError};
use sandpiper_core::time::Millis;
use sandpiper_transport::fsio::{FsError, write_atomic};
use sandpiper_transport::pki::{Ca, PkiError};
use sandpiper_transport::signing::{KeyError, SigningKey};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Options of `sandpiper init`.
#[derive(Debug, Clone, clap::Args)]
pub struct InitArgs {
    /// Directory of the controller's data; created if absent
    #[arg(long)]
    pub data: PathBuf,
    /// Name of the fleet
    #[arg(long, default_value = "fleet")]
    pub fleet: String,
    /// What devices connect to, HOST:PORT [default: this host, port 7443]
    #[arg(long)]
    pub device_address: Option<String>,
    /// What operators connect to, HOST:PORT [default: 127.0.0.1:7444]
    #[arg(long)]
    pub operator_address: Option<String>,
    /// Address that the device listener binds
    #[arg(long)]
    pub listen: Option<IpAddr>,
}

/// Why a fleet cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// There is one already.
    #[error("`{0}` already holds a fleet: name another --data, or remove it to begin anew")]
    Exists(PathBuf),
    /// The directory cannot be made.
    #[error("cannot create `{path}`")]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The options contradict the rules of a configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The configuration has no TOML form.
    #[error("the configuration cannot be written as TOML")]
    Encode(#[from] toml::ser::Error),
    /// Certificates cannot be made.
    #[error("cannot make the fleet's certificates")]
    Pki(#[from] PkiError),
    /// Keys cannot be made.
    #[error("cannot make the fleet's signing keys")]
    Key(#[from] KeyError),
    /// A built-in name breaks the rule of names.
    #[error("cannot name the fleet's first identities")]
    Name(#[from] NameError),
    /// A file cannot be written.
    #[error("cannot write the fleet's files")]
    Write(#[from] FsError),
    /// The context file cannot be written.
    #[error("cannot write the operator's context")]
    Context(#[from] ContextError),
}

impl InitArgs {
    fn raw(&self) -> RawConfig {
        let host = self
            .listen
            .filter(|ip| !ip.is_unspecified())
            .map(|ip| ip.to_string());
        let host = host.unwrap_or_else(|| "127.0.0.1".to_owned());
        let device_address = self.device_address.clone().unwrap_or_else(|| {
            HostPort {
                host,
                port: DEVICE_PORT,
            }
            .to_string()
        });
        let operator_address = self
            .operator_address
            .clone()
            .unwrap_or_else(|| format!("127.0.0.1:{OPERATOR_PORT}"));
        let port = |text: &str, default| text.parse().map_or(default, |a: HostPort| a.port);
        let listen = self.listen.unwrap_or_else(|| {
            // A loopback address is never meant for the outside.
            let local = device_address.starts_with("127.");
            let text = if local && self.device_address.is_some() {
                "127.0.0.1"
            } else {
                "0.0.0.0"
            };
            text.parse().expect("both are addresses")
        });
        let device = std::net::SocketAddr::new(listen, port(&device_address, DEVICE_PORT));
        let operator_ip = operator_address
            .parse::<HostPort>()
            .ok()
            .and_then(|a| a.host.parse::<IpAddr>().ok())
            .unwrap_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));
        let operator =
            std::net::SocketAddr::new(operator_ip, port(&operator_address, OPERATOR_PORT));
        RawConfig {
            fleet: self.fleet.clone(),
            device_address,
            operator_address,
            device_listen: device.to_string(),
            operator_listen: operator.to_string(),
        }
    }
}

/// Makes a fleet in a directory. `config.toml` is written last: where it is, all is.
/// Returns the path of the first operator's context.
///
/// # Errors
/// [`InitError`]; a fleet that exists is never touched.
pub fn init(args: &InitArgs, now: Millis) -> Result<PathBuf, InitError> {
    let dir = &args.data;
    if dir.join("config.toml").exists() {
        return Err(InitError::Exists(dir.clone()));
    }
    let raw = args.raw();
    let config = raw.validate()?;
    let blobs = dir.join("blobs");
    std::fs::create_dir_all(&blobs).map_err(|source| InitError::Directory {
        path: blobs,
        source,
    })?;
    let ca = Ca::create(&config.fleet, now)?;
    let admin = ca.issue_operator(&ActorName::new("admin")?, now)?;
    let publisher = SigningKey::generate()?;
    let assignment = SigningKey::generate()?;
    let secret = |name: &str, text: &str| write_atomic(&dir.join(name), text.as_bytes(), 0o600);
    secret("ca.key", ca.key_pem())?;
    write_atomic(&dir.join("ca.pem"), ca.certificate_pem().as_bytes(), 0o644)?;
    issue_server(
        dir,
        &ca,
        &[&config.device_address, &config.operator_address],
        now,
    )?;
    secret("operator.key", &admin.key_pem)?;
    write_atomic(&dir.join("operator.pem"), admin.chain_pem.as_bytes(), 0o644)?;
    secret("publisher.key", &publisher.to_pem())?;
    secret("assignment.key", &assignment.to_pem())?;
    let context = Context {
        fleet: config.fleet.to_string(),
        address: config.operator_address.to_string(),
        ca_pem: ca.certificate_pem(),
        chain_pem: admin.chain_pem,
        key_pem: admin.key_pem,
        publisher_key_pem: Some(publisher.to_pem()),
    };
    let path = dir.join("admin.toml");
    context.save(&path)?;
    write_atomic(
        &dir.join("config.toml"),
        toml::to_string(&raw)?.as_bytes(),
        0o644,
    )?;
    Ok(path)
}

/// Issues the controller's own certificate for the hosts it is reached by.
///
/// # Errors
/// [`InitError`] when it cannot be made or written.
pub fn issue_server(
    dir: &Path,
    ca: &Ca,
    addresses: &[&HostPort],
    now: Millis,
) -> Result<(), InitError> {
    let mut hosts: Vec<String> = addresses.iter().map(|a| a.host.clone()).collect();
    hosts.extend([
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ]);
    let issued = ca.issue_server(&ActorName::new("controller")?, &hosts, now)?;
    write_atomic(&dir.join("server.key"), issued.key_pem.as_bytes(), 0o600)?;
    write_atomic(&dir.join("server.pem"), issued.chain_pem.as_bytes(), 0o644)?;
    Ok(())
}
