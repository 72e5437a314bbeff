//! Sources in trees that look like sysfs, and what is made of their readings.
#![allow(clippy::unwrap_used)]

use super::*;
use sandpiper_core::energy::Provenance;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// A board that nobody has published a model of.
const NO_MODEL: &str = "Banana";

struct Tree(TempDir);

impl Tree {
    fn new(files: &[(&str, &str)]) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        files.iter().for_each(|(path, text)| tree.write(path, text));
        tree
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn roots(&self) -> Roots {
        let dir: &Path = self.0.path();
        Roots {
            sysfs: dir.join("sys"),
            procfs: dir.join("proc"),
            powercap: dir.join("powercap"),
            localtime: dir.join("localtime"),
        }
    }

    fn accountant(&self) -> Accountant {
        Accountant::new(&self.roots(), NO_MODEL, 4)
    }
}

/// Samples ten times a second, `set` before each; quiet for ten seconds, then busy.
fn run(accountant: &mut Accountant, busy: u32, mut set: impl FnMut(u32, bool)) {
    let begin = Instant::now();
    for step in 0..=100 + busy {
        let inferring = step > 100;
        set(step, inferring);
        let activity = if inferring {
            Activity::Inferring
        } else {
            Activity::Quiet
        };
        accountant.sample(
            begin + Duration::from_millis(100 * u64::from(step)),
            activity,
        );
    }
}

fn named(accountant: &Accountant) -> (String, EnergyScope) {
    let first = accountant.sources().remove(0);
    (first.name, first.scope)
}

#[test]
fn a_board_without_a_meter_is_modelled_and_an_unknown_one_is_unknown() {
    let tree = Tree::new(&[]);
    let mut pi = Accountant::new(&tree.roots(), "Raspberry Pi 4 Model B Rev 1.4", 4);
    assert!(!pi.is_metered());
    assert_eq!(named(&pi).0, "model:raspberry-pi-4b");
    let figure = pi.settle(&[1_000_000])[0];
    assert_eq!(figure.provenance, Provenance::Modelled);
    assert!((figure.energy_uj as f64 - 4.534e6 / 4.0).abs() < 2.0);
    assert!(figure.standard_error_uj > 0);
    let mut other = tree.accountant();
    assert!(other.sources().is_empty());
    assert_eq!(other.settle(&[5])[0], Energy::default());
}

#[test]
fn rapl_above_rest_is_measured_over_a_wrap() {
    let tree = Tree::new(&[
        ("powercap/intel-rapl:0/name", "package-0\n"),
        ("powercap/intel-rapl:0/max_energy_range_uj", "10000000\n"),
        ("powercap/intel-rapl:0/energy_uj", "0"),
        ("powercap/intel-rapl:0:0/name", "core\n"),
        ("powercap/intel-rapl:0:0/energy_uj", "0"),
        ("powercap/intel-rapl-mmio:0/name", "package-0\n"),
        ("powercap/intel-rapl-mmio:0/energy_uj", "0"),
    ]);
    let mut accountant = tree.accountant();
    let mut total = 0u64;
    // Two watts at rest, then five.
    run(&mut accountant, 30, |_, busy| {
        total += if busy { 500_000 } else { 200_000 };
        let value = (total % 10_000_000).to_string();
        tree.write("powercap/intel-rapl:0/energy_uj", value);
    });
    let all = accountant.settle(&[3, 1]);
    assert_eq!(
        named(&accountant),
        ("rapl:package".into(), EnergyScope::Package)
    );
    assert_eq!(all[0].provenance, Provenance::Measured);
    assert_eq!(all[0].scope, EnergyScope::Package);
    // Three watts for three seconds, split three to one and counted once.
    let sum = all[0].energy_uj + all[1].energy_uj;
    assert!(sum.abs_diff(9_000_000) < 10_000, "{all:?}");
    assert!((all[0].energy_uj as f64 / all[1].energy_uj as f64 - 3.0).abs() < 0.01);
    // Gain error 5 % of 9 J, and what the edges of the burst add.
    let error = all[0].standard_error_uj + all[1].standard_error_uj;
    assert!((450_000..600_000).contains(&error), "{error}");
    // Nothing is counted twice.
    assert_eq!(
        accountant.settle(&[3, 1])[0].provenance,
        Provenance::Unknown
    );
}

