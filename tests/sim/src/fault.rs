//! What goes wrong, as a list that a seed determines and that can be shortened.

use crate::dice::Dice;
use crate::outside::Weather;
use crate::queue::Time;
use serde::Serialize;

/// One fault.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fault {
    /// When it begins, in milliseconds of the world.
    pub at: Time,
    /// What.
    pub kind: FaultKind,
}

/// How a hostile device lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Lie {
    /// It says that it serves what is wanted, with code that nobody published.
    FakeDigest,
    /// It sends every window again and again.
    Replays,
}

/// Kinds of faults. Spans are in milliseconds; a device is its number.
#[allow(missing_docs)] // of fields, which are what their names say
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum FaultKind {
    /// The power goes.
    PowerCut { device: usize, off_ms: u64 },
    /// The power goes in the middle of one of the next writes.
    CutInWrite {
        device: usize,
        steps: u32,
        off_ms: u64,
    },
    /// Devices reach nobody.
    Partition { devices: Vec<usize>, ms: u64 },
    /// Messages are lost, doubled, delayed and overtaken.
    Weather { weather: Weather, ms: u64 },
    /// A connection dies, and both ends notice late.
    DeadStream { device: usize },
    /// The controller is killed at one of its next commits, before or after it.
    ControllerKilled {
        commits: u32,
        before: bool,
        off_ms: u64,
    },
    /// The clock of a device jumps; 0 means to 1970.
    DeviceClock { device: usize, jump_ms: i64 },
    /// The clock of the controller jumps.
    ControllerClock { jump_ms: i64 },
    /// Nothing more fits on the disk.
    DiskFull { device: usize, ms: u64 },
    /// The next sync fails.
    SyncFails { device: usize },
    /// An artefact rots.
    Rot { device: usize, place: u64 },
    /// Downloads arrive damaged.
    Damaged { device: usize, ms: u64 },
    /// A device that is connected says nothing.
    Silent { device: usize, ms: u64 },
    /// A device lies.
    Hostile { device: usize, lie: Lie, ms: u64 },
    /// An old assignment of a device reaches it again.
    Replay { device: usize, back: u64 },
    /// The assignment of another device reaches this one.
    Foreign { device: usize, from: usize },
    /// An altered assignment reaches a device.
    Forged { device: usize },
    /// A copy of the card runs in another device, until it is wiped.
    Cloned { device: usize, ms: u64 },
    /// Another controller starts on the store while the one before goes on.
    TakenOver,
    /// The battery falls to this charge.
    Battery { device: usize, percent: u8 },
    /// It becomes hot.
    Heat { device: usize, ms: u64 },
    /// Nobody asks for inferences.
    Idle { device: usize, ms: u64 },
}

impl FaultKind {
    /// How long it lasts, if it has an end of its own.
    pub fn lasts(&self) -> Option<u64> {
        match self {
            Self::Partition { ms, .. }
            | Self::Weather { ms, .. }
            | Self::DiskFull { ms, .. }
            | Self::Damaged { ms, .. }
            | Self::Silent { ms, .. }
            | Self::Hostile { ms, .. }
            | Self::Heat { ms, .. }
            | Self::Cloned { ms, .. }
            | Self::Idle { ms, .. } => Some(*ms),
            _ => None,
        }
    }
}

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
/// Fifty years.
const AGE_MS: i64 = 50 * 365 * 24 * 3_600_000;

/// Faults of a run, in order, between `from` and `to`.
pub fn faults(seed: u64, count: usize, devices: usize, from: Time, to: Time) -> Vec<Fault> {
    let mut dice = Dice::new(seed, "faults", 0);
    let mut all: Vec<Fault> = (0..count)
        .map(|_| Fault {
            at: dice.between(from, to),
            kind: kind(&mut dice, devices),
        })
        .collect();
    all.sort_by_key(|fault| fault.at);
    all
}

fn span(dice: &mut Dice) -> u64 {
    // Mostly minutes, sometimes hours.
    match dice.below(4) {
        0 => dice.between(HOUR, 6 * HOUR),
        1 => dice.between(20 * MINUTE, HOUR),
        _ => dice.between(MINUTE, 20 * MINUTE),
    }
}

fn kind(dice: &mut Dice, devices: usize) -> FaultKind {
    let device = dice.below(devices as u64) as usize;
    match dice.below(28) {
        0 | 1 => FaultKind::PowerCut {
            device,
            off_ms: span(dice),
        },
        2..=4 => FaultKind::CutInWrite {
            device,
            steps: dice.below(12) as u32,
            off_ms: dice.between(1_000, 10 * MINUTE),
        },
        5 | 6 => {
            let share = dice.between(1, 1 + devices as u64 / 3);
            let devices = (0..share)
                .map(|_| dice.below(devices as u64) as usize)
                .collect();
            FaultKind::Partition {
                devices,
                ms: span(dice),
            }
        }
        7 => FaultKind::Weather {
            weather: Weather {
                loss: dice.below(200) as u16,
                twice: dice.below(200) as u16,
                overtake: dice.below(300) as u16,
                delay_ms: dice.below(30_000) as u32,
            },
            ms: span(dice),
        },
        8 => FaultKind::DeadStream { device },
        9..=11 => FaultKind::ControllerKilled {
            commits: dice.below(30) as u32,
            before: dice.chance(0.5),
            off_ms: dice.between(1_000, 20 * MINUTE),
        },
        12 => FaultKind::DeviceClock {
            device,
            jump_ms: *dice.pick(&[0, AGE_MS, -3_600_000, 3_600_000, 86_400_000]),
        },
        13 => FaultKind::ControllerClock {
            jump_ms: *dice.pick(&[-600_000, -60_000, 60_000, 600_000, 3_600_000]),
        },
        14 => match dice.below(3) {
            0 => FaultKind::SyncFails { device },
            _ => FaultKind::DiskFull {
                device,
                ms: span(dice),
            },
        },
        15 => FaultKind::Rot {
            device,
            place: dice.roll(),
        },
        16 => FaultKind::Damaged {
            device,
            ms: span(dice),
        },
        17 => FaultKind::Silent {
            device,
            ms: span(dice),
        },
        18 | 19 => FaultKind::Hostile {
            device,
            lie: *dice.pick(&[Lie::FakeDigest, Lie::Replays]),
            ms: dice.between(HOUR, 8 * HOUR),
        },
        24 => FaultKind::Foreign {
            device,
            from: dice.below(devices as u64) as usize,
        },
        25 => FaultKind::Hostile {
            device,
            lie: Lie::FakeDigest,
            ms: dice.between(4 * HOUR, 20 * HOUR),
        },
        20 => FaultKind::Replay {
            device,
            back: dice.between(1, 4),
        },
        26 => FaultKind::TakenOver,
        27 => FaultKind::Cloned {
            device,
            ms: span(dice),
        },
        21 => match dice.below(2) {
            0 => FaultKind::Forged { device },
            _ => FaultKind::Foreign {
                device,
                from: dice.below(devices as u64) as usize,
            },
        },
        22 => match dice.below(2) {
            0 => FaultKind::Battery {
                device,
                percent: dice.between(1, 60) as u8,
            },
            _ => FaultKind::Heat {
                device,
                ms: span(dice),
            },
        },
        _ => FaultKind::Idle {
            device,
            ms: span(dice),
        },
    }
}
