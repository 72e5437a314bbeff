//! What inferences cost, with its provenance: a meter when the device has one, a published
//! model of the board otherwise, else unknown. The sums and their standard error are the
//! core's [`Ledger`].

mod battery;
mod hwmon;
mod jetson;
mod rapl;
mod source;

use crate::config::Roots;
use sandpiper_core::energy::board::BoardModel;
use sandpiper_core::energy::ledger::Ledger;
use sandpiper_core::energy::{Energy, EnergyScope};
use sandpiper_core::profile::EnergySourceInfo;
use source::{Reading, Source};
use std::time::Instant;

/// What the device did between two readings, as far as the agent knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Nothing: the power is that of rest.
    Quiet,
    /// Something was inferred.
    Inferring,
    /// A runner was loading or under test: neither rest nor served inferences.
    Loading,
}

/// Follows the preferred energy source of the device.
#[derive(Debug)]
pub struct Accountant {
    source: Option<Box<dyn Source>>,
    board: Option<BoardModel>,
    ledger: Ledger,
    begin: Instant,
    /// What the device did in the time that a counter has not told of yet.
    open: Activity,
}

impl Accountant {
    /// Looks for sources under these roots; `board` names the board for the model.
    pub fn new(roots: &Roots, board: &str, cores: u16) -> Self {
        let source = find(roots);
        let board = BoardModel::of(board);
        Self {
            ledger: Ledger::new(source.as_ref().map(|s| s.meter()), board, cores),
            source,
            board,
            begin: Instant::now(),
            open: Activity::Quiet,
        }
    }

    /// Whether there is a meter to be read.
    pub fn is_metered(&self) -> bool {
        self.source.is_some()
    }

    /// The sources found, the preferred one first.
    pub fn sources(&self) -> Vec<EnergySourceInfo> {
        let meter = self.source.as_ref().map(|s| EnergySourceInfo {
            name: s.name(),
            scope: s.meter().scope,
        });
        let model = self.board.map(|b| EnergySourceInfo {
            name: format!("model:{}", b.name),
            scope: EnergyScope::Board,
        });
        meter.into_iter().chain(model).collect()
    }

    /// Takes a reading. `activity`: what the device did since the reading before.
    pub fn sample(&mut self, now: Instant, activity: Activity) {
        let Some(source) = &mut self.source else {
            return;
        };
        let at = now.saturating_duration_since(self.begin).as_micros();
        let at_us = u64::try_from(at).unwrap_or(u64::MAX);
        // Any inference makes the whole time busy; rest must have been rest throughout.
        let activity = match (self.open, activity) {
            (Activity::Inferring, _) | (_, Activity::Inferring) => Activity::Inferring,
            (Activity::Loading, _) | (_, Activity::Loading) => Activity::Loading,
            (Activity::Quiet, Activity::Quiet) => Activity::Quiet,
        };
        let busy = activity == Activity::Inferring;
        self.open = Activity::Quiet;
        match source.read(at_us) {
            Reading::Wait => self.open = activity,
            Reading::Gap => self.ledger.gap(),
            Reading::Power(watts) => {
                if activity == Activity::Loading {
                    self.ledger.gap();
                }
                self.ledger.power(at_us, watts, busy);
            }
            Reading::Interval {
                elapsed_us,
                energy_uj,
            } => {
                if activity != Activity::Loading {
                    self.ledger.interval(elapsed_us, energy_uj, busy);
                }
            }
        }
    }

    /// Settles the time since the last settlement among variants by their CPU time in
    /// microseconds; one answer for each, in order. Together they are what was used.
    pub fn settle(&mut self, cpu_us: &[u64]) -> Vec<Energy> {
        let total: u64 = cpu_us.iter().sum();
        let all = self.ledger.close(total as f64 / 1e6);
        let share = |cpu: &u64| {
            let part = *cpu as f64 / total.max(1) as f64;
            Energy {
                energy_uj: (all.energy_uj as f64 * part).round() as u64,
                standard_error_uj: (all.standard_error_uj as f64 * part).round() as u64,
                ..all
            }
        };
        cpu_us.iter().map(share).collect()
    }
}

/// The preferred source: sensors of the whole board before rails, the CPU package and the
/// battery, which tells only while it drains.
fn find(roots: &Roots) -> Option<Box<dyn Source>> {
    let board = hwmon::find(roots).map(boxed);
    let rails = || jetson::find(roots).map(boxed);
    let package = || rapl::find(roots).map(boxed);
    let battery = || battery::find(roots).map(boxed);
    board.or_else(rails).or_else(package).or_else(battery)
}

fn boxed<S: Source + 'static>(source: S) -> Box<dyn Source> {
    Box::new(source)
}

#[cfg(test)]
mod tests;