#[test]
fn too_few_readings_are_not_measured() {
    let tree = Tree::new(&[
        ("sys/class/hwmon/hwmon1/name", "ina226\n"),
        ("sys/class/hwmon/hwmon1/power1_input", "2000000\n"),
    ]);
    let mut accountant = tree.accountant();
    assert_eq!(
        named(&accountant),
        ("hwmon:ina226".into(), EnergyScope::Board)
    );
    let power = "sys/class/hwmon/hwmon1/power1_input";
    let set = |_, busy| tree.write(power, if busy { "4000000" } else { "2000000" });
    run(&mut accountant, 19, set);
    assert_eq!(accountant.settle(&[7])[0].provenance, Provenance::Unknown);
    let mut accountant = tree.accountant();
    run(&mut accountant, 20, set);
    let figure = accountant.settle(&[7])[0];
    assert_eq!(figure.provenance, Provenance::Measured);
    // Two watts for two seconds; the trapezoid of the first step is half as high.
    assert!(figure.energy_uj.abs_diff(3_900_000) < 10_000, "{figure:?}");
}

#[test]
fn an_ina219_without_a_power_file_is_the_product_and_loading_counts_for_nothing() {
    let tree = Tree::new(&[
        ("sys/class/hwmon/hwmon0/name", "cpu_thermal\n"),
        ("sys/class/hwmon/hwmon1/name", "ina219\n"),
        ("sys/class/hwmon/hwmon1/in0_input", "9\n"),
        ("sys/class/hwmon/hwmon1/in1_input", "5000\n"),
        ("sys/class/hwmon/hwmon1/curr1_input", "400\n"),
    ]);
    let mut accountant = tree.accountant();
    let current = "sys/class/hwmon/hwmon1/curr1_input";
    let begin = Instant::now();
    // Two watts at rest, nine while something loads, unreadable for a while, four in use.
    for step in 0..300u64 {
        let (ma, activity) = match step {
            0..100 => ("400", Activity::Quiet),
            100..200 => ("1800", Activity::Loading),
            200..210 => ("", Activity::Inferring),
            _ => ("800", Activity::Inferring),
        };
        tree.write(current, ma);
        accountant.sample(begin + Duration::from_millis(100 * step), activity);
    }
    let figure = accountant.settle(&[1])[0];
    assert_eq!(figure.provenance, Provenance::Measured);
    // Two watts above rest from the second reading after the gap on.
    assert!(figure.energy_uj.abs_diff(17_800_000) < 50_000, "{figure:?}");
}

#[test]
fn a_jetson_counts_its_total_or_the_sum_of_its_rails() {
    let at = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3";
    let file = |name: &str| format!("{at}/{name}");
    let tree = Tree::new(&[]);
    for (n, label, mv, ma) in [(1, "VDD_CPU_GPU_CV", 5000, 300), (2, "VDD_SOC", 5000, 100)] {
        tree.write(&file(&format!("in{n}_label")), label);
        tree.write(&file(&format!("in{n}_input")), mv.to_string());
        tree.write(&file(&format!("curr{n}_input")), ma.to_string());
    }
    tree.write(&file("in7_label"), "sum of shunt voltages");
    tree.write(&file("in7_input"), "99999");
    tree.write(&file("curr4_input"), "99999");
    let mut rails = jetson::find(&tree.roots()).unwrap();
    assert_eq!(rails.name(), "ina3221:rails");
    assert_eq!(rails.meter().scope, EnergyScope::Rails);
    assert_eq!(rails.read(0), Reading::Power(2.0));
    tree.write(&file("in3_label"), "VDD_IN");
    tree.write(&file("in3_input"), "5000");
    tree.write(&file("curr3_input"), "1000");
    let mut total = jetson::find(&tree.roots()).unwrap();
    assert_eq!(total.name(), "ina3221:VDD_IN");
    assert_eq!(total.meter().scope, EnergyScope::Board);
    assert_eq!(total.read(0), Reading::Power(5.0));
    tree.write(&file("in3_enable"), "0");
    assert_eq!(
        jetson::find(&tree.roots()).unwrap().read(0),
        Reading::Power(2.0)
    );
    tree.write(&file("curr1_input"), "busy");
    assert_eq!(rails.read(0), Reading::Gap);
}

#[test]
fn an_old_jetson_names_its_rails_otherwise() {
    let at = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0";
    let tree = Tree::new(&[]);
    for (n, label, mw) in [(0, "POM_5V_IN", 3100), (1, "POM_5V_GPU", 40)] {
        tree.write(&format!("{at}/rail_name_{n}"), label);
        tree.write(&format!("{at}/in_power{n}_input"), format!("{mw}\n"));
    }
    let mut rails = jetson::find(&tree.roots()).unwrap();
    assert_eq!(rails.read(0), Reading::Power(3.1));
    assert_eq!(rails.name(), "ina3221:POM_5V_IN");
}

