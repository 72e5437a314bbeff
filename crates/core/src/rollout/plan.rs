//! The plan: who moves in which wave to which ladder. Nothing moves by planning.

use super::gate::Gates;
use crate::assignment::Ladder;
use crate::ladder::ladder;
use crate::manifest::VersionManifest;
use crate::names::{DeploymentName, DeviceName, ModelName, RolloutName, VersionName};
use crate::policy::{Deployment, Labels};
use crate::selection::{DeviceView, Selection, select};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// How many of the fitting devices a wave brings the rollout to or takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WaveSize {
    /// After this wave so many percent of all devices have moved.
    Percent(u8),
    /// This wave takes so many devices.
    Count(u32),
}

/// What an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutSpec {
    /// The deployment to move.
    pub deployment: DeploymentName,
    /// The version to move to.
    pub version: VersionName,
    /// Waves in order. Devices that no wave takes form a last one. Empty: one wave.
    #[serde(default)]
    pub waves: Vec<WaveSize>,
    /// A wave that has not succeeded after this long has failed. In seconds.
    #[serde(default = "default_deadline_s")]
    pub wave_deadline_s: u64,
    /// A device must have served this long before it counts as a success. In seconds.
    #[serde(default)]
    pub bake_s: u64,
    /// Failures in a wave that are tolerated.
    #[serde(default)]
    pub max_failures: u32,
    /// Inferences that a device must have served under the new code to count as a success.
    #[serde(default = "default_inferences")]
    pub min_inferences: u64,
    /// Most devices that were assigned the version and have not been seen serving it. No bound
    /// but the wave when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u32>,
    /// The same within groups of devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disruption: Option<DisruptionBudget>,
    /// What must hold of measured figures before the next wave begins. Nothing is compared when
    /// the deployment had no version before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gates: Option<Gates>,
}

/// Most devices with the same value of a label that may be in flight at once. Devices without
/// the label form a group of their own. A rollback is not held back by it: what is known to be
/// bad goes at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DisruptionBudget {
    /// Key of the label.
    pub group_by: String,
    /// Most devices of one group in flight.
    pub max_unavailable: u32,
}

fn default_deadline_s() -> u64 {
    600
}

fn default_inferences() -> u64 {
    1
}

/// A device with its place in the fleet, for planning.
#[derive(Debug, Clone, Copy)]
pub struct FleetDevice<'a> {
    /// What a selection looks at.
    pub view: DeviceView<'a>,
    /// Labels.
    pub labels: &'a Labels,
}

/// A device that moves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedDevice {
    /// The device.
    pub device: DeviceName,
    /// What it will hold.
    pub ladder: Ladder,
    /// Bytes that it has to hold; parts it has already are not sent again.
    pub download_bytes: u64,
    /// The decision, with every candidate.
    pub selection: Selection,
    /// Value of the label that the disruption budget groups by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

/// A device that is selected by its labels but that nothing fits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unfit {
    /// The device.
    pub device: DeviceName,
    /// Every candidate with its misfits.
    pub selection: Selection,
}

/// An immutable plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutPlan {
    /// Name of the rollout.
    pub name: RolloutName,
    /// What was asked for.
    pub spec: RolloutSpec,
    /// The model of the deployment.
    pub model: ModelName,
    /// The version to go back to; `None` when the deployment never had one.
    pub previous: Option<VersionName>,
    /// Devices by wave.
    pub waves: Vec<Vec<PlannedDevice>>,
    /// Devices that stay as they are because nothing fits them.
    pub unfit: Vec<Unfit>,
}

/// Why no plan can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The version is of another model.
    #[error("version {version} belongs to model {found}, the deployment runs model {wanted}")]
    OtherModel {
        /// The version.
        version: VersionName,
        /// Its model.
        found: ModelName,
        /// The deployment's model.
        wanted: ModelName,
    },
    /// A wave takes nothing or percentages do not rise.
    #[error(
        "wave {0} takes no device: percentages are cumulative, must rise and end at 100 at most; counts must be positive"
    )]
    EmptyWave(usize),
    /// A bound that lets nothing move.
    #[error("{0} is 0, so that no device could ever move: leave it out or give at least 1")]
    NothingMoves(&'static str),
    /// No device has these labels.
    #[error("the selector `{0}` of the deployment matches no device")]
    NoDevice(String),
    /// Devices match, but none can run any variant.
    #[error("none of the {0} matching devices can run any variant; `explain` says why")]
    NoFit(usize),
}

