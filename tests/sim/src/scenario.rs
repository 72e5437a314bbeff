//! What a run is about: devices, versions, rollouts, and the list of faults.

use crate::dice::Dice;
use crate::fault::{Fault, faults};
use crate::queue::Time;
use crate::truth::{Quality, name};
use sandpiper_core::bandwidth::{Bandwidth, GroupBandwidth};
use sandpiper_core::names::VersionName;
use sandpiper_core::policy::Selector;
use sandpiper_core::rollout::{
    Approval, AskingWaves, Deadlines, DisruptionBudget, Gates, RolloutSpec, SteerVerb, WaveSize,
    Windows,
};
use sandpiper_core::target::Target;
use sandpiper_core::window::Window;
use serde::Serialize;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

/// Time with faults.
const STORMY_MS: u64 = 24 * HOUR;
/// Time after them, in which everything must come to rest.
const CALM_MS: u64 = 15 * HOUR;

/// The label that disruption budgets group by.
pub const SITE: &str = "site";
/// Number of sites.
pub const SITES: u64 = 5;

/// What latency and energy may rise by where there are gates, in percent.
const GATE_PERCENT: u32 = 15;

/// What an operator does.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum Step {
    /// Publishes a version and rolls it out.
    Rollout(VersionName, Quality, Box<RolloutSpec>),
    /// Steers the newest rollout; `at` decides whether that is possible.
    Steer(SteerVerb),
    /// Shuts a device out.
    Revoke(usize),
    /// Takes a device of the reserve into the fleet.
    Join(usize),
}

/// A run.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Where all chance comes from.
    pub seed: u64,
    /// Devices, of which the last few join later.
    pub devices: usize,
    /// Devices that join at the beginning.
    pub first: usize,
    /// Length of a telemetry window.
    pub window_ms: u64,
    /// What operators do and when.
    pub steps: Vec<(Time, Step)>,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// When everything is mended.
    pub heal_at: Time,
    /// When the run ends.
    pub end_at: Time,
}

impl Scenario {
    /// The scenario of a seed.
    pub fn of(seed: u64, devices: usize) -> Self {
        let mut dice = Dice::new(seed, "scenario", 0);
        let late = (devices / 10).min(5);
        let count = dice.between(20, 40) as usize;
        let mut steps = rollouts(&mut dice, devices);
        let steered = steering(&mut dice, &steps);
        steps.extend(steered);
        for device in devices - late..devices {
            steps.push((dice.between(HOUR, 20 * HOUR), Step::Join(device)));
        }
        if dice.chance(0.5) {
            let device = dice.below(devices as u64) as usize;
            steps.push((dice.between(HOUR, 22 * HOUR), Step::Revoke(device)));
        }
        steps.sort_by_key(|(at, _)| *at);
        Self {
            seed,
            devices,
            first: devices - late,
            window_ms: *dice.pick(&[5, 10, 15, 30]) * MINUTE,
            steps,
            faults: faults(seed, count, devices, 5 * MINUTE, STORMY_MS),
            heal_at: STORMY_MS + HOUR,
            end_at: STORMY_MS + HOUR + CALM_MS,
        }
    }

    /// Hours that all devices live through.
    pub fn device_hours(&self) -> f64 {
        self.devices as f64 * self.end_at as f64 / HOUR as f64
    }
}

fn quality(dice: &mut Dice) -> Quality {
    match dice.below(8) {
        0..=2 => Quality::Good,
        3 => Quality::FailsSelfTest,
        4 => Quality::FailsToLoadOn(*dice.pick(&[Target::CortexA53, Target::CortexA76])),
        5 => Quality::Dies(dice.between(1, 30) as u32),
        6 => Quality::Slow(dice.between(30, 100) as u32),
        _ => Quality::Hungry(dice.between(30, 100) as u32),
    }
}

fn rollouts(dice: &mut Dice, devices: usize) -> Vec<(Time, Step)> {
    let mut steps = Vec::new();
    let mut at = 20 * MINUTE;
    let mut number = 1;
    while at < STORMY_MS {
        // The first version is good, and few are too few to stop it: later ones need one before.
        let quality = match number {
            1 => Quality::Good,
            _ => quality(dice),
        };
        let version: VersionName = name(format!("v{number}"));
        let mut spec = spec(dice, version.clone());
        if number == 1 {
            spec.max_failures = devices as u32 / 3;
        }
        steps.push((at, Step::Rollout(version, quality, Box::new(spec))));
        number += 1;
        // Some come while the one before is under way.
        at += dice.between(HOUR, 8 * HOUR);
    }
    steps
}

/// Limits of phases: enough for those who are well.
fn deadlines(dice: &mut Dice) -> Deadlines {
    let mut some = |least: u64, most: u64| dice.chance(0.3).then(|| dice.between(least, most) * 60);
    Deadlines {
        fetch_s: some(20, 90),
        switch_s: some(20, 60),
        prove_s: some(60, 150),
    }
}

/// Windows of some hours of every day, or of every other hour.
fn windows(dice: &mut Dice) -> Option<Windows> {
    if !dice.chance(0.3) {
        return None;
    }
    let mut some = || -> Vec<Window> {
        match dice.below(3) {
            0 => Vec::new(),
            1 => vec![window(dice.below(24), dice.between(2, 9))],
            _ => (0..8).map(|n| window(n * 3, 1)).collect(),
        }
    };
    let (download, switch) = (some(), some());
    if download.is_empty() && switch.is_empty() {
        return None;
    }
    let mut windows = Windows::new(download, switch);
    windows.wait_s = dice.between(8, 30) * 3_600;
    Some(windows)
}

