//! How long planning takes: the fleet of the core with many devices and a version of many variants.

use crate::controller::EPOCH_MS;
use crate::device::Body;
use crate::dice::Dice;
use crate::sign::PUBLISHER;
use crate::truth::{self, model, name};
use sandpiper_core::assignment::Generation;
use sandpiper_core::fleet::{DeviceRecord, Fleet, Published, Refused};
use sandpiper_core::manifest::VersionManifest;
use sandpiper_core::names::{ActorName, DeviceName, VersionName};
use sandpiper_core::policy::{Deployment, Policy, Selector};
use sandpiper_core::profile::PowerState;
use sandpiper_core::rollout::{RolloutSpec, WaveSize};
use sandpiper_core::signed::Purpose;
use sandpiper_core::telemetry::{Hello, ModelPhase, ModelStatus, Observation, Serving};
use sandpiper_core::time::Millis;
use serde::Serialize;
use std::time::Instant;

/// Looks taken of what takes microseconds.
const LOOKS: usize = 200;

/// What was measured, on one core.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// Devices of the fleet.
    pub devices: usize,
    /// Variants of the version.
    pub variants: usize,
    /// Seconds to plan a rollout of all of them.
    pub plan_s: f64,
    /// Seconds to plan it and to foresee what the plan does.
    pub foresee_s: f64,
    /// Microseconds to select again for one device, median.
    pub select_us: f64,
    /// Microseconds to take the report of one device while a rollout of all is under way, median.
    pub report_us: f64,
    /// Devices that the plan moves, so that nobody measures an empty one.
    pub planned: usize,
    /// Most resident memory of this process so far, in bytes; 0 where the kernel does not tell.
    pub peak_bytes: u64,
}

fn manifest(version: &VersionName, variants: usize) -> VersionManifest {
    let each = (0..variants).map(|n| {
        let part = 1.0 - n as f64 / variants as f64;
        let (macs, bytes) = (40e6 * part, 6e6 * part);
        let accuracy = 0.80 + 0.15 * part;
        truth::variant(
            version,
            &(
                &format!("variant-{n:02}"),
                accuracy,
                macs as u64,
                bytes as u64,
                9_000.0 * part,
            ),
        )
    });
    VersionManifest {
        variants: each.collect(),
        ..truth::manifest(version, Millis(EPOCH_MS))
    }
}

pub(crate) fn spec(version: VersionName) -> RolloutSpec {
    RolloutSpec {
        waves: vec![WaveSize::Percent(20)],
        wave_deadline_s: 3_600,
        bake_s: 60,
        ..RolloutSpec::new(name("activity"), version)
    }
}

/// A fleet of devices of all boards that have said what they are.
pub(crate) fn fleet(
    devices: usize,
    version: &VersionName,
    variants: usize,
) -> Result<Fleet, Refused> {
    let mut fleet = Fleet::default();
    let now = Millis(EPOCH_MS);
    let deployment = Deployment {
        name: name("activity"),
        model: model(),
        selector: Selector::default(),
        policy: Policy {
            latency_slo_us: Some(60_000),
            ..Policy::default()
        },
    };
    fleet.apply_deployment(now, "anna", deployment)?;
    let manifest = manifest(version, variants);
    let payload = serde_json::to_vec(&manifest).unwrap_or_default();
    let signed = PUBLISHER.sign(Purpose::Version, payload);
    fleet.publish(now, "anna", Published { signed, manifest })?;
    for number in 0..devices {
        let body = Body::new(&mut Dice::new(1, "device", number as u64));
        let device: DeviceName = name(format!("pi-{number:07}"));
        fleet.enrol(now, &device, body.labels())?;
        let hello = Hello {
            boot_id: number as u64,
            profile: body.profile(),
            observation: observation(&body, 0),
        };
        fleet.attach(now, &device, hello, false)?;
        fleet.take_outbox();
    }
    Ok(fleet)
}

fn observation(body: &Body, generation: u64) -> Observation {
    Observation {
        generation: Generation(generation),
        conditions: body.conditions(),
        models: Vec::new(),
        refused: None,
        agent: None,
    }
}

