//! The plan: who moves in which wave to which ladder. Nothing moves by planning.

use super::approval::Approval;
use super::order::{Chosen, into_waves, selected_by};
use super::pace::{self, Duration, Move, Pace};
use super::spec::{RolloutSpec, SpecError};
use crate::assignment::Ladder;
use crate::digest::{ArtefactRef, Digest};
use crate::ladder::ladder;
use crate::learning::LearnedMap;
use crate::manifest::{VariantManifest, VersionManifest};
use crate::names::{DeviceName, ModelName, RolloutName, VariantName, VersionName};
use crate::policy::{Deployment, Labels};
use crate::pool::Pool;
use crate::profile::{Conditions, DeviceProfile, PowerState};
use crate::selection::{
    ChoiceReason, DeviceView, Expected, FailedVariants, Misfit, Selection, expect, select,
};
use crate::window::Zone;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A device with its place in the fleet, for planning.
#[derive(Debug, Clone)]
pub struct FleetDevice<'a> {
    /// Name.
    pub name: &'a DeviceName,
    /// What it is.
    pub profile: &'a DeviceProfile,
    /// How it is.
    pub conditions: &'a Conditions,
    /// What was learned from its own reports.
    pub learned: &'a LearnedMap,
    /// What failed on it.
    pub failed: FailedVariants,
    /// What serves now, when it is of the version that is planned.
    pub current: Option<&'a Ladder>,
    /// What it was assigned before, whatever the version, on the mains.
    pub before: Option<(&'a VersionManifest, &'a VariantManifest)>,
    /// Artefacts that it holds already.
    pub held: BTreeSet<Digest>,
    /// How it moved last.
    pub moved: Option<&'a Move>,
    /// Labels.
    pub labels: &'a Labels,
}

impl FleetDevice<'_> {
    /// What a selection looks at.
    pub fn view(&self) -> DeviceView<'_> {
        DeviceView {
            name: self.name,
            profile: self.profile,
            conditions: self.conditions,
            learned: self.learned,
            failed: &self.failed,
            current: self.current,
        }
    }
}

/// A device that moves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedDevice {
    /// The device.
    pub device: DeviceName,
    /// What it will hold.
    pub ladder: Arc<Ladder>,
    /// Why its variant on the mains was chosen.
    pub reason: ChoiceReason,
    /// Bytes that it has to fetch; artefacts that it holds already are not sent again.
    pub download_bytes: u64,
    /// What its variant on the mains is expected to do there.
    pub expected: Expected,
    /// The same of what it was assigned before; nothing when it ran no version of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Expected>,
    /// How long it takes until the device serves, as far as anything is known of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takes: Option<Duration>,
    /// Energy of that in microjoules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub move_uj: Option<f64>,
    /// Value of the label that the disruption budget groups by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Arc<str>>,
    /// Value of the label that the bandwidth is shared by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Arc<str>>,
    /// Its time zone, where there are windows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Arc<str>>,
    /// Its class of hardware: the board, and the target that its variant on the mains runs on.
    #[serde(default)]
    pub hardware: Arc<str>,
}

/// A device that is selected by its labels but that nothing fits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Unfit {
    /// The device.
    pub device: DeviceName,
    /// Why not, by variant.
    pub misfits: BTreeMap<VariantName, Vec<Misfit>>,
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
    /// The request has mistakes: all of them.
    #[error("{}", lines(.0))]
    Spec(Vec<SpecError>),
    /// No device has these labels.
    #[error("the selector `{0}` of the deployment matches no device")]
    NoDevice(String),
    /// A wave by labels without a device.
    #[error("no device that is left for the wave `{0}` has these labels")]
    EmptyWave(String),
    /// Approval is asked for a wave that there is not.
    #[error(
        "wave {named} asks for approval, and the plan has {waves}: `rollout plan` shows their numbers"
    )]
    NoSuchWave {
        /// The wave that is named.
        named: usize,
        /// Waves that there are.
        waves: usize,
    },
    /// Devices match, but none can run any variant.
    #[error("none of the {0} matching devices can run any variant; `explain` says why")]
    NoFit(usize),
}

fn lines(mistakes: &[SpecError]) -> String {
    let all: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    all.join("\n")
}