#[test]
fn a_battery_tells_its_power_while_it_drains_whatever_the_sign() {
    let at = "sys/class/power_supply/BAT0";
    let tree = Tree::new(&[
        ("sys/class/power_supply/AC/type", "Mains\n"),
        ("sys/class/power_supply/mouse/type", "Battery\n"),
        ("sys/class/power_supply/mouse/scope", "Device\n"),
        ("sys/class/power_supply/mouse/power_now", "1\n"),
        ("sys/class/power_supply/BAT0/type", "Battery\n"),
        ("sys/class/power_supply/BAT0/status", "Discharging\n"),
        ("sys/class/power_supply/BAT0/current_now", "-500000\n"),
        ("sys/class/power_supply/BAT0/voltage_now", "4000000\n"),
    ]);
    let mut battery = battery::find(&tree.roots()).unwrap();
    assert_eq!(battery.name(), "battery:BAT0");
    assert_eq!(battery.meter().scope, EnergyScope::Battery);
    assert_eq!(battery.read(0), Reading::Power(2.0));
    tree.write(&format!("{at}/current_now"), "500000");
    assert_eq!(battery.read(0), Reading::Power(2.0));
    for status in ["Charging", "Full", "Unknown"] {
        tree.write(&format!("{at}/status"), status);
        assert_eq!(battery.read(0), Reading::Gap, "{status}");
    }
    tree.write(&format!("{at}/power_now"), "-2500000");
    tree.write(&format!("{at}/status"), "Discharging");
    assert_eq!(
        battery::find(&tree.roots()).unwrap().read(0),
        Reading::Power(2.5)
    );
}

#[test]
fn battery_counters_are_followed_from_step_to_step() {
    for (file, unit) in [("energy_now", 1000.0), ("charge_now", 250.0)] {
        let at = "sys/class/power_supply/BAT0";
        let tree = Tree::new(&[
            ("sys/class/power_supply/BAT0/type", "Battery\n"),
            ("sys/class/power_supply/BAT0/status", "Discharging\n"),
            ("sys/class/power_supply/BAT0/voltage_now", "4000000\n"),
        ]);
        let set = |steps: f64| {
            let value = (10_000_000.0 - steps * unit).to_string();
            tree.write(&format!("{at}/{file}"), value);
        };
        set(0.0);
        let mut battery = battery::find(&tree.roots()).unwrap();
        let s = 1_000_000;
        assert_eq!(battery.read(0), Reading::Wait);
        // The first step may have begun before the first reading.
        set(1.0);
        assert_eq!(battery.read(s), Reading::Wait);
        assert_eq!(battery.read(2 * s), Reading::Wait);
        // One milliwatt-hour is 3.6 J.
        set(2.0);
        let step = Reading::Interval {
            elapsed_us: 2 * s,
            energy_uj: 3_600_000,
        };
        assert_eq!(battery.read(3 * s), step, "{file}");
        set(500.0);
        assert_eq!(battery.read(3 * s + 1), Reading::Gap, "it corrected itself");
        set(0.0);
        assert_eq!(battery.read(4 * s), Reading::Wait, "it rose");
        tree.write(&format!("{at}/status"), "Charging");
        assert_eq!(battery.read(5 * s), Reading::Gap);
    }
    let tree = Tree::new(&[
        ("sys/class/power_supply/gauge/type", "Battery\n"),
        ("sys/class/power_supply/gauge/voltage_now", "4000000\n"),
        ("sys/class/power_supply/gauge/capacity", "55\n"),
    ]);
    assert!(battery::find(&tree.roots()).is_none());
}

#[test]
fn coarse_counters_keep_busy_and_rest_apart() {
    let at = "sys/class/power_supply/BAT0";
    let tree = Tree::new(&[
        ("sys/class/power_supply/BAT0/type", "Battery\n"),
        ("sys/class/power_supply/BAT0/status", "Discharging\n"),
        ("sys/class/power_supply/BAT0/energy_now", "90000000\n"),
    ]);
    let mut accountant = tree.accountant();
    // A step of 1 mWh (3.6 J) every 1.8 s at rest (2 W), then every 0.9 s (4 W).
    let (mut steps, mut due) = (0u64, 0);
    run(&mut accountant, 9 * 21, |step, busy| {
        if step >= due {
            due = step + if busy { 9 } else { 18 };
            steps += 1;
            let value = 90_000_000 - 1000 * steps;
            tree.write(&format!("{at}/energy_now"), value.to_string());
        }
    });
    let figure = accountant.settle(&[1])[0];
    assert_eq!(figure.provenance, Provenance::Measured);
    assert_eq!(figure.scope, EnergyScope::Battery);
    let seconds = 0.9 * 21.0;
    let off = (figure.energy_uj as f64 - 2e6 * seconds).abs();
    assert!(off < 3.6e6, "within one step: {figure:?}");
}