/// Rates at which a fleet needs some minutes for a version.
fn bandwidth(dice: &mut Dice) -> Option<Bandwidth> {
    let bounded = dice.chance(0.25);
    let (all, group) = (dice.between(100, 1_000), dice.between(50, 300));
    let bytes_per_s = dice.chance(0.7).then_some(all * 1_000);
    let per_group = (bytes_per_s.is_none() || dice.chance(0.5)).then(|| GroupBandwidth {
        group_by: SITE.to_owned(),
        bytes_per_s: group * 1_000,
    });
    bounded.then_some(Bandwidth {
        bytes_per_s,
        per_group,
    })
}

fn window(from: u64, hours: u64) -> Window {
    let text = format!("{from:02}:00-{:02}:00", (from + hours) % 24);
    // `24:00` is written as the end of a day, `00:00` is not.
    let text = text.replace("-00:00", "-24:00");
    text.parse()
        .expect("the windows of this world are well formed")
}

fn spec(dice: &mut Dice, version: VersionName) -> RolloutSpec {
    let site: Selector = format!("{SITE}=s{}", dice.below(SITES))
        .parse()
        .expect("the labels of this world are well formed");
    let waves: &[&[WaveSize]] = &[
        &[],
        &[WaveSize::Count(1), WaveSize::Percent(30)],
        &[WaveSize::Count(3), WaveSize::Percent(50)],
        &[
            WaveSize::Percent(5),
            WaveSize::Percent(20),
            WaveSize::Percent(60),
        ],
        &[WaveSize::Double(2)],
        &[WaveSize::Count(2), WaveSize::Selector(site)],
    ];
    RolloutSpec {
        waves: dice.pick(waves).to_vec(),
        wave_deadline_s: dice.between(40, 150) * 60,
        bake_s: dice.between(1, 15) * 60,
        max_failures: *dice.pick(&[0, 0, 1, 3, 8]),
        min_inferences: dice.between(1, 20),
        max_in_flight: dice.chance(0.5).then(|| dice.between(2, 12) as u32),
        disruption: dice.chance(0.5).then(|| DisruptionBudget {
            group_by: SITE.to_owned(),
            max_unavailable: dice.between(1, 4) as u32,
        }),
        gates: dice.chance(0.6).then(|| Gates {
            latency_p95_percent: Some(GATE_PERCENT),
            energy_percent: Some(GATE_PERCENT),
            errors_permille: dice.chance(0.3).then_some(20),
            traps_per_million: dice.chance(0.5).then_some(5_000),
            min_devices: dice.between(1, 4) as u32,
            min_inferences: dice.between(5, 40),
        }),
        approval: asking(dice),
        deadlines: deadlines(dice),
        windows: windows(dice),
        bandwidth: bandwidth(dice),
        ..RolloutSpec::new(name("activity"), version)
    }
}

/// Waves that wait for an operator, who may be a particular one.
fn asking(dice: &mut Dice) -> Option<Approval> {
    let waves = [AskingWaves::Every, AskingWaves::AfterFirst];
    let waves = dice.chance(0.25).then(|| dice.pick(&waves).clone())?;
    let by = match dice.chance(0.3) {
        true => vec![name("bert")],
        false => Vec::new(),
    };
    Some(Approval { waves, by })
}

/// Approvals of waves that ask, some long after they began to: what comes while nothing waits is
/// refused.
fn approving(dice: &mut Dice, begun: Time, steps: &mut Vec<(Time, Step)>) {
    let mut at = begun;
    for _ in 0..5 {
        at += dice.between(MINUTE, 2 * HOUR);
        let why = None;
        steps.push((at, Step::Steer(SteerVerb::Approve { why })));
    }
}

/// Operators who change their minds while rollouts are under way and after.
fn steering(dice: &mut Dice, rollouts: &[(Time, Step)]) -> Vec<(Time, Step)> {
    let mut steps = Vec::new();
    for (begun, rollout) in rollouts {
        if let Step::Rollout(_, _, spec) = rollout
            && spec.approval.is_some()
            && dice.chance(0.8)
        {
            approving(dice, *begun, &mut steps);
        }
        match dice.below(8) {
            0 | 1 => {
                let at = begun + dice.between(1, 60) * MINUTE;
                let resume = at + dice.between(5 * MINUTE, 3 * HOUR);
                steps.push((at, Step::Steer(SteerVerb::Pause)));
                steps.push((resume, Step::Steer(SteerVerb::Resume)));
            }
            2 => {
                let at = begun + dice.between(MINUTE, 2 * HOUR);
                let retry = at + dice.between(MINUTE, 3 * HOUR);
                steps.push((at, Step::Steer(SteerVerb::Abort)));
                steps.push((retry, Step::Steer(SteerVerb::Retry)));
            }
            3 => {
                let at = begun + dice.between(MINUTE, 6 * HOUR);
                let undo = SteerVerb::Undo { to: None };
                let promote = |full| SteerVerb::Promote { full };
                let verbs = [undo, promote(false), promote(true)];
                steps.push((at, Step::Steer(dice.pick(&verbs).clone())));
            }
            // The same version once more, though it is there already or on its way.
            4 => steps.push((begun + dice.between(MINUTE, 5 * HOUR), rollout.clone())),
            _ => {}
        }
    }
    steps
}
