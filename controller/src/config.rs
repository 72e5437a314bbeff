//! The controller's configuration: what `DATA/config.toml` says, and what it means.

use sandpiper_core::bandwidth::{Bandwidth, GroupRateError, parse_rate};
use sandpiper_core::names::{FleetName, NameError};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// Port of the device listener unless configured otherwise.
pub const DEVICE_PORT: u16 = 7443;
/// Port of the operator listener unless configured otherwise.
pub const OPERATOR_PORT: u16 = 7444;

/// The file as written: every field is text, so that all mistakes can be reported together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawConfig {
    /// Name of the fleet.
    pub fleet: String,
    /// What devices are told to connect to, `HOST:PORT`.
    pub device_address: String,
    /// What operators connect to, `HOST:PORT`.
    pub operator_address: String,
    /// Where the device listener binds, `IP:PORT`.
    pub device_listen: String,
    /// Where the operator listener binds, `IP:PORT`.
    pub operator_listen: String,
    /// Bytes per second that all devices together fetch, such as `20MB`; no bound when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<String>,
    /// The same for devices with one value of a label, such as `site=2MB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_bandwidth: Option<String>,
}

/// A configuration in which every field has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The fleet.
    pub fleet: FleetName,
    /// What devices are told to connect to.
    pub device_address: HostPort,
    /// What operators connect to.
    pub operator_address: HostPort,
    /// Where the device listener binds.
    pub device_listen: SocketAddr,
    /// Where the operator listener binds.
    pub operator_listen: SocketAddr,
    /// What all fetches share.
    pub bandwidth: Bandwidth,
}

/// A host name or address with a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// Name or address, without brackets.
    pub host: String,
    /// Port; 0 stands for the one that the listener is given.
    pub port: u16,
}

impl HostPort {
    /// Whether only this host itself reaches it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        let address = self.host.parse::<IpAddr>();
        self.host == "localhost" || address.is_ok_and(|a| a.is_loopback())
    }

    /// Whether it is an address that one can listen on but not connect to.
    fn is_nowhere(&self) -> bool {
        self.host
            .parse::<IpAddr>()
            .is_ok_and(|a| a.is_unspecified())
    }

    /// With the port that a listener was given where this one is 0.
    #[must_use]
    pub fn bound(&self, port: u16) -> Self {
        let port = if self.port == 0 { port } else { self.port };
        Self {
            host: self.host.clone(),
            port,
        }
    }
}

impl std::fmt::Display for HostPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl std::str::FromStr for HostPort {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is not HOST:PORT, for example pi.local:7443");
        let (host, port) = text.rsplit_once(':').ok_or_else(bad)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let plain = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c == '/');
        let port = port.parse().ok().filter(|_| plain).ok_or_else(bad)?;
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read `{path}`: run `sandpiper init` first, or name another --data")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is not TOML of these fields.
    #[error("`{path}` is not a configuration")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        source: toml::de::Error,
    },
    /// Fields hold what they may not; all of them are listed.
    #[error("the configuration has {} mistakes:\n  {}", .0.len(), .0.join("\n  "))]
    Mistakes(Vec<String>),
}

