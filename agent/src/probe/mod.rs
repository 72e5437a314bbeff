//! What this device is and how it is, read from the kernel's file systems under roots that are
//! parameters.

mod battery;
mod board;

use crate::config::{Config, Emulate, Roots};
use crate::depot::free_bytes;
use sandpiper_core::profile::{Conditions, DeviceProfile, EnergySourceInfo};
use sandpiper_core::target::{Arch, Target};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub(crate) use battery::is_battery;
pub use battery::power;

/// Longest name of a time zone: the database has none of half as many bytes.
const MAX_ZONE: usize = 64;

/// Reads a small text file; `None` when it is not there or not readable.
pub(crate) fn read(path: &Path) -> Option<String> {
    let bytes = std::fs::read(path).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    Some(text.trim_matches(['\0', '\n', ' ']).to_owned())
}

/// Reads a number.
pub(crate) fn number<T: std::str::FromStr>(path: &Path) -> Option<T> {
    read(path)?.parse().ok()
}

/// The sorted entries of a directory; none when it is not there.
pub(crate) fn entries(dir: &Path) -> Vec<std::path::PathBuf> {
    let found = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut all: Vec<_> = found.map(|e| e.path()).collect();
    all.sort();
    all
}

const ARCH: Arch = if cfg!(target_arch = "x86_64") {
    Arch::X86_64
} else if cfg!(target_arch = "aarch64") {
    Arch::Aarch64
} else {
    Arch::Arm
};

/// What this device is.
pub fn profile(
    config: &Config,
    energy_sources: Vec<EnergySourceInfo>,
    lockdown: BTreeMap<String, String>,
) -> DeviceProfile {
    let system = sysinfo::System::new_with_specifics(
        sysinfo::RefreshKind::nothing()
            .with_memory(sysinfo::MemoryRefreshKind::nothing().with_ram())
            .with_cpu(sysinfo::CpuRefreshKind::nothing()),
    )
    .inspect_err(|error| tracing::warn!("the system does not tell CPU and RAM: {error}"))
    .ok();
    let none = Emulate::default();
    let emulate = config.emulate.as_ref().unwrap_or(&none);
    let host = sandpiper_sandbox::host_cpu_features();
    // A feature that the real CPU lacks cannot be lent: its code would fault.
    let cpu_features: BTreeSet<String> = match &emulate.cpu_features {
        Some(wanted) => host.intersection(wanted).cloned().collect(),
        None => host,
    };
    let targets = Target::supported_by(ARCH, &cpu_features);
    let keys = |t: &Target| [true, false].map(|b| sandpiper_sandbox::runtime_key(*t, b));
    DeviceProfile {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        emulated: config.emulate.is_some(),
        board: emulate
            .board
            .clone()
            .unwrap_or_else(|| board::board(&config.roots)),
        soc: emulate
            .soc
            .clone()
            .unwrap_or_else(|| board::soc(&config.roots)),
        arch: ARCH,
        cpu_model: system
            .as_ref()
            .and_then(|s| s.cpus().first())
            .map(|c| c.brand().trim().to_owned())
            .unwrap_or_default(),
        cpu_features,
        cores: emulate.cores.unwrap_or_else(cores),
        ram_total_bytes: emulate
            .ram_total_bytes
            .unwrap_or(system.as_ref().map_or(0, sysinfo::System::total_memory)),
        dtypes: emulate.dtypes.clone().unwrap_or_default(),
        zone: config.zone.clone().or_else(|| zone(&config.roots)),
        runtime_keys: targets.iter().flat_map(keys).collect(),
        targets,
        // Self-tests give the first latencies; a device carries no compiler to make a benchmark.
        speed: None,
        energy_sources,
        lockdown,
    }
}

/// The time zone of the system, by the file that its `localtime` points at.
fn zone(roots: &Roots) -> Option<String> {
    let target = std::fs::read_link(&roots.localtime).ok()?;
    let (_, name) = target.to_str()?.split_once("/zoneinfo/")?;
    // Also what is kept apart for those who count leap seconds or do not.
    let plain = name.strip_prefix("posix/").or(name.strip_prefix("right/"));
    let name = plain.unwrap_or(name);
    (name.len() <= MAX_ZONE).then(|| name.to_owned())
}

