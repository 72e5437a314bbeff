//! Compares the candidates that fit, for one power state.

use super::{Candidate, Choice, ChoiceReason, UPGRADE_POINTS, UPGRADE_SAVING};
use crate::assignment::Ladder;
use crate::policy::{Objective, Policy};
use crate::profile::PowerState;
use std::cmp::Ordering;

/// The choice for a power state; `None` when every candidate breaks a hard limit.
pub(super) fn choose(
    state: PowerState,
    candidates: &[Candidate],
    policy: &Policy,
    current: Option<&Ladder>,
) -> Option<Choice> {
    let fits: Vec<&Candidate> = candidates.iter().filter(|c| c.misfits.is_empty()).collect();
    let objective = match state {
        PowerState::Mains | PowerState::High => policy.objective,
        PowerState::Low | PowerState::Critical => Objective::Energy,
    };
    let (best, reason) = match fits.as_slice() {
        [] => (least_violation(candidates)?, ChoiceReason::LeastViolation),
        [only] => (*only, ChoiceReason::OnlyFit),
        _ => best_of(&fits, objective, policy),
    };
    let serving = current
        .and_then(|ladder| ladder.rungs.get(&state))
        .and_then(|name| fits.iter().find(|c| c.variant == *name));
    let (chosen, reason) = match serving {
        Some(old) if old.variant != best.variant && !worth_it(old, best, objective) => {
            (*old, ChoiceReason::KeptByHysteresis)
        }
        _ => (best, reason),
    };
    Some(Choice {
        power_state: state,
        variant: chosen.variant.clone(),
        reason,
    })
}

fn best_of<'a>(
    fits: &[&'a Candidate],
    objective: Objective,
    policy: &Policy,
) -> (&'a Candidate, ChoiceReason) {
    let least = |order: fn(&Candidate, &Candidate) -> Ordering| {
        fits.iter()
            .copied()
            .min_by(|a, b| order(a, b))
            .unwrap_or(fits[0])
    };
    match objective {
        Objective::Energy => (least(by_energy), ChoiceReason::LeastEnergy),
        Objective::Latency => (least(by_latency), ChoiceReason::LeastLatency),
        Objective::Accuracy => {
            let top = least(|a, b| {
                b.accuracy
                    .total_cmp(&a.accuracy)
                    .then_with(|| by_energy(a, b))
            });
            let close = |c: &&&Candidate| (top.accuracy - c.accuracy) * 100.0 < policy.tie_points;
            let cheapest = fits.iter().filter(close).min_by(|a, b| by_energy(a, b));
            match cheapest {
                Some(c) if c.variant != top.variant => (c, ChoiceReason::LeastEnergyAmongTies),
                _ => (top, ChoiceReason::MostAccurate),
            }
        }
    }
}

fn by_energy(a: &Candidate, b: &Candidate) -> Ordering {
    let key = |c: &Candidate| c.energy_uj.map_or(f64::INFINITY, |e| e.value);
    key(a).total_cmp(&key(b)).then_with(|| by_latency(a, b))
}

fn by_latency(a: &Candidate, b: &Candidate) -> Ordering {
    let key = |c: &Candidate| c.latency_us.map_or(f64::INFINITY, |l| l.value);
    key(a)
        .total_cmp(&key(b))
        .then_with(|| a.download_bytes.cmp(&b.download_bytes))
        .then_with(|| a.variant.cmp(&b.variant))
}

/// Among those that break no hard limit, the one whose worst excess is least.
fn least_violation(candidates: &[Candidate]) -> Option<&Candidate> {
    let excess = |c: &Candidate| {
        c.misfits
            .iter()
            .map(super::Misfit::excess)
            .fold(0.0, f64::max)
    };
    candidates
        .iter()
        .filter(|c| !c.misfits.iter().any(super::Misfit::is_hard))
        .min_by(|a, b| {
            excess(a)
                .total_cmp(&excess(b))
                .then_with(|| by_energy(a, b))
        })
}

/// Whether the step from `old` to `new` gains enough to move a device.
fn worth_it(old: &Candidate, new: &Candidate, objective: Objective) -> bool {
    let saves = |old: Option<f64>, new: Option<f64>| match (old, new) {
        (Some(old), Some(new)) => new < old * (1.0 - UPGRADE_SAVING),
        _ => false,
    };
    match objective {
        Objective::Accuracy => (new.accuracy - old.accuracy) * 100.0 >= UPGRADE_POINTS,
        Objective::Energy => saves(
            old.energy_uj.map(|e| e.value),
            new.energy_uj.map(|e| e.value),
        ),
        Objective::Latency => saves(
            old.latency_us.map(|l| l.value),
            new.latency_us.map(|l| l.value),
        ),
    }
}
