//! INA3221 sensors with three rails each, as on Jetson boards.

use super::hwmon::Line;
use super::source::{Reading, Source, meter, plausible};
use crate::config::Roots;
use crate::probe::{entries, number, read};
use sandpiper_core::energy::EnergyScope;
use sandpiper_core::energy::ledger::Meter;
use std::path::{Path, PathBuf};

/// Rails that carry the whole board; others are parts of it.
const TOTALS: [&str; 2] = ["VDD_IN", "POM_5V_IN"];
/// Relative gain error of the chip with the shunts of these boards.
const GAIN_ERROR: f64 = 0.02;

/// The rails of a board: the one that is the total, or all of them.
#[derive(Debug)]
pub(super) struct Rails {
    total: Option<String>,
    lines: Vec<Line>,
}

/// The rails that can be read.
pub(super) fn find(roots: &Roots) -> Option<Rails> {
    let mut rails: Vec<(String, Line)> = Vec::new();
    for driver in ["ina3221", "ina3221x"] {
        for device in entries(&roots.sysfs.join("bus/i2c/drivers").join(driver)) {
            monitors(&device)
                .iter()
                .for_each(|dir| rails.extend(of_monitor(dir)));
        }
    }
    let total = rails.iter().position(|(l, _)| TOTALS.contains(&l.as_str()));
    if let Some(at) = total {
        let (label, line) = rails.swap_remove(at);
        return Some(Rails {
            total: Some(label),
            lines: vec![line],
        });
    }
    let lines: Vec<Line> = rails.into_iter().map(|(_, line)| line).collect();
    (!lines.is_empty()).then_some(Rails { total: None, lines })
}

/// `hwmon*` directories of a device, in its `hwmon` directory or beside it, and `iio:device*`
/// ones of old kernels.
fn monitors(device: &Path) -> Vec<PathBuf> {
    let all = [device.to_owned(), device.join("hwmon")];
    let all = all.iter().flat_map(|dir| entries(dir));
    let named = |dir: &PathBuf| {
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        (name.starts_with("hwmon") && name != "hwmon") || name.starts_with("iio:device")
    };
    all.filter(named).collect()
}

/// The three rails of one sensor. `in4` to `in7` are voltages at shunts and their sum.
fn of_monitor(dir: &Path) -> Vec<(String, Line)> {
    let modern = (1..=3).filter_map(|n| {
        if number::<u8>(&dir.join(format!("in{n}_enable"))) == Some(0) {
            return None;
        }
        let label = read(&dir.join(format!("in{n}_label")))?;
        let file = |kind: &str| dir.join(format!("{kind}{n}_input"));
        Some((label, Line::Product(file("in"), file("curr"))))
    });
    let old = (0..=2).filter_map(|n| {
        let label = read(&dir.join(format!("rail_name_{n}")))?;
        let milliwatts = dir.join(format!("in_power{n}_input"));
        Some((label, Line::Power(milliwatts, 1e-3)))
    });
    let all = modern.chain(old);
    // A rail that is not connected has no label or calls itself so.
    all.filter(|(label, line)| label != "NC" && line.watts().is_some())
        .collect()
}

impl Source for Rails {
    fn name(&self) -> String {
        match &self.total {
            Some(label) => format!("ina3221:{label}"),
            None => "ina3221:rails".to_owned(),
        }
    }

    fn meter(&self) -> Meter {
        let scope = match self.total {
            Some(_) => EnergyScope::Board,
            None => EnergyScope::Rails,
        };
        meter(scope, GAIN_ERROR)
    }

    fn read(&mut self, _at_us: u64) -> Reading {
        let sum: Option<f64> = self.lines.iter().map(Line::watts).sum();
        sum.map_or(Reading::Gap, plausible)
    }
}
