//! `sandpiper init`: the authority, keys, configuration and first operator of a new fleet.

use crate::config::{ConfigError, DEVICE_PORT, HostPort, OPERATOR_PORT, RawConfig};
use crate::context::{Context, ContextError};
use sandpiper_core::names::{ActorName, NameError};
use sandpiper_core::time::Millis;
use sandpiper_transport::fsio::{FsError, write_atomic};
use sandpiper_transport::pki::{Ca, KeyPair, PkiError};
use sandpiper_transport::signing::{KeyError, SigningKey};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
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
    /// What devices connect to, HOST:PORT [default: the address of --listen, or else this host's name, and port 7443]
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
    /// Nobody said what devices connect to, and the host has no name that could be told.
    #[error(
        "this host has no name that devices could connect to: say how they reach it with --device-address HOST:PORT"
    )]
    Unnamed,
    /// The options contradict the rules of a configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The configuration has no TOML form.
    #[error("the configuration cannot be written as TOML")]
    Encode(#[from] toml::ser::Error),
    /// Certificates cannot be made.
    #[error("cannot make the fleet's certificates")]
    Pki(#[from] PkiError),
    /// The key that install commands pin cannot be read. It is not replaced without asking: devices
    /// could not be installed any more with the commands that were handed out.
    #[error(
        "the controller's key `{path}` cannot be read: restore it, or remove it to get a new one (install commands of before will be refused by curl)"
    )]
    ServerKey {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
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
    /// What the options mean on a host of this name.
    fn raw(&self, hostname: Option<&str>) -> Result<RawConfig, InitError> {
        let device_address = match &self.device_address {
            Some(given) => given.clone(),
            None => HostPort {
                host: self.reached_by(hostname)?,
                port: DEVICE_PORT,
            }
            .to_string(),
        };
        let operator_address = self
            .operator_address
            .clone()
            .unwrap_or_else(|| format!("127.0.0.1:{OPERATOR_PORT}"));
        let device_listen = listen_on(&device_address, self.listen, DEVICE_PORT);
        let operator_host: Option<HostPort> = operator_address.parse().ok();
        let operator_ip = operator_host.and_then(|a| a.host.parse().ok());
        let operator_listen = listen_on(&operator_address, operator_ip, OPERATOR_PORT);
        Ok(RawConfig {
            fleet: self.fleet.clone(),
            device_address,
            operator_address,
            device_listen: device_listen.to_string(),
            bandwidth: None,
            group_bandwidth: None,
            operator_listen: operator_listen.to_string(),
            packages: None,
        })
    }

    /// The host that devices connect to when no address was given: the one address that is
    /// listened on, or else this host's name. An address of the loopback would only ever reach
    /// the device's own.
    fn reached_by(&self, hostname: Option<&str>) -> Result<String, InitError> {
        if let Some(ip) = self.listen.filter(|ip| !ip.is_unspecified()) {
            return Ok(ip.to_string());
        }
        let usable = |name: &&str| {
            let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
            !name.is_empty() && name.chars().all(part) && !name.starts_with("localhost")
        };
        let name = hostname.filter(usable).ok_or(InitError::Unnamed)?;
        Ok(name.to_owned())
    }
}

/// Where to listen for an address that peers connect to. What only this host reaches is never
/// meant for the outside.
fn listen_on(address: &str, ip: Option<IpAddr>, default_port: u16) -> SocketAddr {
    let parsed: Option<HostPort> = address.parse().ok();
    let ip = ip.unwrap_or_else(|| match parsed.as_ref().filter(|a| a.is_local()) {
        Some(local) => local.host.parse().unwrap_or(Ipv4Addr::LOCALHOST.into()),
        None => Ipv4Addr::UNSPECIFIED.into(),
    });
    SocketAddr::new(ip, parsed.map_or(default_port, |a| a.port))
}

/// The name of this host, if it has one.
fn hostname() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned())
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
    let raw = args.raw(hostname().as_deref())?;
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
    tracing::info!(
        address = raw.device_address,
        "devices will be told to connect to this address; config.toml holds it"
    );
    Ok(path)
}

