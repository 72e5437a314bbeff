//! Many seeds, and what came of them.

use crate::scenario::Scenario;
use crate::shrink::shrink;
use crate::world::{Outcome, run};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Seeds to run.
#[derive(Debug, Clone, Copy)]
pub struct Batch {
    /// The first seed.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// Devices of each.
    pub devices: usize,
    /// Threads.
    pub jobs: usize,
}

/// A seed that failed.
#[derive(Debug, Clone, Serialize)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The invariant.
    pub invariant: String,
    /// What was found.
    pub detail: String,
    /// When, in seconds of the world.
    pub at_s: f64,
    /// The shortest list of faults that still fails, as JSON.
    pub faults: Vec<String>,
    /// What operators did in it.
    pub steps: Vec<String>,
    /// Faults before it was shortened.
    pub of_faults: usize,
}

/// What came of a batch.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Summary {
    /// Seeds that were run.
    pub seeds: u64,
    /// The first one.
    pub first_seed: u64,
    /// Devices of each.
    pub devices: usize,
    /// Events of all.
    pub events: u64,
    /// Checks of all.
    pub checks: u64,
    /// Faults that began.
    pub faults: u64,
    /// Fewest faults of a seed.
    pub least_faults: u64,
    /// Hours that devices lived through.
    pub device_hours: f64,
    /// Seconds it took.
    pub seconds: f64,
    /// How rollouts ended.
    pub rollouts: BTreeMap<String, u64>,
    /// Seeds that broke an invariant.
    pub violations: u64,
    /// Seeds by the invariant that they broke.
    pub broken: BTreeMap<String, Vec<u64>>,
    /// The first of them, shortened.
    pub failures: Vec<Failure>,
}

/// Failures that are shortened: each takes up to hundreds of runs.
const SHORTENED: usize = 3;

/// Runs all seeds of a batch.
pub fn run_all(batch: &Batch) -> Summary {
    let start = Instant::now();
    let next = AtomicU64::new(0);
    let results: Mutex<Vec<(u64, Outcome)>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..batch.jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= batch.count {
                        return;
                    }
                    let seed = batch.first.wrapping_add(index);
                    let outcome = run(&Scenario::of(seed, batch.devices));
                    let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                    results.push((seed, outcome));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(seed, _)| *seed);
    let mut summary = Summary {
        seeds: batch.count,
        first_seed: batch.first,
        devices: batch.devices,
        seconds: start.elapsed().as_secs_f64(),
        least_faults: results.iter().map(|(_, o)| o.faults).min().unwrap_or(0),
        ..Summary::default()
    };
    for (seed, outcome) in &results {
        summary.events += outcome.events;
        summary.checks += outcome.checks;
        summary.faults += outcome.faults;
        summary.device_hours += outcome.device_hours;
        for (end, count) in &outcome.ends {
            *summary.rollouts.entry((*end).to_owned()).or_default() += count;
        }
        if let Some(found) = &outcome.found {
            summary.violations += 1;
            let name = found.violation.name.to_owned();
            let seeds = summary.broken.entry(name).or_default();
            seeds.push(*seed);
            // One of a kind tells more than many of the same.
            if seeds.len() == 1 && summary.failures.len() < SHORTENED {
                let failure = shortened(*seed, batch.devices, found.violation.name);
                summary.failures.push(failure);
            }
        }
    }
    summary
}

/// The failure of a seed with the shortest list of faults that still breaks the invariant.
pub fn shortened(seed: u64, devices: usize, invariant: &str) -> Failure {
    let whole = Scenario::of(seed, devices);
    let short = shrink(&whole, invariant);
    let found = run(&short).found;
    let (at, detail) = found.map_or((0, String::new()), |f| (f.at, f.violation.detail));
    let json = |value: serde_json::Result<String>| value.unwrap_or_default();
    Failure {
        seed,
        invariant: invariant.to_owned(),
        detail,
        at_s: at as f64 / 1000.0,
        faults: short
            .faults
            .iter()
            .map(|fault| json(serde_json::to_string(fault)))
            .collect(),
        steps: short
            .steps
            .iter()
            .map(|step| json(serde_json::to_string(step)))
            .collect(),
        of_faults: whole.faults.len(),
    }
}

impl Summary {
    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let rate = |n: f64| {
            if self.seconds > 0.0 {
                n / self.seconds
            } else {
                0.0
            }
        };
        // Writing to a text cannot fail.
        let _ = writeln!(
            text,
            "{} seeds from {}, {} devices each, at least {} faults each: {} faults, {} events, {} checks",
            self.seeds,
            self.first_seed,
            self.devices,
            self.least_faults,
            self.faults,
            self.events,
            self.checks,
        );
        let ends: Vec<_> = self
            .rollouts
            .iter()
            .map(|(end, count)| format!("{count} {end}"))
            .collect();
        let _ = writeln!(text, "rollouts: {}", ends.join(", "));
        let _ = writeln!(
            text,
            "{:.1} s, {:.2} seeds/s, {:.0} device-hours, {:.0} device-hours/s",
            self.seconds,
            rate(self.seeds as f64),
            self.device_hours,
            rate(self.device_hours),
        );
        for failure in &self.failures {
            let _ = writeln!(text, "\n{}", failure.text(self.devices));
        }
        for (invariant, seeds) in &self.broken {
            let _ = writeln!(text, "`{invariant}` is broken by {seeds:?}");
        }
        let _ = write!(text, "{} violations", self.violations);
        text
    }
}

impl Failure {
    /// For people.
    pub fn text(&self, devices: usize) -> String {
        let mut text = format!(
            "seed {}: `{}` is broken after {:.0} s: {}\n{} of {} faults are needed:\n",
            self.seed,
            self.invariant,
            self.at_s,
            self.detail,
            self.faults.len(),
            self.of_faults,
        );
        for fault in &self.faults {
            let _ = writeln!(text, "  {fault}");
        }
        for step in &self.steps {
            let _ = writeln!(text, "  operator: {step}");
        }
        let _ = write!(
            text,
            "again: cargo xtask sim --seeds 1 --seed {} --devices {devices}",
            self.seed
        );
        text
    }
}
