//! INA219 and INA226 power sensors at the supply of the board, through hwmon.

use super::source::{Reading, Source, meter, plausible};
use crate::config::Roots;
use crate::probe::{entries, number, read};
use sandpiper_core::energy::EnergyScope;
use sandpiper_core::energy::ledger::Meter;
use std::path::{Path, PathBuf};

/// Where the power of one supply line is read.
#[derive(Debug)]
pub(super) enum Line {
    /// A file that tells it, and how many watts its unit is.
    Power(PathBuf, f64),
    /// Voltage in millivolts and current in milliamperes.
    Product(PathBuf, PathBuf),
}

impl Line {
    /// Watts now; `None` while the file cannot be read, for example because the bus is busy.
    pub(super) fn watts(&self) -> Option<f64> {
        match self {
            Self::Power(path, unit_w) => Some(number::<f64>(path)? * unit_w),
            // mV x mA = µW.
            Self::Product(mv, ma) => Some(number::<f64>(mv)? * number::<f64>(ma)? / 1e6),
        }
    }
}

/// One sensor.
#[derive(Debug)]
pub(super) struct Sensor {
    chip: String,
    gain_error: f64,
    line: Line,
}

/// The first sensor that can be read.
pub(super) fn find(roots: &Roots) -> Option<Sensor> {
    let all = entries(&roots.sysfs.join("class/hwmon"));
    all.iter().find_map(|dir| sensor(dir))
}

fn sensor(dir: &Path) -> Option<Sensor> {
    let chip = read(&dir.join("name"))?;
    // Gain errors of the chips' data sheets with their usual shunts.
    let gain_error = match chip.as_str() {
        "ina226" | "ina231" => 0.01,
        "ina219" | "ina220" => 0.02,
        _ => return None,
    };
    // `in0` is the voltage at the shunt, `in1` that of the bus.
    let lines = [
        Line::Power(dir.join("power1_input"), 1e-6),
        Line::Product(dir.join("in1_input"), dir.join("curr1_input")),
    ];
    let line = lines.into_iter().find(|line| line.watts().is_some())?;
    Some(Sensor {
        chip,
        gain_error,
        line,
    })
}

impl Source for Sensor {
    fn name(&self) -> String {
        format!("hwmon:{}", self.chip)
    }

    fn meter(&self) -> Meter {
        meter(EnergyScope::Board, self.gain_error)
    }

    fn read(&mut self, _at_us: u64) -> Reading {
        self.line.watts().map_or(Reading::Gap, plausible)
    }
}