fn cores() -> u16 {
    std::thread::available_parallelism().map_or(1, |n| u16::try_from(n.get()).unwrap_or(u16::MAX))
}

/// How this device is now.
pub fn conditions(config: &Config) -> Conditions {
    let claimed = config.emulate.as_ref().and_then(|e| e.ram_available_bytes);
    Conditions {
        ram_available_bytes: claimed
            .or_else(|| ram_available(&config.roots))
            .unwrap_or(0),
        disk_free_bytes: free_bytes(&config.state_dir),
        power: power(&config.roots),
        temperature_mc: board::temperature_mc(&config.roots),
        throttled: board::throttled(&config.roots),
    }
}

fn ram_available(roots: &Roots) -> Option<u64> {
    let text = read(&roots.procfs.join("meminfo"))?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use sandpiper_core::profile::Power;

    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Config) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let at = dir.path().display();
        let text = format!(
            "state_dir = \"{at}\"\n[roots]\nsysfs = \"{at}/sys\"\nprocfs = \"{at}/proc\"\n\
             [emulate]\ncores = 2\ncpu_features = [\"sse4_1\", \"no_such_feature\"]\n"
        );
        let config = Config::parse(&text).unwrap();
        (dir, config)
    }

    #[test]
    fn a_pi_on_battery_is_read() {
        let (_dir, config) = tree(&[
            (
                "proc/meminfo",
                "MemTotal: 1000 kB\nMemAvailable:     512 kB\n",
            ),
            ("proc/device-tree/model", "Raspberry Pi 4 Model B Rev 1.4\0"),
            (
                "proc/device-tree/compatible",
                "raspberrypi,4-model-b\0brcm,bcm2711\0",
            ),
            ("sys/class/power_supply/BAT0/type", "Battery\n"),
            ("sys/class/power_supply/BAT0/capacity", "37\n"),
            ("sys/class/power_supply/BAT0/status", "Discharging\n"),
            ("sys/class/power_supply/BAT0/charge_now", "2000000\n"),
            ("sys/class/power_supply/BAT0/voltage_now", "3700000\n"),
            ("sys/class/thermal/thermal_zone0/temp", "51234\n"),
            ("sys/class/thermal/thermal_zone1/temp", "48000\n"),
            ("sys/devices/platform/soc/soc:firmware/get_throttled", "4\n"),
        ]);
        let now = conditions(&config);
        assert_eq!(now.ram_available_bytes, 512 * 1024);
        // 2 Ah at 3.7 V are 7.4 Wh.
        let remaining_uj = Some(26_640_000_000);
        assert_eq!(
            now.power,
            Power::Battery {
                percent: 37,
                charging: false,
                remaining_uj
            }
        );
        assert_eq!(now.temperature_mc, Some(51_234));
        assert!(now.throttled);
        let what = profile(&config, Vec::new(), BTreeMap::new());
        assert_eq!(
            (what.soc.as_str(), what.cores, what.emulated),
            ("bcm2711", 2, true)
        );
        assert_eq!(what.board, "Raspberry Pi 4 Model B Rev 1.4");
        assert!(!what.cpu_features.contains("no_such_feature"));
    }

    #[test]
    fn the_time_zone_is_that_of_the_configuration_or_of_the_system() {
        let (dir, mut config) = tree(&[]);
        let of = |config: &Config| profile(config, Vec::new(), BTreeMap::new()).zone;
        config.roots.localtime = dir.path().join("localtime");
        assert_eq!(of(&config), None);
        let target = "/usr/share/zoneinfo/Europe/Berlin";
        std::os::unix::fs::symlink(target, &config.roots.localtime).unwrap();
        assert_eq!(of(&config).as_deref(), Some("Europe/Berlin"));
        config.zone = Some("+05:30".to_owned());
        assert_eq!(of(&config).as_deref(), Some("+05:30"));
    }

    #[test]
    fn nothing_there_is_mains_and_unknown() {
        let (_dir, config) = tree(&[]);
        let now = conditions(&config);
        assert_eq!(
            (now.power, now.temperature_mc, now.throttled),
            (Power::Mains, None, false)
        );
    }
}
