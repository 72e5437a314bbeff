//! What a plan is going to do. Its times come from the rollout machine itself, driven through the
//! plan under a clock of its own: windows, bounds on devices in flight and deadlines are kept there
//! exactly as they will be.

use super::plan::{PlannedDevice, RolloutPlan};
use super::rehearsal::Rehearsal;
use crate::energy::Provenance;
use crate::policy::Deployment;
use crate::selection::{Expected, Prediction};
use crate::time::Millis;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a plan is going to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// By wave.
    pub waves: Vec<WaveForecast>,
    /// Bytes to send in all.
    pub download_bytes: u64,
    /// Energy of fetching and switching.
    pub energy: MoveEnergy,
    /// Accuracy of the devices that move, 0..=1.
    pub accuracy: Option<Change>,
    /// Latency of an inference in microseconds.
    pub latency_us: Option<Change>,
    /// Energy of an inference in microjoules.
    pub energy_uj: Option<Change>,
    /// Why the times are not known, or why the rollout would not get through even if every gate
    /// passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<String>,
}

/// A wave that is to come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WaveForecast {
    /// Devices in it.
    pub devices: usize,
    /// Bytes to send.
    pub download_bytes: u64,
    /// Devices whose time rests on their own past; that of the others is the median of the fleet.
    pub measured: usize,
    /// When it begins, in seconds from now.
    pub begins_s: Option<u64>,
    /// When it is over, in seconds from now.
    pub ends_s: Option<u64>,
}

/// Energy of moving: one busy core for the time it takes, by the published models of the boards.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MoveEnergy {
    /// Microjoules of the devices for which it is known.
    pub energy_uj: f64,
    /// Always modelled, or unknown when it is known of no device.
    pub provenance: Provenance,
    /// Devices for which it is known.
    pub devices: usize,
    /// Devices without a model of their board, or of which nobody knows how long they take.
    pub unknown: usize,
}

/// Means over devices that move, on the mains.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// As it is, over the devices that run a version before; nothing when none does.
    pub before: Option<f64>,
    /// As it will be, over the same devices, or over all when there is nothing before.
    pub after: f64,
    /// These devices.
    pub devices: usize,
    /// The weakest provenance of the figures; unknown where an accuracy is a claim.
    pub provenance: Provenance,
}

/// Foresees what a plan does from `now` on.
pub fn forecast(plan: &RolloutPlan, deployment: &Deployment, now: Millis) -> Forecast {
    let (times, obstacle) = match times(plan, deployment, now) {
        Ok(times) => times,
        Err(why) => (BTreeMap::new(), Some(why)),
    };
    let seconds = |at: Millis| now_to(now, at);
    let waves = plan.waves.iter().enumerate().map(|(index, devices)| {
        let bytes = devices.iter().map(|d| d.download_bytes).sum();
        let own = |d: &&PlannedDevice| {
            d.takes
                .is_some_and(|t| t.provenance == Provenance::Measured)
        };
        let (begins, ends) = times.get(&index).copied().unwrap_or_default();
        WaveForecast {
            devices: devices.len(),
            download_bytes: bytes,
            measured: devices.iter().filter(own).count(),
            begins_s: begins.map(seconds),
            ends_s: ends.map(seconds),
        }
    });
    let waves: Vec<_> = waves.collect();
    let all = || plan.waves.iter().flatten();
    let known: Vec<f64> = all().filter_map(|d| d.move_uj).collect();
    let accuracy = |e: &Expected| Prediction {
        value: e.accuracy,
        log_sigma: 0.0,
        provenance: match e.claimed {
            true => Provenance::Unknown,
            false => Provenance::Measured,
        },
        samples: 0,
    };
    Forecast {
        download_bytes: waves.iter().map(|w| w.download_bytes).sum(),
        waves,
        energy: MoveEnergy {
            energy_uj: known.iter().sum(),
            provenance: match known.is_empty() {
                true => Provenance::Unknown,
                false => Provenance::Modelled,
            },
            devices: known.len(),
            unknown: all().count() - known.len(),
        },
        accuracy: change(all(), |e| Some(accuracy(e))),
        latency_us: change(all(), |e| e.latency_us),
        energy_uj: change(all(), |e| e.energy_uj),
        obstacle,
    }
}

fn now_to(now: Millis, at: Millis) -> u64 {
    at.since(now).as_millis().div_ceil(1_000) as u64
}

fn change<'a>(
    devices: impl Iterator<Item = &'a PlannedDevice>,
    of: impl Fn(&Expected) -> Option<Prediction>,
) -> Option<Change> {
    let figures = devices.filter_map(|d| {
        let before = d.before.as_ref().and_then(&of);
        Some((before, of(&d.expected)?))
    });
    let (mut both, mut after) = (Sum::default(), Sum::default());
    let mut was = 0.0;
    for (before, is) in figures {
        after.add(is);
        if let Some(before) = before {
            was += before.value;
            both.add(is);
            both.provenance = both.provenance.max(before.provenance);
        }
    }
    let before = (both.count > 0).then(|| was / both.count as f64);
    let sum = if before.is_some() { both } else { after };
    (sum.count > 0).then(|| Change {
        before,
        after: sum.total / sum.count as f64,
        devices: sum.count,
        provenance: sum.provenance,
    })
}

#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    total: f64,
    count: usize,
    provenance: Provenance,
}

impl Sum {
    fn add(&mut self, figure: Prediction) {
        self.total += figure.value;
        self.provenance = match self.count {
            0 => figure.provenance,
            _ => self.provenance.max(figure.provenance),
        };
        self.count += 1;
    }
}

/// When each wave begins and ends, if every device takes as long as predicted, every gate passes
/// and every approval is given at once.
pub(super) type Times = BTreeMap<usize, (Option<Millis>, Option<Millis>)>;

fn times(
    plan: &RolloutPlan,
    deployment: &Deployment,
    now: Millis,
) -> Result<(Times, Option<String>), String> {
    let unknown = plan.waves.iter().flatten().filter(|d| d.takes.is_none());
    match unknown.count() {
        0 => {}
        n => {
            return Err(format!(
                "of {n} devices nobody knows how long they take to move"
            ));
        }
    }
    let per_hour = deployment.policy.inferences_per_hour;
    let prove_ms = match plan.spec.min_inferences {
        0 => 0,
        _ if per_hour <= 0.0 => {
            return Err("the deployment expects no inferences, so that no device succeeds".into());
        }
        least => (least as f64 / per_hour * 3.6e6).ceil() as u64,
    };
    let mut run = Rehearsal::new(plan, now, prove_ms);
    let end = run.through();
    Ok((run.times, end))
}
