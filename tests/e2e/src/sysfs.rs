//! The tree that an agent reads its battery and temperature from.

use anyhow::Result;
use std::path::{Path, PathBuf};

/// A made-up `/sys`.
#[derive(Debug, Clone)]
pub struct Sysfs {
    root: PathBuf,
}

/// Writes a file beside its place and renames it, so that a reader never sees half of it.
pub(crate) fn put(dir: &Path, name: &str, value: &str) -> Result<()> {
    let part = dir.join(format!(".{name}"));
    std::fs::write(&part, format!("{value}\n"))?;
    Ok(std::fs::rename(&part, dir.join(name))?)
}

/// What the made-up battery holds when full: 20 Wh in microwatt-hours.
const FULL_UWH: u64 = 20_000_000;

impl Sysfs {
    /// Makes the tree with a temperature of 45 °C and no battery: a device on mains.
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn mains(root: &Path) -> Result<Self> {
        let zone = root.join("class/thermal/thermal_zone0");
        std::fs::create_dir_all(&zone)?;
        std::fs::create_dir_all(root.join("class/power_supply"))?;
        std::fs::write(zone.join("type"), "cpu-thermal\n")?;
        std::fs::write(zone.join("temp"), "45000\n")?;
        Ok(Self {
            root: root.to_path_buf(),
        })
    }

    /// Makes the tree with a battery that discharges.
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn battery(root: &Path, percent: u8) -> Result<Self> {
        let tree = Self::mains(root)?;
        tree.set_battery(percent)?;
        Ok(tree)
    }

    /// Changes what the battery says.
    ///
    /// # Errors
    /// When files cannot be written.
    pub fn set_battery(&self, percent: u8) -> Result<()> {
        let dir = self.root.join("class/power_supply/BAT0");
        std::fs::create_dir_all(&dir)?;
        let now = FULL_UWH * u64::from(percent) / 100;
        let files = [
            ("type", "Battery".to_owned()),
            ("scope", "System".to_owned()),
            ("present", "1".to_owned()),
            ("status", "Discharging".to_owned()),
            ("capacity", percent.to_string()),
            ("energy_full", FULL_UWH.to_string()),
            ("energy_now", now.to_string()),
        ];
        for (name, value) in files {
            put(&dir, name, &value)?;
        }
        Ok(())
    }

    /// The root of the tree.
    pub fn root(&self) -> &Path {
        &self.root
    }
}
