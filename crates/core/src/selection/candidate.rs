//! One variant on one device: the filters, and the predictions they need.

use super::{
    Candidate, DeviceView, Expected, Misfit, Prediction, RAM_SHARE, RUNNER_BASE_BYTES,
    SLO_PROBABILITY,
};
use crate::energy::Provenance;
use crate::learning::{Learned, LearnedKey, prior_energy_uj, prior_latency_us};
use crate::manifest::{AccuracySource, VariantManifest, VersionManifest};
use crate::policy::Policy;
use crate::profile::Power;

/// Spread of a prediction that rests on the roofline alone: a factor of about 1.6 either way.
const PRIOR_LOG_SIGMA: f64 = 0.5;

pub(super) fn expect(
    device: &DeviceView<'_>,
    manifest: &VersionManifest,
    variant: &VariantManifest,
) -> Expected {
    let learned = learned(device, manifest, variant);
    predict(device, variant, learned)
}

fn key(manifest: &VersionManifest, variant: &VariantManifest) -> LearnedKey {
    let (model, version) = (manifest.model.clone(), manifest.version.clone());
    (model, version, variant.name.clone())
}

fn learned<'a>(
    device: &DeviceView<'a>,
    manifest: &VersionManifest,
    variant: &VariantManifest,
) -> Option<&'a Learned> {
    // Most devices of a large fleet have learned nothing yet: no key is made for them.
    let any = !device.learned.is_empty();
    any.then(|| device.learned.get(&key(manifest, variant)))?
}

fn predict(
    device: &DeviceView<'_>,
    variant: &VariantManifest,
    learned: Option<&Learned>,
) -> Expected {
    let latency_us = learned
        .and_then(Learned::latency)
        .or_else(|| prior_latency_us(device.profile, variant).map(prior));
    let energy_uj = learned.and_then(Learned::energy).or_else(|| {
        let energy = prior_energy_uj(device.profile, latency_us?.value)?;
        Some(prior(energy))
    });
    Expected {
        variant: variant.name.clone(),
        accuracy: variant.accuracy.value,
        claimed: variant.accuracy.source == AccuracySource::Claimed,
        latency_us,
        energy_uj,
    }
}

pub(super) fn examine(
    device: &DeviceView<'_>,
    manifest: &VersionManifest,
    variant: &VariantManifest,
    policy: &Policy,
) -> Candidate {
    let target = variant.best_target(&device.profile.targets, &device.profile.runtime_keys);
    let learned = learned(device, manifest, variant);
    let Expected {
        variant: name,
        accuracy,
        claimed,
        latency_us,
        energy_uj,
    } = predict(device, variant, learned);
    let native = target.and_then(|t| variant.native.get(&t));
    let need_bytes =
        variant.memory_bytes() + native.map_or(0, |n| n.artefact.size_bytes) + RUNNER_BASE_BYTES;
    let mut candidate = Candidate {
        variant: name,
        accuracy,
        claimed,
        target,
        need_bytes,
        download_bytes: target.and_then(|t| variant.download_bytes(t)).unwrap_or(0),
        latency_us,
        energy_uj,
        measured_latency_us: learned.and_then(Learned::measured_latency_us),
        measured_energy_uj: learned.and_then(Learned::measured_energy_uj),
        misfits: Vec::new(),
    };
    if !device.failed.is_empty()
        && let Some(message) = device.failed.get(&key(manifest, variant))
    {
        let message = message.clone();
        candidate.misfits.push(Misfit::FailedBefore { message });
    }
    candidate
        .misfits
        .extend(hard_limits(device, variant, &candidate));
    candidate
        .misfits
        .extend(policy_limits(device, &candidate, policy));
    candidate
}

fn prior(value: f64) -> Prediction {
    Prediction {
        value,
        log_sigma: PRIOR_LOG_SIGMA,
        provenance: Provenance::Modelled,
        samples: 0,
    }
}