/// That the device serves what it was assigned.
fn serving(record: &DeviceRecord, published: Option<&Published>) -> Option<ModelStatus> {
    let assigned = record.models.values().next()?;
    let profile = record.profile.as_ref()?;
    let variant = assigned.ladder.rung(PowerState::Mains)?;
    let manifest = published?.manifest.variant(variant)?;
    let target = manifest.best_target(&profile.targets, &profile.runtime_keys)?;
    Some(ModelStatus {
        deployment: assigned.deployment.clone(),
        model: assigned.model.clone(),
        wanted: assigned.version.clone(),
        phase: ModelPhase::Serving,
        serving: Some(Serving {
            version: assigned.version.clone(),
            variant: variant.clone(),
            code: manifest.native.get(&target)?.artefact.digest,
            power_state: PowerState::Mains,
        }),
        failure: None,
        fetched_bytes: 0,
        needed_bytes: 0,
    })
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}

fn microseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e6
}

/// Measures.
///
/// # Errors
/// [`Refused`] when the fleet does not do what it is asked.
pub fn measure(devices: usize, variants: usize) -> Result<Figures, Refused> {
    let version: VersionName = name("v1");
    let mut fleet = fleet(devices, &version, variants)?;
    let start = Instant::now();
    let plan = fleet.plan_rollout(spec(version.clone()))?;
    let plan_s = start.elapsed().as_secs_f64();
    let planned = plan.waves.iter().map(Vec::len).sum();
    drop(plan);
    let start = Instant::now();
    drop(
        fleet
            .draft_rollout(spec(version.clone()))?
            .foresee(Millis(EPOCH_MS)),
    );
    let foresee_s = start.elapsed().as_secs_f64();
    let names: Vec<DeviceName> = fleet.devices().keys().cloned().collect();
    let step = (names.len() / LOOKS).max(1);
    let policy = fleet.deployments().values().next();
    let policy = policy
        .map(|d| d.deployment.policy.clone())
        .unwrap_or_default();
    let published = fleet.versions().values().next().cloned();
    let mut select_us = Vec::new();
    for device in names.iter().step_by(step) {
        if let Some(published) = &published {
            let start = Instant::now();
            let selection = fleet.selection(device, published, &policy);
            select_us.push(microseconds(start));
            assert!(selection.is_some(), "every device has said what it is");
        }
    }
    fleet.start_rollout(Millis(EPOCH_MS), &name::<ActorName>("anna"), spec(version))?;
    fleet.take_outbox();
    let mut report_us = Vec::new();
    // Of the first wave, so that each report moves its device on.
    let moved = names.len() / 5;
    for (number, device) in names
        .iter()
        .enumerate()
        .take(moved)
        .step_by((step / 5).max(1))
    {
        let body = Body::new(&mut Dice::new(1, "device", number as u64));
        let Some(stream) = fleet.stream(device) else {
            continue;
        };
        let record = fleet.device(device)?;
        let mut seen = observation(&body, record.generation.0);
        seen.models.extend(serving(record, published.as_ref()));
        let start = Instant::now();
        fleet.report(Millis(EPOCH_MS + 1_000), device, stream, seen)?;
        report_us.push(microseconds(start));
        fleet.take_outbox();
    }
    Ok(Figures {
        devices,
        variants,
        plan_s,
        foresee_s,
        select_us: median(select_us),
        report_us: median(report_us),
        planned,
        peak_bytes: peak_bytes(),
    })
}

/// `VmHWM` of `/proc/self/status`.
fn peak_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_that_is_shown_holds_the_selection_of_each_device() -> Result<(), Refused> {
        let version: VersionName = name("v1");
        let fleet = fleet(5, &version, 3)?;
        let shown = fleet
            .draft_rollout(spec(version.clone()))?
            .foresee(Millis(EPOCH_MS));
        let document = serde_json::json!(shown);
        let candidates = document.pointer("/waves/0/0/selection/candidates");
        let count = candidates.and_then(|c| c.as_array()).map(Vec::len);
        assert_eq!(count, Some(3), "{document:#}");
        let lean = serde_json::json!(fleet.plan_rollout(spec(version))?);
        assert_eq!(lean.pointer("/waves/0/0/selection"), None);
        Ok(())
    }
}