/// Plans a rollout. Devices are taken in the order of their names.
///
/// # Errors
/// [`PlanError`] when the request cannot lead to a plan that moves a device.
pub fn plan(
    name: RolloutName,
    spec: RolloutSpec,
    deployment: &Deployment,
    manifest: &VersionManifest,
    previous: Option<VersionName>,
    fleet: &[FleetDevice<'_>],
) -> Result<RolloutPlan, PlanError> {
    if manifest.model != deployment.model {
        return Err(PlanError::OtherModel {
            version: manifest.version.clone(),
            found: manifest.model.clone(),
            wanted: deployment.model.clone(),
        });
    }
    check_waves(&spec.waves)?;
    check_bounds(&spec)?;
    let mut matching: Vec<_> = fleet
        .iter()
        .filter(|d| deployment.selector.matches(d.labels))
        .collect();
    matching.sort_by_key(|d| d.view.name);
    if matching.is_empty() {
        return Err(PlanError::NoDevice(deployment.selector.to_string()));
    }
    let (mut fit, mut unfit) = (Vec::new(), Vec::new());
    for device in &matching {
        let selection = select(&device.view, manifest, &deployment.policy);
        let budget = spec.disruption.as_ref();
        let group = budget.and_then(|b| device.labels.get(&b.group_by).cloned());
        let device = device.view.name.clone();
        match ladder(&selection, &deployment.policy) {
            Some(ladder) => fit.push(planned(device, ladder, selection, group)),
            None => unfit.push(Unfit { device, selection }),
        }
    }
    if fit.is_empty() {
        return Err(PlanError::NoFit(matching.len()));
    }
    let waves = into_waves(fit, &spec.waves);
    Ok(RolloutPlan {
        name,
        spec,
        model: manifest.model.clone(),
        previous,
        waves,
        unfit,
    })
}

fn planned(
    device: DeviceName,
    ladder: Ladder,
    selection: Selection,
    group: Option<String>,
) -> PlannedDevice {
    let held: BTreeSet<_> = ladder.rungs.values().collect();
    let download_bytes = selection
        .candidates
        .iter()
        .filter(|c| held.contains(&c.variant))
        .map(|c| c.download_bytes)
        .sum();
    PlannedDevice {
        device,
        ladder,
        download_bytes,
        selection,
        group,
    }
}

fn check_bounds(spec: &RolloutSpec) -> Result<(), PlanError> {
    let budget = spec.disruption.as_ref().map(|b| b.max_unavailable);
    match (spec.max_in_flight, budget) {
        (Some(0), _) => Err(PlanError::NothingMoves("max_in_flight")),
        (_, Some(0)) => Err(PlanError::NothingMoves("max_unavailable")),
        _ => Ok(()),
    }
}

fn check_waves(waves: &[WaveSize]) -> Result<(), PlanError> {
    let mut reached = 0;
    for (index, wave) in waves.iter().enumerate() {
        match *wave {
            WaveSize::Percent(p) if p > reached && p <= 100 => reached = p,
            WaveSize::Count(n) if n > 0 => {}
            WaveSize::Percent(_) | WaveSize::Count(_) => {
                return Err(PlanError::EmptyWave(index + 1));
            }
        }
    }
    Ok(())
}

/// Percentages round up, so that the first wave of a small fleet is never empty.
fn into_waves(devices: Vec<PlannedDevice>, sizes: &[WaveSize]) -> Vec<Vec<PlannedDevice>> {
    let total = devices.len();
    let mut rest = devices.into_iter();
    let mut waves = Vec::new();
    let mut moved = 0;
    for size in sizes {
        let upto = match *size {
            WaveSize::Percent(p) => (total * usize::from(p)).div_ceil(100),
            WaveSize::Count(n) => moved + n as usize,
        };
        let wave: Vec<_> = rest.by_ref().take(upto.saturating_sub(moved)).collect();
        moved += wave.len();
        waves.push(wave);
    }
    waves.push(rest.collect());
    waves.retain(|w| !w.is_empty());
    waves
}