/// Plans a rollout of devices that come in the order of their names.
///
/// # Errors
/// [`PlanError`] when the request cannot lead to a plan that moves a device.
pub fn plan<'a>(
    name: RolloutName,
    spec: RolloutSpec,
    deployment: &Deployment,
    manifest: &VersionManifest,
    previous: Option<VersionName>,
    pace: &Pace,
    fleet: impl IntoIterator<Item = FleetDevice<'a>>,
) -> Result<RolloutPlan, PlanError> {
    if manifest.model != deployment.model {
        return Err(PlanError::OtherModel {
            version: manifest.version.clone(),
            found: manifest.model.clone(),
            wanted: deployment.model.clone(),
        });
    }
    let mistakes = spec.mistakes();
    if !mistakes.is_empty() {
        return Err(PlanError::Spec(mistakes));
    }
    let mut planner = Planner {
        group_by: spec.disruption.as_ref().map(|b| b.group_by.as_str()),
        link_by: (spec.bandwidth.as_ref())
            .and_then(|b| Some(b.per_group.as_ref()?.group_by.as_str())),
        zoned: spec.windows.is_some(),
        zones: Pool::default(),
        deployment,
        manifest,
        pace,
        ladders: Pool::default(),
        groups: Pool::default(),
        hardware: Pool::default(),
    };
    let (mut fit, mut unfit) = (Vec::new(), Vec::new());
    let matching = fleet.into_iter();
    for device in matching.filter(|d| deployment.selector.matches(d.labels)) {
        match planner.planned(&device) {
            Ok(planned) => fit.push(Chosen {
                planned,
                waves: selected_by(&spec.waves, device.labels),
            }),
            Err(why) => unfit.push(why),
        }
    }
    match (fit.len(), unfit.len()) {
        (0, 0) => return Err(PlanError::NoDevice(deployment.selector.to_string())),
        (0, all) => return Err(PlanError::NoFit(all)),
        _ => {}
    }
    let waves = into_waves(fit, &spec.waves);
    let waves = waves.map_err(|selector| PlanError::EmptyWave(selector.to_string()))?;
    let named = spec.approval.as_ref().map_or(0, Approval::last_named);
    if named > waves.len() {
        let waves = waves.len();
        return Err(PlanError::NoSuchWave { named, waves });
    }
    Ok(RolloutPlan {
        name,
        spec,
        model: manifest.model.clone(),
        previous,
        waves,
        unfit,
    })
}

/// Plans of a large fleet hold the same few ladders and groups, which they share.
struct Planner<'a> {
    group_by: Option<&'a str>,
    link_by: Option<&'a str>,
    /// Whether time zones matter.
    zoned: bool,
    zones: Pool<str>,
    deployment: &'a Deployment,
    manifest: &'a VersionManifest,
    pace: &'a Pace,
    ladders: Pool<Ladder>,
    groups: Pool<str>,
    hardware: Pool<str>,
}

impl Planner<'_> {
    fn planned(&mut self, device: &FleetDevice<'_>) -> Result<PlannedDevice, Unfit> {
        let view = device.view();
        let policy = &self.deployment.policy;
        let selection = select(&view, self.manifest, policy);
        let chosen = selection.choices.iter();
        let mut chosen = chosen.filter(|choice| choice.power_state == PowerState::Mains);
        let chosen = chosen.next().and_then(|choice| {
            let mut all = selection.candidates.iter();
            let candidate = all.find(|c| c.variant == choice.variant)?;
            Some((choice.reason, candidate, ladder(&selection, policy)?))
        });
        let Some((reason, candidate, ladder)) = chosen else {
            return Err(unfit(selection));
        };
        let before = device.before;
        let group = self.group_by.and_then(|key| device.labels.get(key));
        let download_bytes = self.missing_bytes(device, &ladder);
        let hardware = self.hardware_of(device, &candidate.variant);
        let takes = self.pace.predict(device.moved, download_bytes);
        Ok(PlannedDevice {
            device: device.name.clone(),
            download_bytes,
            takes,
            move_uj: takes.and_then(|takes| pace::move_uj(device.profile, takes)),
            ladder: self.ladders.share(ladder),
            reason,
            expected: Expected::from(candidate),
            before: before.map(|(manifest, variant)| expect(&view, manifest, variant)),
            group: group.map(|value| self.groups.share(value.as_str())),
            link: (self.link_by.and_then(|key| device.labels.get(key)))
                .map(|value| self.groups.share(value.as_str())),
            zone: self.zoned.then(|| {
                let (_, name) = Zone::of(device.labels, device.profile.zone.as_deref());
                self.zones.share(name)
            }),
            hardware: self.hardware.share(hardware),
        })
    }

    fn hardware_of(&self, device: &FleetDevice<'_>, variant: &VariantName) -> String {
        let profile = device.profile;
        let variant = self.manifest.variant(variant);
        let target = variant.and_then(|v| v.best_target(&profile.targets, &profile.runtime_keys));
        match target {
            Some(target) => format!("{}, {target}", profile.board),
            None => profile.board.clone(),
        }
    }

    /// What of a ladder the device does not hold, each artefact once.
    fn missing_bytes(&self, device: &FleetDevice<'_>, ladder: &Ladder) -> u64 {
        let (targets, runtimes) = (&device.profile.targets, &device.profile.runtime_keys);
        let mut wanted: Vec<ArtefactRef> = Vec::new();
        for variant in ladder.variants() {
            if let Some(variant) = self.manifest.variant(variant)
                && let Some(target) = variant.best_target(targets, runtimes)
            {
                wanted.extend(variant.artefacts_for(target).unwrap_or_default());
            }
        }
        wanted.sort_by_key(|artefact| artefact.digest);
        wanted.dedup_by_key(|artefact| artefact.digest);
        let missing = wanted.iter().filter(|a| !device.held.contains(&a.digest));
        missing.map(|artefact| artefact.size_bytes).sum()
    }
}

fn unfit(selection: Selection) -> Unfit {
    let misfits = selection.candidates.into_iter();
    Unfit {
        device: selection.device,
        misfits: misfits.map(|c| (c.variant, c.misfits)).collect(),
    }
}
