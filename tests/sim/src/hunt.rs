//! Every deliberate mistake of the core in turn: which invariant catches it, and with which seed.

use crate::batch::Batch;
use crate::scenario::Scenario;
use crate::world::run;
use sandpiper_core::mutants::{Mutant, activate};
use serde::Serialize;
use std::fmt::Write as _;
use std::time::Instant;

/// What came of one mistake.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Its name.
    pub mutant: &'static str,
    /// What goes wrong.
    pub what: &'static str,
    /// The invariant that was broken; nothing when no seed broke any.
    pub caught_by: Option<&'static str>,
    /// The seed that broke it.
    pub seed: Option<u64>,
    /// Seeds that were run.
    pub seeds: u64,
    /// Seconds it took.
    pub seconds: f64,
}

/// Hunts those whose name contains `only`, each with the seeds of the batch until it is caught.
pub fn hunt(batch: &Batch, only: &str) -> Vec<Row> {
    let chosen = Mutant::ALL.iter().filter(|m| m.name().contains(only));
    let rows = chosen.map(|mutant| {
        activate(Some(*mutant));
        let row = one(*mutant, batch);
        activate(None);
        row
    });
    rows.collect()
}

fn one(mutant: Mutant, batch: &Batch) -> Row {
    let start = Instant::now();
    let mut row = Row {
        mutant: mutant.name(),
        what: mutant.what(),
        caught_by: None,
        seed: None,
        seeds: 0,
        seconds: 0.0,
    };
    for seed in batch.first..batch.first.saturating_add(batch.count) {
        row.seeds += 1;
        if let Some(found) = run(&Scenario::of(seed, batch.devices)).found {
            row.caught_by = Some(found.violation.name);
            row.seed = Some(seed);
            break;
        }
    }
    row.seconds = start.elapsed().as_secs_f64();
    row
}

/// For people.
pub fn text(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<20} {:<42} {:>5} {:>7}  {}\n",
        "mistake", "caught by", "seed", "s", "what goes wrong"
    );
    for row in rows {
        let seed = row.seed.map_or_else(|| "-".to_owned(), |s| s.to_string());
        // Writing to a text cannot fail.
        let _ = writeln!(
            text,
            "{:<20} {:<42} {seed:>5} {:>7.2}  {}",
            row.mutant,
            row.caught_by.unwrap_or("NOT CAUGHT"),
            row.seconds,
            row.what,
        );
    }
    let caught = rows.iter().filter(|r| r.caught_by.is_some()).count();
    let _ = write!(text, "{caught} of {} caught", rows.len());
    text
}
