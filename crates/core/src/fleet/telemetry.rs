//! What telemetry windows teach.

use super::devices::StreamId;
use super::outbox::ToDevice;
use super::record::{MAX_INSTALLATIONS, rows};
use super::state::Fleet;
use super::{Refused, keys};
use crate::mutants::{self, Mutant};
use crate::names::DeviceName;
use crate::sketch::LatencySketch;
use crate::telemetry::TelemetryWindow;
use crate::time::Millis;
use crate::view::Kind;

impl Fleet {
    /// Takes windows. Those seen before are skipped; all are acknowledged once persisted. A
    /// device sends in order of its sequence, so that a number below the last one stored was
    /// stored as well; within a batch the order is made here.
    ///
    /// # Errors
    /// [`Refused::Denied`].
    pub fn telemetry(
        &mut self,
        now: Millis,
        name: &DeviceName,
        id: StreamId,
        mut windows: Vec<TelemetryWindow>,
    ) -> Result<(), Refused> {
        self.current_stream(name, id)?;
        // Stable: installations keep the order in which they came.
        windows.sort_by_key(|w| w.sequence);
        let mut fresh = false;
        let mut boots = Vec::new();
        for window in &mut windows {
            // What comes from outside may have more buckets than ours, and parts above their whole.
            let mut latency = LatencySketch::default();
            latency.merge(&window.latency);
            window.latency = latency;
            window.outputs = window.outputs.sane();
            if !boots.contains(&window.boot) {
                boots.push(window.boot);
            }
            fresh |= self.learn(name, window);
        }
        if fresh {
            if let Some(learned) = self.learned.get(name) {
                self.out.keep(keys::learned(name), &rows(learned));
            }
            if let Some(rungs) = self.rungs.get(name) {
                self.out.keep(keys::rungs(name), &rows(rungs));
            }
            self.keep_device(name);
            for window in &windows {
                self.out.changed(Kind::Models, &window.model);
            }
            self.report_to_rollouts(now, name);
        }
        self.acknowledge(name, id, &boots);
        Ok(())
    }

    fn acknowledge(&mut self, name: &DeviceName, id: StreamId, boots: &[u64]) {
        let Some(record) = self.devices.get(name) else {
            return;
        };
        for (boot, sequence) in &record.acknowledged {
            if boots.contains(boot) {
                let ack = ToDevice::TelemetryAck {
                    boot: *boot,
                    sequence: *sequence,
                };
                self.out.send.push((id, ack));
            }
        }
    }

    /// Takes one window unless it was taken before.
    fn learn(&mut self, name: &DeviceName, window: &TelemetryWindow) -> bool {
        let Some(record) = self.devices.get_mut(name) else {
            return false;
        };
        match record
            .acknowledged
            .iter_mut()
            .find(|(boot, _)| *boot == window.boot)
        {
            Some((_, last)) if window.sequence <= *last && !mutants::is(Mutant::CountTwice) => {
                return false;
            }
            Some((_, last)) => *last = window.sequence,
            None => {
                record.acknowledged.push((window.boot, window.sequence));
                if record.acknowledged.len() > MAX_INSTALLATIONS {
                    record.acknowledged.remove(0);
                }
            }
        }
        self.count(name, window);
        true
    }

    /// Adds up a window. Only of what is published is anything remembered, so that a device
    /// cannot fill the store, and only code that was published for it proves anything.
    fn count(&mut self, name: &DeviceName, window: &TelemetryWindow) {
        let (model, version, variant) = (&window.model, &window.version, &window.variant);
        let profile = self.devices.get(name).and_then(|d| d.profile.as_ref());
        if !self.is_code_of(profile, model, version, variant, window.code) {
            return;
        }
        if let Some(record) = self.devices.get_mut(name)
            && let Some(assigned) = record.models.get(model)
            && assigned.version == *version
            && (record
                .since
                .get(model)
                .is_none_or(|s| window.generation >= *s)
                || mutants::is(Mutant::CountOldWindows))
        {
            let served = record.served.entry(model.clone()).or_default();
            *served = served.saturating_add(window.inferences);
        }
        let key = (model.clone(), version.clone(), variant.clone());
        let learned = self.learned.entry(name.clone()).or_default();
        learned.entry(key).or_default().observe(window);
        let key = (model.clone(), version.clone(), window.power_state);
        let rungs = self.rungs.entry(name.clone()).or_default();
        rungs.entry(key).or_default().observe(window);
    }
}
