//! What telemetry windows teach.

use super::devices::StreamId;
use super::record::{MAX_INSTALLATIONS, learned_rows};
use super::state::State;
use super::{FleetError, keys};
use sandpiper_core::names::DeviceName;
use sandpiper_core::telemetry::TelemetryWindow;
use sandpiper_core::time::Millis;
use sandpiper_proto::convert::{FromController, ResourceKind};

impl State {
    /// Takes windows. Those seen before are skipped; all are acknowledged once persisted.
    ///
    /// # Errors
    /// [`FleetError::Denied`].
    pub fn telemetry(
        &mut self,
        now: Millis,
        name: &DeviceName,
        id: StreamId,
        windows: Vec<TelemetryWindow>,
    ) -> Result<(), FleetError> {
        self.current_stream(name, id)?;
        let mut fresh = false;
        let mut boots = Vec::new();
        for window in &windows {
            if !boots.contains(&window.boot) {
                boots.push(window.boot);
            }
            fresh |= self.learn(name, window);
        }
        if fresh {
            if let Some(learned) = self.learned.get(name) {
                self.out.keep(keys::learned(name), &learned_rows(learned));
            }
            self.keep_device(name);
            for window in &windows {
                self.out.changed(ResourceKind::Models, &window.model);
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
                let ack = FromController::TelemetryAck {
                    boot: *boot,
                    sequence: *sequence,
                };
                self.out.send.push((name.clone(), id, ack));
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
            Some((_, last)) if window.sequence <= *last => return false,
            Some((_, last)) => *last = window.sequence,
            None => {
                record.acknowledged.push((window.boot, window.sequence));
                if record.acknowledged.len() > MAX_INSTALLATIONS {
                    record.acknowledged.remove(0);
                }
            }
        }
        let assigned = record.models.get(&window.model);
        if assigned.is_some_and(|m| m.version == window.version) {
            *record.served.entry(window.model.clone()).or_default() += window.inferences;
        }
        // Only of what is published is anything remembered, so a device cannot fill the store.
        let key = (window.model.clone(), window.version.clone());
        let known = self.versions.get(&key);
        if known.is_some_and(|p| p.manifest.variant(&window.variant).is_some()) {
            let key = (key.0, key.1, window.variant.clone());
            let learned = self.learned.entry(name.clone()).or_default();
            learned.entry(key).or_default().observe(window);
        }
        true
    }
}