fn hard_limits(device: &DeviceView<'_>, variant: &VariantManifest, c: &Candidate) -> Vec<Misfit> {
    let mut misfits = Vec::new();
    if c.target.is_none() {
        let code = device
            .profile
            .targets
            .iter()
            .find_map(|t| variant.native.get(t));
        misfits.push(match code {
            Some(code) => Misfit::RuntimeMismatch {
                code: code.runtime_key.clone(),
            },
            None => Misfit::NoTarget {
                device: device.profile.targets.clone(),
            },
        });
    }
    let allowed = &device.profile.dtypes;
    if !allowed.is_empty()
        && let Some(dtype) = variant.macs.keys().find(|d| !allowed.contains(d))
    {
        misfits.push(Misfit::DTypeNotAllowed { dtype: *dtype });
    }
    // What serves already has its RAM and its disk.
    if device
        .current
        .is_some_and(|l| l.rungs.values().any(|v| *v == variant.name))
    {
        return misfits;
    }
    let limit_bytes = (device.conditions.ram_available_bytes as f64 * RAM_SHARE) as u64;
    if c.need_bytes > limit_bytes {
        misfits.push(Misfit::Memory {
            need_bytes: c.need_bytes,
            limit_bytes,
        });
    }
    let free_bytes = device.conditions.disk_free_bytes;
    if c.download_bytes > free_bytes {
        misfits.push(Misfit::Disk {
            need_bytes: c.download_bytes,
            free_bytes,
        });
    }
    misfits
}

fn policy_limits(device: &DeviceView<'_>, c: &Candidate, policy: &Policy) -> Vec<Misfit> {
    let mut misfits = Vec::new();
    if let Some(floor) = policy.accuracy_floor
        && c.accuracy < floor
    {
        misfits.push(Misfit::AccuracyFloor {
            accuracy: c.accuracy,
            floor,
        });
    }
    if let (Some(slo_us), Some(latency)) = (policy.latency_slo_us, c.latency_us) {
        let probability = probability_below(latency, f64::from(slo_us));
        if probability < SLO_PROBABILITY {
            let predicted_us = latency.value.round() as u32;
            misfits.push(Misfit::LatencySlo {
                predicted_us,
                slo_us,
                probability,
            });
        }
    }
    let Some(energy) = c.energy_uj else {
        return misfits;
    };
    if let Some(budget_uj) = policy.energy_budget_uj
        && energy.value > budget_uj as f64
    {
        misfits.push(Misfit::EnergyBudget {
            predicted_uj: energy.value.round() as u64,
            budget_uj,
        });
    }
    if let (
        Some(wanted_hours),
        Power::Battery {
            charging: false,
            remaining_uj: Some(left),
            ..
        },
    ) = (policy.battery_life_hours, device.conditions.power)
    {
        let per_hour = energy.value * policy.inferences_per_hour;
        let predicted_hours = if per_hour > 0.0 {
            left as f64 / per_hour
        } else {
            f64::INFINITY
        };
        if predicted_hours < wanted_hours {
            misfits.push(Misfit::BatteryLife {
                predicted_hours,
                wanted_hours,
            });
        }
    }
    misfits
}

/// P(X <= limit) of a log-normal X.
fn probability_below(prediction: Prediction, limit: f64) -> f64 {
    if limit <= 0.0 || prediction.value <= 0.0 {
        return 0.0;
    }
    let z = (limit / prediction.value).ln() / prediction.log_sigma.max(1e-6);
    normal_cdf(z)
}

/// Standard normal distribution by the approximation 26.2.17 of Abramowitz and Stegun,
/// |error| < 7.5e-8.
fn normal_cdf(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let density = (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let poly = t
        * (0.319_381_530
            + t * (-0.356_563_782
                + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    let upper = density * poly;
    if z >= 0.0 { 1.0 - upper } else { upper }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_normal_distribution_is_right_at_known_points() {
        for (z, p) in [
            (0.0, 0.5),
            (1.0, 0.841_344_75),
            (-1.644_853_6, 0.05),
            (3.0, 0.998_650_1),
        ] {
            assert!((normal_cdf(z) - p).abs() < 1e-6, "{z}");
        }
    }
}
