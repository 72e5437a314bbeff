//! Live streams and what devices say on them.

use super::FleetError;
use super::state::State;
use sandpiper_core::event::Severity;
use sandpiper_core::names::DeviceName;
use sandpiper_core::policy::{Labels, check_label_key, check_label_value};
use sandpiper_core::rollout::RolloutEvent;
use sandpiper_core::telemetry::{ModelPhase, Observation};
use sandpiper_core::time::Millis;
use sandpiper_proto::convert::{FromController, Hello, ResourceKind};
use sandpiper_proto::limits::MAX_LABELS;
use tokio::sync::mpsc;

/// Messages waiting for one device. Only assignments and acknowledgements are sent, so a queue
/// that is full belongs to a device that does not read; its stream is closed.
pub(super) const STREAM_QUEUE: usize = 32;
/// Longest text of a device that is kept, in characters: what a device says must not make its
/// record larger than the store takes.
const MAX_TEXT: usize = 500;
/// Failed variants remembered per device.
const MAX_FAILED: usize = 256;

/// Number of a live stream, unique within one run of the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(pub(super) u64);

/// A live stream.
pub(super) struct Live {
    pub(super) id: StreamId,
    pub(super) boot_id: u64,
    pub(super) sender: mpsc::Sender<FromController>,
}

impl State {
    /// Refuses devices that are revoked or unknown. Checked on every call.
    ///
    /// # Errors
    /// [`FleetError::Denied`].
    pub fn admit(&self, name: &DeviceName) -> Result<(), FleetError> {
        match self.devices.get(name) {
            Some(device) if device.revoked_by.is_none() => Ok(()),
            Some(_) => Err(FleetError::Denied(format!("device `{name}` was revoked"))),
            None => Err(FleetError::Denied(format!(
                "device `{name}` is not of this fleet"
            ))),
        }
    }

    /// A device opened its stream. An older stream of the same device is closed; a different
    /// boot at the same time betrays a cloned card and is noted.
    ///
    /// # Errors
    /// [`FleetError::Denied`].
    pub fn attach(
        &mut self,
        now: Millis,
        name: &DeviceName,
        hello: Hello,
    ) -> Result<(StreamId, mpsc::Receiver<FromController>), FleetError> {
        self.admit(name)?;
        let (sender, receiver) = mpsc::channel(STREAM_QUEUE);
        let id = StreamId(self.next_stream);
        self.next_stream += 1;
        let live = Live {
            id,
            boot_id: hello.boot_id,
            sender,
        };
        if let Some(old) = self.live.insert(name.clone(), live) {
            let reason = "a newer stream of this device was opened".to_owned();
            // An older stream that does not read ends when its sender is dropped here.
            let _ = old.sender.try_send(FromController::Disconnect {
                reason,
                retry: true,
            });
            if old.boot_id != hello.boot_id && !old.sender.is_closed() {
                let text = "two starts of the agent were connected at once: was the card cloned?";
                let subject = format!("device/{name}");
                let text = text.to_owned();
                self.tell(
                    now,
                    Severity::Warning,
                    subject,
                    name.as_str(),
                    "TwoStreams",
                    text,
                );
            }
        }
        if let Some(record) = self.devices.get_mut(name) {
            record.profile = Some(hello.profile);
        }
        let generation = hello.observation.generation;
        self.observed(now, name, hello.observation);
        self.keep_device(name);
        self.converge(now, name);
        let behind = self
            .devices
            .get(name)
            .is_some_and(|d| d.generation > generation);
        if behind {
            self.push(name);
        }
        Ok((id, receiver))
    }

    /// A stream ended.
    pub fn detach(&mut self, now: Millis, name: &DeviceName, id: StreamId) {
        if self.live.get(name).is_some_and(|live| live.id == id) {
            self.live.remove(name);
            self.seen(now, name);
            self.keep_device(name);
        }
    }

    fn seen(&mut self, now: Millis, name: &DeviceName) {
        if let Some(record) = self.devices.get_mut(name) {
            record.last_seen = Some(now);
        }
    }

    /// A device reported on a live stream.
    ///
    /// # Errors
    /// [`FleetError::Denied`], also when the stream is no longer the device's current one.
    pub fn report(
        &mut self,
        now: Millis,
        name: &DeviceName,
        id: StreamId,
        observation: Observation,
    ) -> Result<(), FleetError> {
        self.current_stream(name, id)?;
        self.observed(now, name, observation);
        Ok(())
    }

