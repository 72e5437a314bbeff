//! How often gates fail rollouts without a change beyond their limits. The rollout machine and what
//! the controller learns from windows are those of production; devices report one window after the
//! other, so that every gate is looked at after every window of every device.
//!
//! Windows are noisy as those of devices are: a window as a whole is slow or hungry, errors come in
//! bursts, inputs in a row are alike, and devices differ from each other in everything.

use crate::dice::Dice;
use crate::planning;
use crate::truth::{model, name};
use sandpiper_core::assignment::Generation;
use sandpiper_core::digest::Digest;
use sandpiper_core::energy::{EnergyScope, Provenance};
use sandpiper_core::fleet::Refused;
use sandpiper_core::names::{DeviceName, VersionName};
use sandpiper_core::outputs::OutputStats;
use sandpiper_core::profile::PowerState;
use sandpiper_core::rollout::{
    Gates, Metric, Rollout, RolloutEvent, RolloutPlan, RolloutState, WaveSize, pairs,
};
use sandpiper_core::rungs::RungMap;
use sandpiper_core::sketch::LatencySketch;
use sandpiper_core::telemetry::{ModelPhase, ModelStatus, Serving, TelemetryWindow};
use sandpiper_core::time::Millis;
use serde::Serialize;

/// Length of a window.
const WINDOW_MS: u64 = 60_000;
/// Windows of a device before the rollout.
const BEFORE: u64 = 60;
/// Classes that the model tells apart.
const CLASSES: usize = 6;
/// Probability that an input is like the one before.
const ALIKE: f64 = 0.9;
/// The bin of confidence that only a version which is more sure than before knows.
const SURER: usize = 15;

/// What is varied.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Rollouts of each kind.
    pub rollouts: u64,
    /// Devices of each.
    pub devices: usize,
    /// Windows that each device reports before the deadline of the wave.
    pub windows: u64,
    /// The first seed.
    pub seed: u64,
}

/// Rollouts of one kind.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The figure that changes by exactly its limit; none when nothing changes.
    pub changed: Option<Metric>,
    /// Gates that were asked.
    pub gates: usize,
    /// Rollouts.
    pub rollouts: u64,
    /// Those that gates took back.
    pub failed: u64,
    /// Those that were promoted.
    pub passed: u64,
    /// Times that the gates of a rollout were looked at, on average.
    pub looks: f64,
}

impl Row {
    /// Share of rollouts that failed.
    pub fn share(&self) -> f64 {
        self.failed as f64 / self.rollouts.max(1) as f64
    }
}

/// Every gate, with a limit such as people choose.
fn all_gates() -> Gates {
    Gates {
        latency_p95_percent: Some(10),
        energy_percent: Some(10),
        errors_permille: Some(10),
        traps_per_million: Some(2_000),
        nonfinite_permille: Some(10),
        constant_permille: Some(50),
        classes_percent: Some(15),
        confidence_percent: Some(15),
        disagreement_percent: Some(10),
        ..Gates::default()
    }
}

const METRICS: [Metric; 9] = [
    Metric::LatencyP95,
    Metric::Energy,
    Metric::Errors,
    Metric::Traps,
    Metric::Nonfinite,
    Metric::Constant,
    Metric::Classes,
    Metric::Confidence,
    Metric::Disagreement,
];

/// Only the gate of this metric.
fn only(metric: Metric) -> Gates {
    let all = all_gates();
    let limit = |of: Metric, limit: Option<u32>| limit.filter(|_| metric == of);
    Gates {
        latency_p95_percent: limit(Metric::LatencyP95, all.latency_p95_percent),
        energy_percent: limit(Metric::Energy, all.energy_percent),
        errors_permille: limit(Metric::Errors, all.errors_permille),
        traps_per_million: limit(Metric::Traps, all.traps_per_million),
        nonfinite_permille: limit(Metric::Nonfinite, all.nonfinite_permille),
        constant_permille: limit(Metric::Constant, all.constant_permille),
        classes_percent: limit(Metric::Classes, all.classes_percent),
        confidence_percent: limit(Metric::Confidence, all.confidence_percent),
        disagreement_percent: limit(Metric::Disagreement, all.disagreement_percent),
        ..all
    }
}

/// How a device is under one version.
#[derive(Debug, Clone)]
struct Nature {
    per_window: u64,
    latency_us: f64,
    energy_uj: f64,
    errors: f64,
    traps: f64,
    nonfinite: f64,
    repeats: f64,
    shares: [f64; CLASSES],
    surer: f64,
    disagrees: f64,
    class: usize,
}

impl Nature {
    fn new(dice: &mut Dice) -> Self {
        let weights = [(); CLASSES].map(|()| 0.2 + dice.unit());
        let sum: f64 = weights.iter().sum();
        Self {
            per_window: dice.between(20, 200),
            latency_us: 1_000.0 + 20_000.0 * dice.unit(),
            energy_uj: 500.0 + 5_000.0 * dice.unit(),
            errors: 0.008 * dice.unit(),
            traps: 0.001 * dice.unit(),
            nonfinite: 0.02 * dice.unit(),
            repeats: 0.1 + 0.2 * dice.unit(),
            shares: weights.map(|w| w / sum),
            surer: 0.0,
            disagrees: 0.06 * dice.unit(),
            class: 0,
        }
    }

