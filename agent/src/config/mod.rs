//! The agent's configuration: read, checked, every mistake reported together.

mod raw;

use raw::{RawConfig, RawEmulate};
use sandpiper_core::tensor::DType;
use sandpiper_core::window::Zone;
use sandpiper_sandbox::MAX_WORKERS;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where local programs reach the agent unless the file says otherwise.
const DEFAULT_LISTEN: &str = "127.0.0.1:8090";
/// Largest request body unless the file says otherwise: a batch of large images.
const DEFAULT_MAX_BODY_BYTES: i64 = 16 << 20;

/// A checked configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Directory that holds identity, artefacts, state and telemetry.
    pub state_dir: PathBuf,
    /// Its time zone, instead of that of the system.
    pub zone: Option<String>,
    /// Where the inference API listens; loopback only.
    pub listen: SocketAddr,
    /// Largest request body in bytes.
    pub max_body_bytes: usize,
    /// Cores that one inference uses.
    pub workers: u32,
    /// Roots of the kernel's file systems.
    pub roots: Roots,
    /// What to claim instead of what the machine is.
    pub emulate: Option<Emulate>,
    /// Length of a telemetry window.
    pub window: Duration,
    /// Time between two looks at battery and temperature.
    pub poll: Duration,
    /// Releases of the agent that are ordered take the place of the installed program.
    pub updates: bool,
    /// Time in which one has to show that it works.
    pub update_within: Duration,
}

/// Roots of the kernel's file systems, so that a test can put trees of its own there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roots {
    /// Normally `/sys`.
    pub sysfs: PathBuf,
    /// Normally `/proc`.
    pub procfs: PathBuf,
    /// Normally `/sys/class/powercap`.
    pub powercap: PathBuf,
    /// Normally `/etc/localtime`: its target names the time zone.
    pub localtime: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self {
            sysfs: "/sys".into(),
            procfs: "/proc".into(),
            powercap: "/sys/class/powercap".into(),
            localtime: "/etc/localtime".into(),
        }
    }
}