    pub(super) fn current_stream(&self, name: &DeviceName, id: StreamId) -> Result<(), FleetError> {
        self.admit(name)?;
        if self.live.get(name).is_some_and(|live| live.id == id) {
            Ok(())
        } else {
            let text = "a newer stream of this device was opened".to_owned();
            Err(FleetError::Denied(text))
        }
    }

    /// Takes a report. Conditions alone are not written: the next report brings them again.
    fn observed(&mut self, now: Millis, name: &DeviceName, observation: Observation) {
        self.seen(now, name);
        let Some(record) = self.devices.get_mut(name) else {
            return;
        };
        let same = record.observation.as_ref().is_some_and(|old| {
            old.models == observation.models
                && old.generation == observation.generation
                && old.refused == observation.refused
        });
        for status in &observation.models {
            if let (ModelPhase::Failed, Some(failure)) = (status.phase, &status.failure) {
                let known = record.failed.iter().any(|(m, v, n, _)| {
                    *m == status.model && *v == status.wanted && *n == failure.variant
                });
                if !known {
                    let message = cut(&failure.message);
                    let (model, wanted) = (status.model.clone(), status.wanted.clone());
                    record
                        .failed
                        .push((model, wanted, failure.variant.clone(), message));
                    if record.failed.len() > MAX_FAILED {
                        record.failed.remove(0);
                    }
                }
            }
        }
        let refused = observation.refused.as_deref().map(cut);
        let refused = refused.filter(|_| {
            let old = record.observation.as_ref();
            old.is_none_or(|o| o.refused != observation.refused)
        });
        record.observation = Some(observation);
        self.out.changed(ResourceKind::Devices, name);
        if !same {
            self.keep_device(name);
        }
        if let Some(why) = refused {
            let (subject, reason) = (format!("device/{name}"), "AssignmentRefused");
            self.tell(now, Severity::Warning, subject, name.as_str(), reason, why);
        }
        self.report_to_rollouts(now, name);
    }

    /// Changes labels.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] or [`FleetError::Invalid`].
    pub fn set_labels(
        &mut self,
        now: Millis,
        actor: &str,
        name: &DeviceName,
        set: Labels,
        remove: &[String],
    ) -> Result<(), FleetError> {
        let mut labels = self.device(name)?.labels.clone();
        for (key, value) in &set {
            check_label_key(key)
                .and_then(|()| check_label_value(value))
                .map_err(|e| FleetError::Invalid(e.to_string()))?;
        }
        labels.retain(|key, _| !remove.contains(key));
        labels.extend(set);
        if labels.len() > MAX_LABELS {
            return Err(FleetError::Invalid(format!(
                "a device has at most {MAX_LABELS} labels"
            )));
        }
        let shown: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        if let Some(record) = self.devices.get_mut(name) {
            record.labels = labels;
        }
        self.keep_device(name);
        let text = format!("labels: {}", shown.join(","));
        self.tell(
            now,
            Severity::Info,
            format!("device/{name}"),
            actor,
            "Labelled",
            text,
        );
        self.converge(now, name);
        Ok(())
    }

    /// Revokes a device: its calls are refused from now on and its stream is cut.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub fn revoke_device(
        &mut self,
        now: Millis,
        actor: &str,
        name: &DeviceName,
    ) -> Result<(), FleetError> {
        self.device(name)?;
        if let Some(record) = self.devices.get_mut(name) {
            record.revoked_by = Some(actor.to_owned());
        }
        self.keep_device(name);
        let text = "its certificate is not accepted any more".to_owned();
        self.tell(
            now,
            Severity::Warning,
            format!("device/{name}"),
            actor,
            "Revoked",
            text,
        );
        if let Some(live) = self.live.remove(name) {
            let reason = "this device was revoked".to_owned();
            // The stream ends with its sender even if this message finds no room.
            let _ = live.sender.try_send(FromController::Disconnect {
                reason,
                retry: false,
            });
        }
        let event = RolloutEvent::Gone {
            device: name.clone(),
        };
        self.tell_rollouts(now, &event);
        Ok(())
    }
}

fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}
