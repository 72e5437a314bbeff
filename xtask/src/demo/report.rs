//! What the demo found, for people and as one JSON object.

use serde::Serialize;

/// A device and what it served.
#[derive(Debug, Serialize)]
pub(crate) struct DeviceRow {
    pub(crate) name: String,
    /// Board, RAM, cores and battery: emulated.
    pub(crate) emulated: String,
    pub(crate) ram_mib: u64,
    pub(crate) battery_percent: Option<u8>,
    pub(crate) variant: String,
    /// Why this variant, as `explain` says.
    pub(crate) reason: String,
    pub(crate) accuracy: f64,
    pub(crate) latency_us_p50: Option<u64>,
    pub(crate) latency_us_p95: Option<u64>,
    pub(crate) energy_uj: Option<f64>,
    pub(crate) energy_standard_error_uj: Option<f64>,
    pub(crate) energy_provenance: String,
}

/// A step of the ladder.
#[derive(Debug, Serialize)]
pub(crate) struct LadderStep {
    pub(crate) device: String,
    pub(crate) from: String,
    pub(crate) to: String,
}

/// The rollout that had to fail.
#[derive(Debug, Serialize)]
pub(crate) struct BadRollout {
    pub(crate) state: String,
    pub(crate) why: String,
    pub(crate) devices_on_v1: usize,
}

/// Requests of all local programs.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Requests {
    pub(crate) sent: u64,
    pub(crate) failed: u64,
}

/// Everything.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) emulated_hardware: bool,
    pub(crate) devices: Vec<DeviceRow>,
    pub(crate) distinct_variants: usize,
    pub(crate) ladder_step: LadderStep,
    pub(crate) bad_rollout: BadRollout,
    pub(crate) requests: Requests,
    pub(crate) seconds: u64,
    /// What did not hold; empty when the demo succeeded.
    pub(crate) failures: Vec<String>,
}

/// The demo has to be through in this time, building left out.
const MAX_SECONDS: u64 = 90;

impl Report {
    /// Notes everything that the demo promises and that did not hold.
    pub(crate) fn judge(&mut self, devices: usize) {
        let mut failures = Vec::new();
        let mut expect = |holds: bool, what: String| {
            if !holds {
                failures.push(what);
            }
        };
        let n = self.distinct_variants;
        expect(
            n >= 3,
            format!("{n} distinct variants were selected, not at least 3"),
        );
        let step = &self.ladder_step;
        expect(
            step.from != step.to,
            format!("{} did not step down", step.device),
        );
        let bad = &self.bad_rollout;
        expect(
            bad.state == "rolled_back",
            format!("the bad rollout is {}", bad.state),
        );
        expect(
            bad.devices_on_v1 == devices,
            format!("{} of {devices} devices are on v1", bad.devices_on_v1),
        );
        let requests = &self.requests;
        expect(
            requests.failed == 0,
            format!("{} requests failed", requests.failed),
        );
        for row in &self.devices {
            // The floor of the policy, below which nothing may be served.
            expect(
                row.accuracy >= 0.9,
                format!("{}: accuracy {:.4}", row.name, row.accuracy),
            );
            expect(
                row.latency_us_p50.is_some(),
                format!("{}: no latency reported", row.name),
            );
        }
        let seconds = self.seconds;
        expect(
            seconds <= MAX_SECONDS,
            format!("it took {seconds} s, not at most {MAX_SECONDS}"),
        );
        self.failures = failures;
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut lines = vec![
            "Hardware is emulated: board, RAM, cores and battery are what each agent was told;"
                .into(),
            "latencies are of this machine, energy is modelled for the board.".to_owned(),
            String::new(),
            format!(
                "{:<13}{:>8}  {:<34}{:>8}  {:<14}{:>9}{:>8}{:>8}  energy per inference",
                "device", "RAM MiB", "board", "battery", "variant", "accuracy", "p50 us", "p95 us"
            ),
        ];
        lines.extend(self.devices.iter().map(DeviceRow::text));
        lines.push(String::new());
        lines.extend(
            self.devices
                .iter()
                .map(|d| format!("{}: {}: {}", d.name, d.variant, d.reason)),
        );
        let (step, bad) = (&self.ladder_step, &self.bad_rollout);
        lines.push(format!(
            "\nbattery drained: {} went from {} to {} by itself",
            step.device, step.from, step.to
        ));
        lines.push(format!(
            "bad rollout: {} ({}); {} devices on v1",
            bad.state, bad.why, bad.devices_on_v1
        ));
        let requests = &self.requests;
        lines.push(format!(
            "requests: {} sent, {} failed",
            requests.sent, requests.failed
        ));
        lines.push(format!("{} s", self.seconds));
        lines.extend(self.failures.iter().map(|f| format!("FAILED: {f}")));
        lines.join("\n")
    }
}

impl DeviceRow {
    fn text(&self) -> String {
        let number = |n: Option<u64>| n.map_or("-".into(), |n| n.to_string());
        let energy = match (self.energy_uj, self.energy_standard_error_uj) {
            (Some(uj), Some(se)) => format!("{uj:.0} ± {se:.0} uJ ({})", self.energy_provenance),
            (Some(uj), None) => format!("{uj:.0} uJ ({})", self.energy_provenance),
            _ => self.energy_provenance.clone(),
        };
        let battery = self
            .battery_percent
            .map_or("mains".into(), |p| format!("{p} %"));
        format!(
            "{:<13}{:>8}  {:<34}{:>8}  {:<14}{:>9.4}{:>8}{:>8}  {energy}",
            self.name,
            self.ram_mib,
            self.emulated,
            battery,
            self.variant,
            self.accuracy,
            number(self.latency_us_p50),
            number(self.latency_us_p95),
        )
    }
}
