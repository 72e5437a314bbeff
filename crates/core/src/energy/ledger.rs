//! Energy of inferences above idle, per window, with its standard error.
//!
//! Marginal energy = energy over the busy time - idle power x busy time. Idle power is learned
//! from quiet intervals. Variance of the difference, the terms being independent:
//!
//! `(g E)^2 + (s_idle T)^2 + (dP Ts / sqrt 6)^2 + (s_P T)^2 / n`
//!
//! with the meter's gain error `g`, the standard error `s_idle` of the idle power, the jump
//! between idle and busy power `dP` (a burst begins and ends anywhere between two samples `Ts`
//! apart) and the spread `s_P` of the power within the window.

use super::board::BoardModel;
use super::{Energy, EnergyScope, Provenance};

/// With fewer readings in a window a figure is modelled, not measured.
pub const MIN_SAMPLES: u32 = 20;
/// Quiet time that must have been seen before an idle power is believed, in seconds.
pub const MIN_QUIET_S: f64 = 5.0;
/// Weight of the newest quiet interval in the idle power, so that it follows slow drifts.
const IDLE_WEIGHT: f64 = 0.05;

/// What is known of a meter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Meter {
    /// What its readings cover.
    pub scope: EnergyScope,
    /// Relative standard error of its gain: INA226 0.01, INA219 0.02, RAPL 0.05, PMIC 0.1.
    pub gain_error: f64,
}

/// Idle power with its spread, from quiet intervals.
#[derive(Debug, Clone, Copy, Default)]
struct Idle {
    watts: f64,
    variance: f64,
    intervals: u32,
    quiet_s: f64,
}

impl Idle {
    fn observe(&mut self, watts: f64, elapsed_s: f64) {
        self.intervals = self.intervals.saturating_add(1);
        self.quiet_s += elapsed_s;
        // A plain mean first, an exponential one later.
        let weight = IDLE_WEIGHT.max(1.0 / f64::from(self.intervals));
        let off = watts - self.watts;
        self.watts += weight * off;
        self.variance = (1.0 - weight) * (self.variance + weight * off * off);
    }

    /// Variance of the mean: the exponential mean acts like one over `2 / weight` intervals.
    fn variance_of_mean(&self) -> f64 {
        let effective = f64::from(self.intervals).min(2.0 / IDLE_WEIGHT);
        self.variance / effective.max(1.0)
    }

    fn known(&self) -> bool {
        self.quiet_s >= MIN_QUIET_S
    }
}

/// What the busy intervals of a window add up to.
#[derive(Debug, Clone, Copy, Default)]
struct Busy {
    joules: f64,
    seconds: f64,
    samples: u32,
    sum_watts: f64,
    sum_watts2: f64,
}

/// Adds up the energy of one window after the other.
#[derive(Debug, Clone)]
pub struct Ledger {
    meter: Option<Meter>,
    model: Option<BoardModel>,
    cores: u16,
    idle: Idle,
    busy: Busy,
    last: Option<(u64, f64)>,
}

impl Ledger {
    /// A ledger of a device with this meter, if it has one, and this model of its board, if one
    /// is published, to fall back on.
    pub fn new(meter: Option<Meter>, model: Option<BoardModel>, cores: u16) -> Self {
        Self {
            meter,
            model,
            cores,
            idle: Idle::default(),
            busy: Busy::default(),
            last: None,
        }
    }

    /// An interval over which an energy counter advanced. `busy` when any inference ran in it.
    pub fn interval(&mut self, elapsed_us: u64, energy_uj: u64, busy: bool) {
        if elapsed_us == 0 {
            return;
        }
        let seconds = elapsed_us as f64 / 1e6;
        self.add(seconds, energy_uj as f64 / 1e6, busy);
    }

    /// A reading of a power meter in watts at `now_us` of any steady clock; intervals between
    /// readings count as trapezoids.
    pub fn power(&mut self, now_us: u64, watts: f64, busy: bool) {
        if !watts.is_finite() {
            return;
        }
        if let Some((before_us, before_w)) = self.last.replace((now_us, watts))
            && let Some(elapsed_us) = now_us.checked_sub(before_us).filter(|e| *e > 0)
        {
            let seconds = elapsed_us as f64 / 1e6;
            self.add(seconds, seconds * (before_w + watts) / 2.0, busy);
        }
    }

    /// A gap in the readings: the time until the next one counts for nothing.
    pub fn gap(&mut self) {
        self.last = None;
    }

    fn add(&mut self, seconds: f64, joules: f64, busy: bool) {
        let watts = joules / seconds;
        if !busy {
            self.idle.observe(watts, seconds);
            return;
        }
        let sums = &mut self.busy;
        sums.joules += joules;
        sums.seconds += seconds;
        sums.samples = sums.samples.saturating_add(1);
        sums.sum_watts += watts;
        sums.sum_watts2 += watts * watts;
    }

