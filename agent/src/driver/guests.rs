//! Guests from their start to their end, and where requests go meanwhile.

use super::start::Start;
use super::{Driver, Input};
use crate::serve::routes::Served;
use crate::tally::ServedBy;
use sandpiper_core::names::{ModelName, VariantName, VersionName};
use sandpiper_core::reconcile::DeviceEvent;
use sandpiper_core::telemetry::FailureKind;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Deadline of a request without a latency objective.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(5);
/// Least deadline of a request: a small board may be busy with other things.
const LEAST_DEADLINE: Duration = Duration::from_secs(1);

/// What a guest is known by.
pub type Key = (ModelName, VersionName, VariantName);

/// A start of a runner. A later one of the same variant is another one.
pub type Ticket = u64;

/// Guests that are loaded, and starts that have not ended.
#[derive(Default)]
pub struct Guests {
    pub(super) loaded: BTreeMap<Key, Arc<Served>>,
    pub(super) starting: BTreeMap<Key, Ticket>,
    last_ticket: Ticket,
}

pub(super) fn key_of(by: &ServedBy) -> Key {
    (by.model.clone(), by.version.clone(), by.variant.clone())
}

impl Driver {
    /// Verifies the files, loads a guest, tests it if asked, and answers.
    pub(super) fn start(&mut self, key: Key, test: bool) {
        let (model, version, variant) = &key;
        let Some((held, (manifest, target))) = self
            .machine
            .held(model, version)
            .zip(self.machine.runnable(model, version, variant))
        else {
            return;
        };
        let Some(native) = manifest.native.get(&target).map(|n| n.artefact) else {
            return;
        };
        let by = ServedBy {
            deployment: held.deployment.clone(),
            model: model.clone(),
            version: version.clone(),
            variant: variant.clone(),
            code: native.digest,
            power_state: self.machine.power_state(),
            generation: self.machine.state().generation,
        };
        let deadline = held.latency_slo_us.map_or(DEFAULT_DEADLINE, |slo| {
            Duration::from_micros(u64::from(slo) * 10).max(LEAST_DEADLINE)
        });
        let start = Start {
            depot: self.depot.clone(),
            launcher: self.launcher.clone(),
            manifest: manifest.clone(),
            native,
            by,
            classes: held.manifest.classes(),
            deadline,
            test,
        };
        self.guests.last_ticket += 1;
        let ticket = self.guests.last_ticket;
        self.guests.starting.insert(key.clone(), ticket);
        let inputs = self.inputs.clone();
        tokio::spawn(async move {
            let result = start.run().await;
            // The agent stops when nobody listens.
            let _ = inputs.send(Input::Started(key, ticket, result)).await;
        });
    }

    pub(super) fn started(
        &mut self,
        key: Key,
        ticket: Ticket,
        result: Result<Arc<Served>, (FailureKind, String)>,
    ) {
        if self.guests.starting.get(&key) != Some(&ticket) {
            return; // Stopped before it was there: the guest ends with its last handle.
        }
        self.guests.starting.remove(&key);
        let (model, version, variant) = key.clone();
        match result {
            Ok(served) => {
                self.watch(&served);
                self.learn(&served);
                self.guests.loaded.insert(key, served);
                self.handle(DeviceEvent::RunnerReady {
                    model,
                    version,
                    variant,
                });
            }
            Err((kind, message)) => {
                tracing::error!(%model, %version, %variant, "not started: {message}");
                self.handle(DeviceEvent::RunnerFailed {
                    model,
                    version,
                    variant,
                    kind,
                    message,
                });
            }
        }
    }

    /// Tells the driver at once when the guest dies, asked or not, without keeping it alive.
    fn watch(&self, served: &Arc<Served>) {
        let (end, inputs) = (served.guest.end(), self.inputs.clone());
        let served = Arc::downgrade(served);
        tokio::spawn(async move {
            if let Some(why) = end.await
                && let Some(served) = served.upgrade()
            {
                // The agent stops when nobody listens.
                let _ = inputs.send(Input::Died(served, why)).await;
            }
        });
    }

    /// What a guest tells of the device: how far runners are locked down here.
    fn learn(&self, served: &Served) {
        let found = served.guest.lockdown();
        self.profile.send_if_modified(|profile| {
            let changed = !found.is_empty() && profile.lockdown != found;
            if changed {
                profile.lockdown = found;
            }
            changed
        });
    }

    pub(super) fn switch(&mut self, key: &Key) {
        let Some(served) = self.guests.loaded.get(key).cloned() else {
            return;
        };
        tracing::info!(model = %key.0, version = %key.1, variant = %key.2, "serves");
        let old = self.routes.switch(served);
        self.close_with(old);
    }

    pub(super) fn stop(&mut self, key: &Key) {
        self.guests.starting.remove(key);
        let Some(old) = self.guests.loaded.remove(key) else {
            return;
        };
        if self.routes.drop_out(&old) {
            self.close_with(Some(old));
        }
    }

    pub(super) fn died(&mut self, served: &Arc<Served>, message: String) {
        let key = key_of(&served.by);
        let known = self.guests.loaded.get(&key);
        if !known.is_some_and(|l| Arc::ptr_eq(l, served)) {
            return;
        }
        let (model, version, variant) = key.clone();
        tracing::warn!(%model, %version, %variant, "the runner died: {message}");
        self.guests.loaded.remove(&key);
        served.died();
        if self.routes.drop_out(served) {
            self.close_with(Some(served.clone()));
        }
        self.handle(DeviceEvent::RunnerDied {
            model,
            version,
            variant,
            message,
        });
    }
}