/// Issues the controller's own certificate for the hosts it is reached by; gives its key. The key
/// in `dir` is used again: commands that devices are installed with pin it.
///
/// # Errors
/// [`InitError`] when it cannot be made or written.
pub fn issue_server(
    dir: &Path,
    ca: &Ca,
    addresses: &[&HostPort],
    now: Millis,
) -> Result<KeyPair, InitError> {
    let mut hosts: Vec<String> = addresses.iter().map(|a| a.host.clone()).collect();
    hosts.extend([
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ]);
    let path = dir.join("server.key");
    let unusable = |source| InitError::ServerKey {
        path: path.clone(),
        source,
    };
    let key = match std::fs::read_to_string(&path) {
        Ok(pem) => KeyPair::from_pem(&pem).map_err(|e| unusable(e.into()))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => KeyPair::generate()?,
        Err(error) => return Err(unusable(error.into())),
    };
    let issued = ca.issue_server(&ActorName::new("controller")?, &hosts, &key, now)?;
    write_atomic(&dir.join("server.key"), issued.key_pem.as_bytes(), 0o600)?;
    write_atomic(&dir.join("server.pem"), issued.chain_pem.as_bytes(), 0o644)?;
    Ok(key)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_key_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let now = Millis(1_700_000_000_000);
        let ca = Ca::create(&"fleet".parse().unwrap(), now).unwrap();
        let key = issue_server(dir.path(), &ca, &[], now).unwrap();
        let again = issue_server(dir.path(), &ca, &[], now).unwrap();
        assert_eq!(again.pin(), key.pin());
        std::fs::write(dir.path().join("server.key"), "not a key").unwrap();
        let error = issue_server(dir.path(), &ca, &[], now).map(drop);
        let text = error.unwrap_err().to_string();
        assert!(
            text.contains("server.key") && text.contains("restore it"),
            "{text}"
        );
        let left = std::fs::read_to_string(dir.path().join("server.key")).unwrap();
        assert_eq!(left, "not a key");
    }

    fn args(device_address: Option<&str>, listen: Option<&str>) -> InitArgs {
        InitArgs {
            data: PathBuf::from("unused"),
            fleet: "garden".to_owned(),
            device_address: device_address.map(str::to_owned),
            operator_address: None,
            listen: listen.map(|ip| ip.parse().unwrap()),
        }
    }

    /// What devices are told, and where is listened for them.
    fn device(address: Option<&str>, listen: Option<&str>) -> (String, String) {
        let raw = args(address, listen).raw(Some("pi")).unwrap();
        raw.validate().unwrap();
        (raw.device_address, raw.device_listen)
    }

    #[test]
    fn devices_are_told_an_address_that_they_can_reach() {
        let told = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(device(None, None), told("pi:7443", "0.0.0.0:7443"));
        let any = device(None, Some("0.0.0.0"));
        assert_eq!(any, told("pi:7443", "0.0.0.0:7443"));
        let one = device(None, Some("10.0.0.2"));
        assert_eq!(one, told("10.0.0.2:7443", "10.0.0.2:7443"));
        let six = device(None, Some("::1"));
        assert_eq!(six, told("[::1]:7443", "[::1]:7443"));
        let given = device(Some("pi.example:99"), None);
        assert_eq!(given, told("pi.example:99", "0.0.0.0:99"));
        let local = device(Some("127.0.0.1:0"), None);
        assert_eq!(local, told("127.0.0.1:0", "127.0.0.1:0"));
        let local = device(Some("localhost:1"), None);
        assert_eq!(local, told("localhost:1", "127.0.0.1:1"));
    }

    #[test]
    fn without_a_name_to_tell_a_fleet_is_not_made() {
        for name in [None, Some(""), Some("(none)"), Some("localhost")] {
            let error = args(None, Some("0.0.0.0")).raw(name).unwrap_err();
            assert!(error.to_string().contains("--device-address"), "{error}");
        }
        let nowhere = args(Some("0.0.0.0:7443"), None).raw(Some("pi")).unwrap();
        let error = nowhere.validate().unwrap_err();
        assert!(error.to_string().contains("no place to connect"), "{error}");
    }

    #[test]
    fn operators_are_listened_for_where_they_are_told_to_connect() {
        let mut args = args(None, None);
        let listen = |args: &InitArgs| args.raw(Some("pi")).unwrap().operator_listen;
        assert_eq!(listen(&args), "127.0.0.1:7444");
        args.operator_address = Some("pi.example:5".to_owned());
        assert_eq!(listen(&args), "0.0.0.0:5");
        args.operator_address = Some("10.0.0.2:5".to_owned());
        assert_eq!(listen(&args), "10.0.0.2:5");
    }
}