/// Claims that replace what was found; a profile that carries one says `emulated`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Emulate {
    /// Board name.
    pub board: Option<String>,
    /// System on chip.
    pub soc: Option<String>,
    /// Installed RAM in bytes.
    pub ram_total_bytes: Option<u64>,
    /// Available RAM in bytes.
    pub ram_available_bytes: Option<u64>,
    /// Number of cores.
    pub cores: Option<u16>,
    /// CPU features by Linux name; only those the real CPU has too are kept.
    pub cpu_features: Option<BTreeSet<String>>,
    /// Arithmetic types allowed.
    pub dtypes: Option<BTreeSet<DType>>,
    /// Seconds by which the clock is wrong, for a board that has none.
    pub clock_offset_s: i64,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not the TOML it must be.
    #[error("the configuration is not valid TOML: {0}")]
    Parse(String),
    /// Values are wrong: all of them.
    #[error("the configuration has {} mistake(s):\n  {}", .0.len(), .0.join("\n  "))]
    Mistakes(Vec<String>),
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`]; wrong values are reported all together.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text)
    }

    /// Checks the text of a file.
    ///
    /// # Errors
    /// [`ConfigError`]; wrong values are reported all together.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut mistakes = Vec::new();
        let raw = parse_tolerant(text, &mut mistakes)?;
        let state_dir = raw.state_dir.unwrap_or_default();
        if !state_dir.is_absolute() {
            mistakes.push("state_dir: an absolute path is needed".to_owned());
        }
        let zone = raw.zone;
        if let Some(Err(why)) = zone.as_deref().map(str::parse::<Zone>) {
            mistakes.push(format!("zone: {why}"));
        }
        let listen_text = raw.serve.listen.unwrap_or_else(|| DEFAULT_LISTEN.into());
        let listen = listen_text.parse::<SocketAddr>().ok();
        if !listen.is_some_and(|a| a.ip().is_loopback()) {
            mistakes.push(format!(
                "serve.listen: `{listen_text}` is not a loopback address with a port, such as {DEFAULT_LISTEN}"
            ));
        }
        let defaults = Roots::default();
        let roots = Roots {
            powercap: raw
                .roots
                .powercap
                .or_else(|| raw.roots.sysfs.as_ref().map(|s| s.join("class/powercap")))
                .unwrap_or(defaults.powercap),
            sysfs: raw.roots.sysfs.unwrap_or(defaults.sysfs),
            procfs: raw.roots.procfs.unwrap_or(defaults.procfs),
            localtime: raw.roots.localtime.unwrap_or(defaults.localtime),
        };
        let mut number = |field: &str, value: Option<i64>, default: i64, min: i64, max: i64| {
            ranged(field, value.unwrap_or(default), min, max, &mut mistakes)
        };
        let body = raw.serve.max_body_bytes;
        let body = number(
            "serve.max_body_bytes",
            body,
            DEFAULT_MAX_BODY_BYTES,
            1024,
            1 << 30,
        );
        let workers = number(
            "serve.workers",
            raw.serve.workers,
            1,
            1,
            i64::from(MAX_WORKERS),
        );
        let window = number("telemetry.window_s", raw.telemetry.window_s, 30, 1, 3600);
        let poll = number("power.poll_s", raw.power.poll_s, 10, 1, 600);
        let within = number("update.within_s", raw.update.within_s, 180, 5, 3600);
        let emulate = raw.emulate.map(|e| check_emulate(e, &mut mistakes));
        match listen {
            Some(listen) if mistakes.is_empty() => Ok(Self {
                state_dir,
                zone,
                listen,
                max_body_bytes: usize::try_from(body).unwrap_or(usize::MAX),
                workers: u32::try_from(workers).unwrap_or(1),
                roots,
                emulate,
                window: Duration::from_secs(window),
                poll: Duration::from_secs(poll),
                updates: raw.update.accept.unwrap_or(true),
                update_within: Duration::from_secs(within),
            }),
            _ => Err(ConfigError::Mistakes(mistakes)),
        }
    }
}

/// Parses; unknown top-level keys and values of a wrong type become mistakes, each on its own,
/// by parsing again without the part that is wrong.
fn parse_tolerant(text: &str, mistakes: &mut Vec<String>) -> Result<RawConfig, ConfigError> {
    let mut table: toml::Table = text
        .parse()
        .map_err(|e: toml::de::Error| ConfigError::Parse(e.to_string()))?;
    // One entry is removed per round, so this ends after as many rounds as there are entries.
    loop {
        let error = match RawConfig::deserialize_table(table.clone()) {
            Ok(raw) => return Ok(raw),
            Err(error) => error,
        };
        match remove_culprit(&mut table) {
            Some((path, why)) => mistakes.push(format!("{path}: {why}")),
            None => return Err(ConfigError::Parse(error)),
        }
    }
}

impl RawConfig {
    fn deserialize_table(table: toml::Table) -> Result<Self, String> {
        table
            .try_into()
            .map_err(|e: toml::de::Error| e.message().to_owned())
    }
}

/// Finds the first entry that is wrong when it stands alone, and removes it.
fn remove_culprit(table: &mut toml::Table) -> Option<(String, String)> {
    let alone = |section: Option<&str>, key: &str, value: &toml::Value| {
        let mut entry = toml::Table::new();
        entry.insert(key.to_owned(), value.clone());
        let document = match section {
            None => entry,
            Some(name) => [(name.to_owned(), toml::Value::Table(entry))]
                .into_iter()
                .collect(),
        };
        RawConfig::deserialize_table(document).err()
    };
    let mut found = None;
    'search: for (name, value) in table.iter() {
        let Some(why) = alone(None, name, value) else {
            continue;
        };
        if let toml::Value::Table(section) = value {
            for (key, value) in section {
                if let Some(why) = alone(Some(name), key, value) {
                    found = Some((name.clone(), Some(key.clone()), why));
                    break 'search;
                }
            }
        }
        found = Some((name.clone(), None, why));
        break;
    }
    let (name, key, why) = found?;
    let Some(key) = key else {
        table.remove(&name);
        return Some((name, why));
    };
    if let Some(toml::Value::Table(section)) = table.get_mut(&name) {
        section.remove(&key);
    }
    Some((format!("{name}.{key}"), why))
}

fn ranged(field: &str, value: i64, min: i64, max: i64, mistakes: &mut Vec<String>) -> u64 {
    if !(min..=max).contains(&value) {
        mistakes.push(format!("{field}: {value} does not lie in {min}..={max}"));
    }
    u64::try_from(value).unwrap_or_default()
}

fn check_emulate(raw: RawEmulate, mistakes: &mut Vec<String>) -> Emulate {
    let mut positive = |field: &str, value: Option<i64>, max: i64| {
        value.map(|v| ranged(&format!("emulate.{field}"), v, 1, max, mistakes))
    };
    let ram_total_bytes = positive("ram_total_bytes", raw.ram_total_bytes, i64::MAX);
    let ram_available_bytes = positive("ram_available_bytes", raw.ram_available_bytes, i64::MAX);
    let cores = positive("cores", raw.cores, 1024).and_then(|c| u16::try_from(c).ok());
    let dtypes = raw.dtypes.map(|names| {
        let mut all = BTreeSet::new();
        for name in names {
            match serde_json::from_value(serde_json::Value::String(name.clone())) {
                Ok(dtype) => drop(all.insert(dtype)),
                Err(_) => mistakes.push(format!(
                    "emulate.dtypes: `{name}` is not one of f32, i8, u8, i32, i64, bool"
                )),
            }
        }
        all
    });
    Emulate {
        board: raw.board,
        soc: raw.soc,
        ram_total_bytes,
        ram_available_bytes,
        cores,
        cpu_features: raw.cpu_features,
        dtypes,
        clock_offset_s: raw.clock_offset_s.unwrap_or(0),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn three_mistakes_are_reported_together() {
        let text = "state_dir = \"relative\"\n[serve]\nlisten = \"0.0.0.0:80\"\n[telemetry]\nwindow_s = 0\n";
        let ConfigError::Mistakes(all) = Config::parse(text).unwrap_err() else {
            panic!()
        };
        assert_eq!(all.len(), 3, "{all:?}");
    }

    #[test]
    fn mistakes_of_type_and_name_are_reported_with_the_others() {
        let text = "state_dir = 5\nstat_dir = \"/x\"\n[serve]\nlisen = \"a\"\n[power]\npoll_s = \"often\"\n";
        let message = Config::parse(text).unwrap_err().to_string();
        for part in ["state_dir", "stat_dir", "serve.lisen", "power.poll_s"] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn a_time_zone_is_known_or_a_mistake() {
        let config = |zone: &str| Config::parse(&format!("state_dir = \"/x\"\nzone = \"{zone}\""));
        let known = config("Europe/Berlin").unwrap();
        assert_eq!(known.zone.as_deref(), Some("Europe/Berlin"));
        let message = config("Mars/Phobos").unwrap_err().to_string();
        assert!(
            message.contains("zone: `Mars/Phobos` is no time zone"),
            "{message}"
        );
    }

    #[test]
    fn the_least_is_a_state_directory() {
        let config = Config::parse("state_dir = \"/var/lib/sandpiper\"").unwrap();
        assert_eq!(config.listen.port(), 8090);
        assert_eq!(config.roots, Roots::default());
    }
}
