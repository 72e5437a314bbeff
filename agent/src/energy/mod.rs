//! What inferences cost, with its provenance: a meter when the device has one, a published
//! model of the board otherwise, else unknown.

mod meter;

use crate::config::Roots;
use meter::Meter;
use sandpiper_core::energy::board::BoardModel;
use sandpiper_core::energy::{Energy, EnergyScope, Provenance};
use sandpiper_core::profile::EnergySourceInfo;
use std::time::Instant;

/// Fewer readings in a window than this, and the figure is modelled, not measured.
const MIN_SAMPLES: u32 = 20;

/// Follows the preferred energy source of the device.
#[derive(Debug)]
pub struct Accountant {
    meter: Option<Meter>,
    board: Option<BoardModel>,
    cores: u16,
    idle_w: Option<f64>,
    span: Span,
    last: Option<Instant>,
}

/// What was metered since the last settlement.
#[derive(Debug, Default, Clone, Copy)]
struct Span {
    gross_uj: f64,
    seconds: f64,
    samples: u32,
}

impl Accountant {
    /// Looks for sources under these roots; `board` names the board for the model.
    pub fn new(roots: &Roots, board: &str, cores: u16) -> Self {
        Self {
            meter: meter::find(roots),
            board: BoardModel::of(board),
            cores,
            idle_w: None,
            span: Span::default(),
            last: None,
        }
    }

    /// The sources found, the preferred one first.
    pub fn sources(&self) -> Vec<EnergySourceInfo> {
        let meter = self.meter.as_ref().map(|m| EnergySourceInfo {
            name: m.name().to_owned(),
            scope: m.scope(),
        });
        let model = self.board.map(|b| EnergySourceInfo {
            name: format!("model:{}", b.name),
            scope: EnergyScope::Board,
        });
        meter.into_iter().chain(model).collect()
    }

    /// Takes a reading. `quiet`: nothing was inferred since the reading before, so the power of
    /// this span is that of rest.
    pub fn sample(&mut self, now: Instant, quiet: bool) {
        let Some(uj) = self.meter.as_mut().and_then(|m| m.advance(now)) else {
            self.last = self.meter.is_some().then_some(now);
            return;
        };
        let Some(before) = self.last.replace(now) else {
            return;
        };
        let seconds = now.duration_since(before).as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        if quiet {
            let watts = uj / 1e6 / seconds;
            // Smoothed over about ten readings: rest is not constant either.
            self.idle_w = Some(
                self.idle_w
                    .map_or(watts, |idle| idle + 0.1 * (watts - idle)),
            );
        } else {
            self.span.gross_uj += uj;
            self.span.seconds += seconds;
            self.span.samples += 1;
        }
    }

    /// Settles the span since the last settlement among variants by their CPU time in
    /// microseconds; one answer for each, in order.
    pub fn settle(&mut self, cpu_us: &[u64]) -> Vec<Energy> {
        let span = std::mem::take(&mut self.span);
        let total: u64 = cpu_us.iter().sum();
        let measured = self.marginal(span);
        let share = |cpu: &u64| {
            let part = if total == 0 {
                0.0
            } else {
                *cpu as f64 / total as f64
            };
            match (measured, self.board) {
                (Some((uj, sigma, scope)), _) => {
                    energy(uj * part, sigma * part, Provenance::Measured, scope)
                }
                (None, Some(board)) => {
                    let uj = board.marginal_uj(*cpu as f64 / 1e6, self.cores);
                    let sigma = uj * board.relative_error;
                    energy(uj, sigma, Provenance::Modelled, EnergyScope::Board)
                }
                (None, None) => Energy::default(),
            }
        };
        cpu_us.iter().map(share).collect()
    }

    /// Marginal energy = gross - rest x time, and its standard error:
    /// `sqrt((g E)^2 + (0.05 idle t)^2)` with gain error `g` of the meter.
    fn marginal(&self, span: Span) -> Option<(f64, f64, EnergyScope)> {
        let (meter, idle) = (self.meter.as_ref()?, self.idle_w?);
        if span.samples < MIN_SAMPLES {
            return None;
        }
        let rest = idle * span.seconds * 1e6;
        let uj = (span.gross_uj - rest).max(0.0);
        let sigma = (meter.gain_error() * span.gross_uj).hypot(0.05 * rest);
        Some((uj, sigma, meter.scope()))
    }
}

fn energy(uj: f64, sigma: f64, provenance: Provenance, scope: EnergyScope) -> Energy {
    Energy {
        energy_uj: uj.round() as u64,
        standard_error_uj: sigma.round() as u64,
        provenance,
        scope,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::time::Duration;

    fn roots(dir: &Path) -> Roots {
        Roots {
            sysfs: dir.join("sys"),
            procfs: dir.join("proc"),
            powercap: dir.join("powercap"),
        }
    }

    #[test]
    fn a_board_without_a_meter_is_modelled_and_an_unknown_one_is_unknown() {
        let dir = tempfile::tempdir().unwrap();
        let mut pi = Accountant::new(&roots(dir.path()), "Raspberry Pi 4 Model B Rev 1.4", 4);
        let figure = pi.settle(&[1_000_000])[0];
        assert_eq!(figure.provenance, Provenance::Modelled);
        assert!((figure.energy_uj as f64 - 4.534e6 / 4.0).abs() < 2.0);
        assert!(figure.standard_error_uj > 0);
        let mut other = Accountant::new(&roots(dir.path()), "Banana", 4);
        assert_eq!(other.settle(&[5])[0], Energy::default());
    }

    #[test]
    fn rapl_above_rest_is_measured() {
        let dir = tempfile::tempdir().unwrap();
        let domain = dir.path().join("powercap/intel-rapl:0");
        std::fs::create_dir_all(&domain).unwrap();
        let write = |name: &str, text: String| std::fs::write(domain.join(name), text).unwrap();
        write("name", "package-0\n".into());
        write("max_energy_range_uj", "100000000\n".into());
        write("energy_uj", "0".into());
        let mut accountant = Accountant::new(&roots(dir.path()), "x", 4);
        let begin = Instant::now();
        let mut total = 0;
        // Two watts at rest, then five watts with a wrap on the way.
        for step in 0..60u64 {
            total += if step < 30 { 200_000 } else { 500_000 };
            write("energy_uj", (total % 10_000_000).to_string());
            write("max_energy_range_uj", "10000000".into());
            accountant.sample(begin + Duration::from_millis(100 * (step + 1)), step < 30);
        }
        let all = accountant.settle(&[3, 1]);
        assert_eq!(all[0].provenance, Provenance::Measured);
        assert_eq!(all[0].scope, EnergyScope::Package);
        assert!(all[0].energy_uj > all[1].energy_uj * 2);
    }
}