    /// The same with one figure changed by exactly its limit.
    fn changed(&self, metric: Option<Metric>) -> Self {
        let mut new = self.clone();
        match metric {
            None => {}
            Some(Metric::LatencyP95) => new.latency_us *= 1.10,
            Some(Metric::Energy) => new.energy_uj *= 1.10,
            Some(Metric::Errors) => new.errors += 0.010,
            Some(Metric::Traps) => new.traps += 0.002,
            Some(Metric::Nonfinite) => new.nonfinite += 0.010,
            Some(Metric::Constant) => new.repeats += 0.050,
            Some(Metric::Classes) => {
                // Mixed with one class alone: the distance is what the others lose.
                let part = 0.15 / (1.0 - self.shares[0]);
                new.shares = self.shares.map(|share| share * (1.0 - part));
                new.shares[0] += part;
            }
            Some(Metric::Confidence) => new.surer = 0.15,
            Some(Metric::Disagreement) => new.disagrees = 0.10,
        }
        new
    }

    /// A window of it.
    fn window(
        &mut self,
        version: &VersionName,
        compared: bool,
        dice: &mut Dice,
    ) -> TelemetryWindow {
        let n = self.per_window;
        let mut hits = |rate: f64| (0..n).filter(|_| dice.chance(rate)).count() as u64;
        let repeated = hits(self.repeats);
        let nonfinite = hits(self.nonfinite);
        // A burst: the mean of the factor is 1.
        let burst = (0.5 * dice.normal() - 0.125).exp();
        let mut hits = |rate: f64| (0..n).filter(|_| dice.chance(rate)).count() as u64;
        let (errors, traps) = (hits(self.errors * burst), hits(self.traps * burst));
        let (slow, hungry) = (0.06 * dice.normal(), 0.05 * dice.normal());
        let mut latency = LatencySketch::default();
        for _ in 0..n {
            let us = self.latency_us * (slow + 0.10 * dice.normal()).exp();
            latency.record(us as u32);
        }
        let mut outputs = OutputStats {
            followed: n,
            repeated,
            ..OutputStats::default()
        };
        for _ in 0..n {
            if !dice.chance(ALIKE) {
                let before = std::mem::replace(&mut self.class, draw(&self.shares, dice));
                outputs.turns += u64::from(before != self.class);
            }
            outputs.classes.record(self.class);
            let bin = match dice.chance(self.surer) {
                true => SURER,
                false => self.class + dice.below(3) as usize,
            };
            outputs.confidence.record(bin);
        }
        if compared {
            outputs.compared = n.div_ceil(32);
            let agrees = (0..outputs.compared).filter(|_| !dice.chance(self.disagrees));
            outputs.agreed = agrees.count() as u64;
        }
        TelemetryWindow {
            boot: 0,
            sequence: 0,
            generation: Generation(1),
            from: Millis(0),
            to: Millis(WINDOW_MS),
            deployment: name("activity"),
            model: model(),
            version: version.clone(),
            variant: name("large"),
            code: Digest::of(b"code"),
            power_state: PowerState::Mains,
            inferences: n,
            errors,
            rejected: 0,
            traps,
            nonfinite,
            outputs,
            latency,
            energy_uj: (self.energy_uj * n as f64 * hungry.exp()) as u64,
            energy_variance_uj2: 0.0,
            energy_provenance: Provenance::Measured,
            energy_scope: EnergyScope::Board,
        }
    }
}

fn draw(shares: &[f64; CLASSES], dice: &mut Dice) -> usize {
    let mut rest = dice.unit();
    for (class, share) in shares.iter().enumerate() {
        rest -= share;
        if rest < 0.0 {
            return class;
        }
    }
    CLASSES - 1
}

/// A device that moves from one version to the other.
struct Device {
    name: DeviceName,
    before: VersionName,
    after: VersionName,
    nature: Nature,
    rungs: RungMap,
    served: u64,
    dice: Dice,
}

impl Device {
    fn new(
        name: DeviceName,
        versions: [VersionName; 2],
        changed: Option<Metric>,
        mut dice: Dice,
    ) -> Self {
        let mut nature = Nature::new(&mut dice);
        let [before, after] = versions;
        let mut rungs = RungMap::new();
        for _ in 0..BEFORE {
            observe(&mut rungs, &nature.window(&before, false, &mut dice));
        }
        Self {
            name,
            before,
            after,
            nature: nature.changed(changed),
            rungs,
            served: 0,
            dice,
        }
    }

