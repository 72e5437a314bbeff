//! Live streams and what devices say on them.

use super::Refused;
use super::outbox::ToDevice;
use super::record::DeviceRecord;
use super::state::Fleet;
use crate::event::Severity;
use crate::names::DeviceName;
use crate::policy::{Labels, MAX_LABELS, check_label_key, check_label_value};
use crate::rollout::RolloutEvent;
use crate::telemetry::{Hello, ModelPhase, Observation};
use crate::time::Millis;
use crate::view::Kind;
use crate::window::{ZONE_LABEL, Zone};

/// Most devices of one fleet.
pub const MAX_DEVICES: usize = 1_000_000;
/// Longest text of a device that is kept, in characters: what a device says must not make its
/// record larger than the store takes.
const MAX_TEXT: usize = 500;
/// Failed variants remembered per device.
const MAX_FAILED: usize = 256;

/// Number of a live stream, unique within one run of the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(pub(super) u64);

impl std::fmt::Display for StreamId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A live stream.
#[derive(Debug, Clone)]
pub(super) struct Live {
    pub(super) id: StreamId,
    pub(super) boot_id: u64,
}

impl Fleet {
    /// Refuses devices that are revoked, in quarantine or unknown. Checked on every call.
    ///
    /// # Errors
    /// [`Refused::Denied`].
    pub fn admit(&self, name: &DeviceName) -> Result<(), Refused> {
        match self.devices.get(name) {
            Some(device) if device.revoked_by.is_some() => {
                Err(Refused::Denied(format!("device `{name}` was revoked")))
            }
            Some(device) if device.quarantined.is_some() => Err(Refused::Denied(format!(
                "device `{name}` is in quarantine: two cards use its identity"
            ))),
            Some(_) => Ok(()),
            None => Err(Refused::Denied(format!(
                "device `{name}` is not of this fleet"
            ))),
        }
    }

    /// A device has joined.
    ///
    /// # Errors
    /// [`Refused::Conflict`] for a name that is taken, [`Refused::Full`].
    pub fn enrol(&mut self, now: Millis, name: &DeviceName, labels: Labels) -> Result<(), Refused> {
        self.may_enrol(name)?;
        let record = DeviceRecord::new(name.clone(), labels, now);
        self.devices.insert(name.clone(), record);
        self.keep_device(name);
        Ok(())
    }

    /// Whether a device of this name may join.
    ///
    /// # Errors
    /// As [`Fleet::enrol`].
    pub fn may_enrol(&self, name: &DeviceName) -> Result<(), Refused> {
        if self.devices.contains_key(name) {
            let text = format!("the name `{name}` is taken: join with another --name");
            return Err(Refused::Conflict(text));
        }
        if self.devices.len() >= MAX_DEVICES {
            let text = format!("the fleet has {MAX_DEVICES} devices already");
            return Err(Refused::Full(text));
        }
        Ok(())
    }