impl RawConfig {
    /// Checks every field and reports all mistakes together.
    ///
    /// # Errors
    /// [`ConfigError::Mistakes`].
    pub fn validate(&self) -> Result<Config, ConfigError> {
        let mut mistakes = Vec::new();
        let fleet = FleetName::new(self.fleet.as_str());
        let fleet = note(
            &mut mistakes,
            "fleet",
            fleet.map_err(|e: NameError| e.to_string()),
        );
        let device_address = note(&mut mistakes, "device_address", self.device_address.parse());
        let operator_address = note(
            &mut mistakes,
            "operator_address",
            self.operator_address.parse(),
        );
        let device_listen = note(&mut mistakes, "device_listen", socket(&self.device_listen));
        let operator_listen = note(
            &mut mistakes,
            "operator_listen",
            socket(&self.operator_listen),
        );
        let bandwidth = Bandwidth {
            bytes_per_s: self.bandwidth.as_ref().and_then(|text| {
                let rate = parse_rate(text).map_err(|e| e.to_string());
                note(&mut mistakes, "bandwidth", rate)
            }),
            per_group: self.group_bandwidth.as_ref().and_then(|text| {
                let group = text.parse().map_err(|e: GroupRateError| e.to_string());
                note(&mut mistakes, "group_bandwidth", group)
            }),
        };
        for (field, address) in [
            ("device_address", &device_address),
            ("operator_address", &operator_address),
        ] {
            let address: Option<&HostPort> = address.as_ref();
            if let Some(address) = address.filter(|a| a.is_nowhere()) {
                mistakes.push(format!(
                    "{field}: `{address}` is no place to connect to: give the name or address by which this host is reached"
                ));
            }
        }
        if let (Some(a), Some(b)) = (device_listen, operator_listen)
            && a == b
            && a.port() != 0
        {
            mistakes.push(format!("device_listen and operator_listen are both {a}"));
        }
        match (
            fleet,
            device_address,
            operator_address,
            device_listen,
            operator_listen,
        ) {
            (Some(fleet), Some(device_address), Some(operator_address), Some(d), Some(o))
                if mistakes.is_empty() =>
            {
                Ok(Config {
                    fleet,
                    device_address,
                    operator_address,
                    device_listen: d,
                    operator_listen: o,
                    bandwidth,
                })
            }
            _ => Err(ConfigError::Mistakes(mistakes)),
        }
    }
}

fn socket(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is not IP:PORT, for example 0.0.0.0:7443"))
}

fn note<T>(mistakes: &mut Vec<String>, field: &str, value: Result<T, String>) -> Option<T> {
    value
        .map_err(|mistake| mistakes.push(format!("{field}: {mistake}")))
        .ok()
}

impl Config {
    /// Reads and checks `DIR/config.toml`.
    ///
    /// # Errors
    /// [`ConfigError`], with all mistakes of the file.
    pub fn load(dir: &Path) -> Result<Self, ConfigError> {
        let path = dir.join("config.toml");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(source) => return Err(ConfigError::Read { path, source }),
        };
        let raw: RawConfig =
            toml::from_str(&text).map_err(|source| ConfigError::Parse { path, source })?;
        raw.validate()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn raw() -> RawConfig {
        RawConfig {
            fleet: "garden".into(),
            device_address: "pi.local:7443".into(),
            operator_address: "[::1]:7444".into(),
            device_listen: "0.0.0.0:7443".into(),
            operator_listen: "127.0.0.1:7444".into(),
            bandwidth: Some("20MB".into()),
            group_bandwidth: None,
        }
    }

    #[test]
    fn a_good_one_passes() {
        let config = raw().validate().unwrap();
        assert_eq!(config.operator_address.to_string(), "[::1]:7444");
        assert_eq!(config.device_address.bound(9).port, 7443);
    }

    #[test]
    fn mistakes_are_reported_together() {
        let mut raw = raw();
        raw.fleet = "My Fleet".into();
        raw.device_address = "nowhere".into();
        raw.operator_listen = "localhost".into();
        raw.operator_address = "0.0.0.0:7444".into();
        raw.bandwidth = Some("fast".into());
        raw.group_bandwidth = Some("1MB".into());
        let error = raw.validate().unwrap_err();
        assert!(
            matches!(&error, ConfigError::Mistakes(m) if m.len() == 6),
            "{error}"
        );
        for field in [
            "fleet:",
            "device_address:",
            "operator_listen:",
            "operator_address:",
            "bandwidth: `fast` is no rate",
            "group_bandwidth:",
        ] {
            assert!(error.to_string().contains(field), "{error}");
        }
    }
}