    /// Its next report under the new version.
    fn report(&mut self) -> RolloutEvent {
        let window = self.nature.window(&self.after, true, &mut self.dice);
        observe(&mut self.rungs, &window);
        self.served += window.inferences;
        let status = ModelStatus {
            deployment: name("activity"),
            model: model(),
            wanted: self.after.clone(),
            phase: ModelPhase::Serving,
            serving: Some(Serving {
                version: self.after.clone(),
                variant: window.variant,
                code: window.code,
                power_state: PowerState::Mains,
            }),
            failure: None,
            fetched_bytes: 0,
            needed_bytes: 0,
        };
        RolloutEvent::Reported {
            device: self.name.clone(),
            status: Some(Box::new(status)),
            inferences: self.served,
            measured: pairs(&self.rungs, &model(), [&self.before, &self.after]),
        }
    }
}

fn observe(rungs: &mut RungMap, window: &TelemetryWindow) {
    let (model, version) = (window.model.clone(), window.version.clone());
    let key = (model, version, window.power_state);
    rungs.entry(key).or_default().observe(window);
}

/// One rollout: how it ended, and how often its gates were looked at.
fn one(
    plan: &RolloutPlan,
    setting: &Setting,
    seed: u64,
    changed: Option<Metric>,
) -> (RolloutState, u64) {
    let versions = [name("v0"), plan.spec.version.clone()];
    let names = plan.waves.iter().flatten().map(|d| d.device.clone());
    let mut devices: Vec<Device> = (0..)
        .zip(names)
        .map(|(n, name)| {
            Device::new(
                name,
                versions.clone(),
                changed,
                Dice::new(seed, "alarms", n),
            )
        })
        .collect();
    let mut rollout = Rollout::new(plan.clone(), "anna", Millis(0));
    let actor = "anna".to_owned();
    rollout.handle(Millis(0), RolloutEvent::Start { actor });
    let mut looks = 0;
    // With the first wave over, the second has its time.
    for step in 1..=2 * setting.windows + 1 {
        let now = Millis(step * WINDOW_MS);
        for device in &mut devices {
            let waits = rollout
                .devices
                .get(&device.name)
                .is_none_or(|d| d.word() == "waiting");
            if waits || !matches!(rollout.state, RolloutState::Running { .. }) {
                continue;
            }
            rollout.handle(now, device.report());
            looks += 1;
        }
        rollout.handle(now, RolloutEvent::Tick);
    }
    (rollout.state, looks)
}

/// A plan of two waves, one device and the rest, with these gates.
fn plan(setting: &Setting, gates: Gates) -> Result<RolloutPlan, Refused> {
    let version: VersionName = name("v1");
    let fleet = planning::fleet(setting.devices, &version, 1)?;
    let mut spec = planning::spec(version);
    spec.waves = vec![WaveSize::Count(1)];
    spec.wave_deadline_s = setting.windows * WINDOW_MS / 1_000;
    spec.bake_s = 5 * WINDOW_MS / 1_000;
    spec.gates = Some(gates);
    let mut plan = fleet.plan_rollout(spec)?;
    plan.previous = Some(name("v0"));
    Ok(plan)
}

fn row(setting: &Setting, gates: Gates, changed: Option<Metric>) -> Result<Row, Refused> {
    let plan = plan(setting, gates)?;
    let mut row = Row {
        changed,
        gates: if changed.is_some() { 1 } else { METRICS.len() },
        rollouts: setting.rollouts,
        failed: 0,
        passed: 0,
        looks: 0.0,
    };
    for number in 0..setting.rollouts {
        let (state, looks) = one(&plan, setting, setting.seed + number, changed);
        row.looks += looks as f64 / setting.rollouts as f64;
        row.passed += u64::from(state == RolloutState::Promoted);
        let back = matches!(
            state,
            RolloutState::RollingBack { .. } | RolloutState::RolledBack { .. }
        );
        row.failed += u64::from(back);
    }
    Ok(row)
}

/// Rollouts in which nothing changes, with all gates; then, gate by gate, such in which one figure
/// changes by exactly its limit, which is the worst that still is within it.
///
/// # Errors
/// [`Refused`] when nothing can be planned.
pub fn measure(setting: &Setting) -> Result<Vec<Row>, Refused> {
    let calm = std::iter::once((all_gates(), None));
    let limits = METRICS.map(|metric| (only(metric), Some(metric)));
    let all = calm.chain(limits);
    std::thread::scope(|scope| {
        let jobs: Vec<_> = all
            .map(|(gates, changed)| scope.spawn(move || row(setting, gates, changed)))
            .collect();
        let joined = jobs.into_iter().map(|job| match job.join() {
            Ok(row) => row,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        joined.collect()
    })
}

/// The rows for people.
pub fn text(rows: &[Row]) -> String {
    let mut lines = vec![format!(
        "{:<42}{:>9}{:>9}{:>8}{:>9}{:>8}",
        "what changes", "rollouts", "failed", "share", "promoted", "looks"
    )];
    lines.extend(rows.iter().map(|row| {
        let what = match row.changed {
            None => format!("nothing, {} gates asked", row.gates),
            Some(metric) => format!("{} by exactly its limit", metric.words().0),
        };
        format!(
            "{what:<42}{:>9}{:>9}{:>7.2}%{:>9}{:>8.0}",
            row.rollouts,
            row.failed,
            100.0 * row.share(),
            row.passed,
            row.looks
        )
    }));
    lines.join("\n")
}