    /// A device opened its stream. An older stream of the same device is closed. Another start of
    /// the agent that was connected at the same time is noted, and one that comes back after it
    /// had been displaced proves that the card was cloned: then both are shut out. `old_reads` says whether the
    /// other end of that older stream is still there, as far as the driver knows.
    ///
    /// # Errors
    /// [`Refused::Denied`].
    pub fn attach(
        &mut self,
        now: Millis,
        name: &DeviceName,
        hello: Hello,
        old_reads: bool,
    ) -> Result<StreamId, Refused> {
        self.admit(name)?;
        let boot_id = hello.boot_id;
        self.attaches(now, name, boot_id)?;
        let id = StreamId(self.next_stream);
        self.next_stream += 1;
        if let Some(old) = self.live.insert(name.clone(), Live { id, boot_id }) {
            let reason = "a newer stream of this device was opened".to_owned();
            let last = ToDevice::Disconnect {
                reason,
                retry: true,
            };
            self.out.send.push((old.id, last));
            if old.boot_id != boot_id && old_reads {
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
        self.remind_of_agent(now, name);
        let behind = self
            .devices
            .get(name)
            .is_some_and(|d| d.generation > generation);
        self.tell_time(now, name);
        if behind {
            self.push(name);
        }
        Ok(id)
    }

    /// A stream ended.
    pub fn detach(&mut self, now: Millis, name: &DeviceName, id: StreamId) {
        if self.live.get(name).is_some_and(|live| live.id == id) {
            self.live.remove(name);
            self.seen(now, name);
            self.keep_device(name);
        }
    }

    /// The driver gave a stream up, because its device does not read. It comes back and is told
    /// its generation then.
    pub fn give_up(&mut self, name: &DeviceName) {
        self.live.remove(name);
    }

    fn seen(&mut self, now: Millis, name: &DeviceName) {
        if let Some(record) = self.devices.get_mut(name) {
            record.last_seen = Some(now);
        }
    }

    /// A device reported on a live stream.
    ///
    /// # Errors
    /// [`Refused::Denied`], also when the stream is no longer the device's current one.
    pub fn report(
        &mut self,
        now: Millis,
        name: &DeviceName,
        id: StreamId,
        observation: Observation,
    ) -> Result<(), Refused> {
        self.current_stream(name, id)?;
        self.observed(now, name, observation);
        Ok(())
    }

    pub(super) fn current_stream(&self, name: &DeviceName, id: StreamId) -> Result<(), Refused> {
        self.admit(name)?;
        if self.live.get(name).is_some_and(|live| live.id == id) {
            Ok(())
        } else {
            let text = "a newer stream of this device was opened".to_owned();
            Err(Refused::Denied(text))
        }
    }

    /// Takes a report. Conditions alone are not written: the next report brings them again.
    fn observed(&mut self, now: Millis, name: &DeviceName, mut observation: Observation) {
        self.seen(now, name);
        if let Some(agent) = &mut observation.agent {
            agent.why = agent.why.as_deref().map(cut);
            agent.running = cut(&agent.running);
        }
        let told = observation.agent.clone();
        let Some(record) = self.devices.get_mut(name) else {
            return;
        };
        let same = record.observation.as_ref().is_some_and(|old| {
            old.models == observation.models
                && old.generation == observation.generation
                && old.refused == observation.refused
                && old.agent == observation.agent
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
        let before = record.observation.replace(observation);
        let before = before.and_then(|o| o.agent);
        self.out.changed(Kind::Devices, name);
        if !same {
            self.keep_device(name);
        }
        if let Some(why) = refused {
            let (subject, reason) = (format!("device/{name}"), "AssignmentRefused");
            self.tell(now, Severity::Warning, subject, name.as_str(), reason, why);
        }
        self.agent_told(now, name, before.as_ref(), told.as_ref());
        self.report_to_rollouts(now, name);
        self.renew_windows(now, name);
    }

    /// Changes labels.
    ///
    /// # Errors
    /// [`Refused::NotFound`] or [`Refused::Invalid`].
    pub fn set_labels(
        &mut self,
        now: Millis,
        actor: &str,
        name: &DeviceName,
        set: Labels,
        remove: &[String],
    ) -> Result<(), Refused> {
        let mut labels = self.device(name)?.labels.clone();
        for (key, value) in &set {
            check_label_key(key)
                .and_then(|()| check_label_value(value))
                .map_err(|e| Refused::Invalid(e.to_string()))?;
            if key == ZONE_LABEL {
                let zone = value.parse::<Zone>();
                zone.map_err(|e| Refused::Invalid(format!("label {key}: {e}")))?;
            }
        }
        labels.retain(|key, _| !remove.contains(key));
        labels.extend(set);
        if labels.len() > MAX_LABELS {
            return Err(Refused::Invalid(format!(
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
    /// [`Refused::NotFound`].
    pub fn revoke_device(
        &mut self,
        now: Millis,
        actor: &str,
        name: &DeviceName,
    ) -> Result<(), Refused> {
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
            let last = ToDevice::Disconnect {
                reason,
                retry: false,
            };
            self.out.send.push((live.id, last));
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
