//! Counts of one served variant over the window that is open.

use sandpiper_core::assignment::Generation;
use sandpiper_core::digest::Digest;
use sandpiper_core::energy::Energy;
use sandpiper_core::names::{DeploymentName, ModelName, VariantName, VersionName};
use sandpiper_core::outputs::{Glance, OutputStats, Watch};
use sandpiper_core::profile::PowerState;
use sandpiper_core::sketch::LatencySketch;
use sandpiper_core::telemetry::TelemetryWindow;
use sandpiper_core::time::Millis;

/// Who serves: what identifies a window besides its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedBy {
    /// Deployment.
    pub deployment: DeploymentName,
    /// Model.
    pub model: ModelName,
    /// Version.
    pub version: VersionName,
    /// Variant.
    pub variant: VariantName,
    /// Digest of the native code.
    pub code: Digest,
    /// Power state whose rung it serves.
    pub power_state: PowerState,
    /// Generation of the assignment in force.
    pub generation: Generation,
}

/// Counts since the window was opened.
#[derive(Debug, Clone)]
pub struct Tally {
    from: Millis,
    inferences: u64,
    errors: u64,
    rejected: u64,
    traps: u64,
    nonfinite: u64,
    outputs: OutputStats,
    latency: LatencySketch,
    cpu_us: u64,
    shadow_cpu_us: u64,
}

impl Tally {
    /// An empty tally that begins now.
    pub fn new(from: Millis) -> Self {
        Self {
            from,
            inferences: 0,
            errors: 0,
            rejected: 0,
            traps: 0,
            nonfinite: 0,
            outputs: OutputStats::default(),
            latency: LatencySketch::default(),
            cpu_us: 0,
            shadow_cpu_us: 0,
        }
    }

    /// A batch of `items` was answered. Only the latency of a batch of one is kept: larger
    /// batches cannot be compared with it.
    pub fn succeeded(&mut self, items: u32, latency_us: u32, cpu_us: u64) {
        self.inferences += u64::from(items);
        self.cpu_us += cpu_us;
        if items == 1 {
            self.latency.record(latency_us);
        }
    }

    /// What its answers were like; `watch` has seen those before.
    pub fn looked(&mut self, watch: &mut Watch, glances: &[Glance]) {
        self.nonfinite += glances.iter().filter(|g| !g.finite).count() as u64;
        watch.count(glances, &mut self.outputs);
    }

    /// The version before was asked for so many answers too, and both agree on these.
    pub fn compared(&mut self, items: u32, agreed: u32) {
        self.outputs.compared += u64::from(items);
        self.outputs.agreed += u64::from(agreed);
    }

    /// It was asked in the shadow of another version.
    pub fn shadowed(&mut self, cpu_us: u64) {
        self.shadow_cpu_us += cpu_us;
    }

    /// The model gave an error.
    pub fn failed(&mut self) {
        self.errors += 1;
    }

    /// The runner died over a request.
    pub fn died(&mut self) {
        self.errors += 1;
        self.traps += 1;
    }

    /// The runner died while nothing was asked of it.
    pub fn lost(&mut self) {
        self.traps += 1;
    }

    /// A request was refused because of its input.
    pub fn rejected(&mut self) {
        self.rejected += 1;
    }

    /// CPU time of the runner since the window was opened, in microseconds, in the shadow too.
    pub fn cpu_us(&self) -> u64 {
        self.cpu_us + self.shadow_cpu_us
    }

    /// What of an energy for all of that went into answers that somebody got.
    fn own(&self, energy: Energy) -> Energy {
        if self.shadow_cpu_us == 0 {
            return energy;
        }
        let share = self.cpu_us as f64 / self.cpu_us().max(1) as f64;
        let part = |uj: u64| (uj as f64 * share) as u64;
        Energy {
            energy_uj: part(energy.energy_uj),
            standard_error_uj: part(energy.standard_error_uj),
            ..energy
        }
    }

    /// Whether nothing happened.
    pub fn is_empty(&self) -> bool {
        self.inferences + self.errors + self.rejected + self.traps == 0
    }

    /// The closed window; the ring gives it its number.
    pub fn close(self, by: &ServedBy, to: Millis, energy: Energy) -> TelemetryWindow {
        let energy = self.own(energy);
        let sigma = energy.standard_error_uj as f64;
        TelemetryWindow {
            boot: 0,
            sequence: 0,
            generation: by.generation,
            from: self.from,
            to,
            deployment: by.deployment.clone(),
            model: by.model.clone(),
            version: by.version.clone(),
            variant: by.variant.clone(),
            code: by.code,
            power_state: by.power_state,
            inferences: self.inferences,
            errors: self.errors,
            rejected: self.rejected,
            traps: self.traps,
            nonfinite: self.nonfinite,
            outputs: self.outputs,
            latency: self.latency,
            energy_uj: energy.energy_uj,
            energy_variance_uj2: sigma * sigma,
            energy_provenance: energy.provenance,
            energy_scope: energy.scope,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
impl ServedBy {
    pub(crate) fn sample() -> Self {
        Self {
            deployment: DeploymentName::new("d").unwrap(),
            model: ModelName::new("activity").unwrap(),
            version: VersionName::new("v1").unwrap(),
            variant: VariantName::new("small").unwrap(),
            code: Digest::of(b"code"),
            power_state: PowerState::Mains,
            generation: Generation(1),
        }
    }
}
