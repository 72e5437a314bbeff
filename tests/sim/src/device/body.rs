//! What a device is made of: board, battery, heat.

use crate::dice::Dice;
use crate::scenario::{SITE, SITES};
use crate::truth::RUNTIME;
use sandpiper_core::policy::Labels;
use sandpiper_core::profile::{Conditions, DeviceProfile, Power, SandboxSpeed};
use sandpiper_core::target::{Arch, Target};
use sandpiper_core::tensor::DType;
use sandpiper_core::window::ZONE_LABEL;
use std::collections::{BTreeMap, BTreeSet};

/// Name, target, multiply-accumulates a second, RAM in MiB, power at rest in milliwatts.
const BOARDS: [(&str, Target, f64, u64, u64); 4] = [
    (
        "Raspberry Pi Zero 2 W Rev 1.0",
        Target::CortexA53,
        0.9e9,
        400,
        600,
    ),
    (
        "Raspberry Pi 3 Model B Plus Rev 1.3",
        Target::CortexA53,
        1.4e9,
        900,
        2_000,
    ),
    (
        "Raspberry Pi 4 Model B Rev 1.4",
        Target::CortexA53,
        3.0e9,
        3_600,
        2_290,
    ),
    (
        "Raspberry Pi 5 Model B Rev 1.0",
        Target::CortexA76,
        9.0e9,
        7_600,
        2_400,
    ),
];

/// Where devices stand; the clocks of two of them are put forward and back in the year.
const ZONES: [&str; 4] = ["Europe/Berlin", "Asia/Kolkata", "-03:00", "UTC"];

/// Energy of a full battery: 37 Wh in microjoules.
const FULL_UJ: f64 = 37.0 * 3_600.0 * 1e6;
/// Above this the firmware holds the clock back.
const THROTTLED_MC: i32 = 80_000;

/// A board with what feeds it.
#[derive(Debug)]
pub struct Body {
    board: usize,
    /// Energy left in microjoules; nothing on the mains.
    battery_uj: Option<f64>,
    /// It charges by day.
    solar: bool,
    temperature_mc: i32,
    /// Requests an hour.
    pub per_hour: f64,
    /// How much slower than its board it is.
    pub slowness: f64,
    site: u64,
    charging: bool,
    zone: &'static str,
    /// Its operator has labelled it with its zone; otherwise it says it itself.
    labelled: bool,
}

impl Body {
    /// A board that dice choose.
    pub fn new(dice: &mut Dice) -> Self {
        let battery = dice.chance(0.4);
        Self {
            board: dice.below(BOARDS.len() as u64) as usize,
            battery_uj: battery.then(|| FULL_UJ * (0.5 + 0.5 * dice.unit())),
            solar: dice.chance(0.8),
            temperature_mc: 50_000,
            per_hour: 60.0 + 600.0 * dice.unit(),
            slowness: 1.0 + 0.2 * dice.unit(),
            site: dice.below(SITES),
            charging: false,
            zone: *dice.pick::<&str>(&ZONES),
            labelled: dice.chance(0.3),
        }
    }

    /// Its labels.
    pub fn labels(&self) -> Labels {
        let mut labels: Labels = [(SITE.to_owned(), format!("s{}", self.site))].into();
        if self.labelled {
            labels.insert(ZONE_LABEL.to_owned(), self.zone.to_owned());
        }
        labels
    }

    /// Multiply-accumulates a second, as hot as it is.
    pub fn macs_per_s(&self) -> f64 {
        let (_, _, speed, _, _) = BOARDS[self.board];
        let heat = if self.is_throttled() { 0.6 } else { 1.0 };
        speed * heat / self.slowness
    }

    /// What it runs code of.
    pub fn target(&self) -> Target {
        BOARDS[self.board].1
    }

    fn is_throttled(&self) -> bool {
        self.temperature_mc > THROTTLED_MC
    }

    /// The battery falls to this charge.
    pub fn discharge(&mut self, percent: u8) {
        if let Some(left) = &mut self.battery_uj {
            *left = FULL_UJ * f64::from(percent) / 100.0;
        }
    }

    /// Time passes at this hour of the day, with this energy spent on inferences.
    pub fn live(&mut self, ms: u64, hour: u64, spent_uj: f64, hot: bool) {
        let (_, _, _, _, rest_mw) = BOARDS[self.board];
        self.charging = self.battery_uj.is_some() && self.solar && (7..18).contains(&hour);
        if let Some(left) = &mut self.battery_uj {
            let rest_uj = ms as f64 * rest_mw as f64;
            let gain_uj = if self.charging {
                ms as f64 * 9_000.0
            } else {
                0.0
            };
            *left = (*left - rest_uj - spent_uj + gain_uj).clamp(FULL_UJ * 0.01, FULL_UJ);
        }
        let noon = 12_i32 - (12 - hour as i32).abs();
        self.temperature_mc = 42_000 + noon * 1_500 + if hot { 30_000 } else { 0 };
    }

    /// What it is.
    pub fn profile(&self) -> DeviceProfile {
        let (board, target, speed, ram_mib, _) = BOARDS[self.board];
        DeviceProfile {
            agent_version: "0.1.0".to_owned(),
            emulated: true,
            board: board.to_owned(),
            soc: String::new(),
            arch: Arch::Aarch64,
            cpu_model: String::new(),
            cpu_features: BTreeSet::new(),
            cores: 4,
            ram_total_bytes: ram_mib << 20,
            dtypes: BTreeSet::new(),
            zone: (!self.labelled).then(|| self.zone.to_owned()),
            targets: match target {
                Target::CortexA76 => vec![Target::CortexA76, Target::CortexA53],
                other => vec![other],
            },
            runtime_keys: [RUNTIME.to_owned()].into(),
            speed: Some(SandboxSpeed {
                macs_per_s: [(DType::F32, speed)].into(),
                bytes_per_s: 2e9,
                overhead_us: 50.0,
            }),
            energy_sources: Vec::new(),
            lockdown: BTreeMap::new(),
        }
    }

    /// How it is.
    pub fn conditions(&self) -> Conditions {
        let (_, _, _, ram_mib, _) = BOARDS[self.board];
        let power = match self.battery_uj {
            None => Power::Mains,
            Some(left) => Power::Battery {
                percent: (left / FULL_UJ * 100.0) as u8,
                charging: self.charging,
                remaining_uj: Some(left as u64),
            },
        };
        Conditions {
            ram_available_bytes: (ram_mib << 20) / 2,
            disk_free_bytes: 4 << 30,
            power,
            temperature_mc: Some(self.temperature_mc),
            throttled: self.is_throttled(),
        }
    }
}