    /// Idle power in watts, once [`MIN_QUIET_S`] of quiet have been seen.
    pub fn idle_w(&self) -> Option<f64> {
        self.idle.known().then_some(self.idle.watts)
    }

    /// Ends the window in which inferences kept cores busy for `busy_cpu_s` seconds in all, and
    /// begins the next one.
    pub fn close(&mut self, busy_cpu_s: f64) -> Energy {
        let busy = std::mem::take(&mut self.busy);
        match self.meter {
            Some(meter) if self.idle.known() && busy.samples >= MIN_SAMPLES => {
                self.measured(meter, busy)
            }
            _ => self.modelled(busy_cpu_s),
        }
    }

    fn measured(&self, meter: Meter, busy: Busy) -> Energy {
        let n = f64::from(busy.samples);
        let (time, mean_w) = (busy.seconds, busy.sum_watts / n);
        let marginal = busy.joules - self.idle.watts * time;
        let spread = (busy.sum_watts2 / n - mean_w * mean_w).max(0.0);
        let gain = meter.gain_error * marginal;
        let edge = (mean_w - self.idle.watts) * (time / n) / 6f64.sqrt();
        let variance = gain * gain
            + self.idle.variance_of_mean() * time * time
            + edge * edge
            + spread * time * time / n;
        Energy {
            energy_uj: microjoules(marginal),
            standard_error_uj: microjoules(variance.sqrt()),
            provenance: Provenance::Measured,
            scope: meter.scope,
        }
    }

    fn modelled(&self, busy_cpu_s: f64) -> Energy {
        let Some(model) = self.model else {
            return Energy::default();
        };
        let energy_uj = model.marginal_uj(busy_cpu_s, self.cores);
        Energy {
            energy_uj: microjoules(energy_uj / 1e6),
            standard_error_uj: microjoules(energy_uj / 1e6 * model.relative_error),
            provenance: Provenance::Modelled,
            scope: EnergyScope::Board,
        }
    }
}

/// Integer microjoules; what noise makes negative is zero.
fn microjoules(joules: f64) -> u64 {
    (joules * 1e6).round().max(0.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INA226: Meter = Meter {
        scope: EnergyScope::Board,
        gain_error: 0.01,
    };

    /// Noise without dice: a fixed permutation of small steps around zero.
    fn noise(i: u64) -> f64 {
        (i * 7919 % 101) as f64 / 50.0 - 1.0
    }

    proptest! {
        #[test]
        fn the_truth_lies_within_four_standard_errors(
            idle_w in 0.5f64..5.0,
            above_w in 0.1f64..8.0,
            samples in 20u64..400,
        ) {
            let mut ledger = Ledger::new(Some(INA226), None, 4);
            for i in 0..100 {
                ledger.power(i * 100_000, idle_w + 0.02 * noise(i), false);
            }
            ledger.gap();
            for i in 0..=samples {
                let at = 20_000_000 + i * 100_000;
                ledger.power(at, idle_w + above_w + 0.02 * noise(i + 13), true);
            }
            let energy = ledger.close(0.0);
            prop_assert_eq!(energy.provenance, Provenance::Measured);
            let truth = above_w * samples as f64 * 0.1 * 1e6;
            let off = (energy.energy_uj as f64 - truth).abs();
            prop_assert!(off <= 4.0 * energy.standard_error_uj as f64, "{off} {energy:?}");
        }
    }

    #[test]
    fn counters_and_power_readings_agree() {
        let rapl = Meter {
            scope: EnergyScope::Package,
            gain_error: 0.05,
        };
        let mut ledger = Ledger::new(Some(rapl), None, 4);
        (0..60).for_each(|_| ledger.interval(100_000, 200_000, false));
        (0..50).for_each(|_| ledger.interval(100_000, 500_000, true));
        let energy = ledger.close(0.0);
        assert_eq!(energy.energy_uj, 15_000_000);
        assert_eq!(energy.scope, EnergyScope::Package);
        // 5 % gain error dominates.
        assert!(
            (740_000..800_000).contains(&energy.standard_error_uj),
            "{energy:?}"
        );
    }

    #[test]
    fn too_few_readings_are_modelled_and_without_a_model_unknown() {
        let model = BoardModel::of("Raspberry Pi 4 Model B Rev 1.4");
        let mut ledger = Ledger::new(Some(INA226), model, 4);
        ledger.power(0, 3.0, true);
        ledger.power(100_000, 3.0, true);
        let energy = ledger.close(2.0);
        assert_eq!(energy.provenance, Provenance::Modelled);
        assert_eq!(energy.energy_uj, 2_267_000);
        assert_eq!(energy.standard_error_uj, 566_750);
        let unknown = Ledger::new(None, None, 4).close(2.0);
        assert_eq!(unknown, Energy::default());
    }
}
