//! A controller: what it decides is committed before anything of it is sent, if it may still write.

use super::DEVICES;
use super::world::{Known, Signed, Up, World, digest, record_view};
use crate::fixtures::{device, name};
use sandpiper_core::digest::Digest;
use sandpiper_core::fleet::{DeviceRecord, Fleet, Outbox, ToDevice};
use sandpiper_core::names::{ActorName, DeviceName};
use sandpiper_core::rollout::SteerVerb;
use sandpiper_core::time::Millis;
use std::sync::Arc;

impl World {
    /// A controller starts on the store.
    pub(super) fn start(&mut self, controller: usize) {
        let loaded = Arc::make_mut(&mut self.store).take_over();
        match loaded {
            Ok(fleet) => {
                self.knows_what_was_sent(&fleet);
                self.controllers[controller] = Some(Known::new(fleet));
                // As the driver, which looks at its deadlines first.
                self.look(controller, false);
            }
            Err(error) => self.broken("the-store-can-be-loaded", error.to_string()),
        }
    }

    /// It is gone, and all of its streams with it.
    pub(super) fn kill(&mut self, controller: usize) {
        self.controllers[controller] = None;
        for device in &mut self.devices {
            device.stream = device.stream.filter(|(c, _)| *c != controller);
        }
    }

    /// A job of a controller; with `dies` it is killed after the commit.
    pub(super) fn job(
        &mut self,
        controller: usize,
        dies: bool,
        job: impl FnOnce(&mut Fleet, Millis),
    ) {
        let now = self.now();
        let Some(before) = self.controllers[controller].clone() else {
            return;
        };
        let mut fleet = before.fleet.clone();
        job(&mut fleet, now);
        let outbox = fleet.take_outbox();
        let commits = outbox.writes.is_empty() || Arc::make_mut(&mut self.store).commit(&outbox);
        if !commits {
            // What it decided never was.
            self.happened.fenced = true;
            return self.kill(controller);
        }
        self.wrote(&outbox);
        self.decided(&before.fleet, &fleet, &outbox);
        self.newest = fleet
            .rollouts()
            .values()
            .next_back()
            .map(|rollout| rollout.state.clone());
        if dies {
            self.would_know(&fleet);
            return self.kill(controller);
        }
        self.controllers[controller] = Some(Known::new(fleet));
        self.send(controller, &outbox);
    }

    /// Brings the digests of what the store holds up to date.
    fn wrote(&mut self, outbox: &Outbox) {
        if outbox.writes.is_empty() {
            return;
        }
        let rows = Arc::make_mut(&mut self.rows);
        for (key, value) in &outbox.writes {
            let digest = match value {
                _ if key.starts_with(b"e/") => continue,
                None => {
                    rows.remove(key);
                    continue;
                }
                Some(value) if key.starts_with(b"d/") => {
                    let record: Result<DeviceRecord, _> = serde_json::from_slice(value);
                    record.map_or_else(|_| Digest::of(value), |r| digest(&record_view(&r)))
                }
                Some(value) => Digest::of(value),
            };
            rows.insert(key.clone(), digest);
        }
        let mut bytes = Vec::new();
        for (key, digest) in rows.iter() {
            bytes.extend_from_slice(key);
            bytes.extend_from_slice(digest.as_bytes());
        }
        self.rows_digest = Digest::of(&bytes);
    }

    fn send(&mut self, controller: usize, outbox: &Outbox) {
        for (stream, message) in &outbox.send {
            let ends = matches!(message, ToDevice::Disconnect { .. });
            for device in self.devices.iter_mut().filter(|_| ends) {
                let ours = (controller, *stream);
                device.stream = device.stream.filter(|s| *s != ours);
            }
        }
        for name in &outbox.assigned {
            self.sign(controller, name);
        }
    }

    /// Signs the assignment of a device as it is now, and sends it if the device has a stream.
    fn sign(&mut self, controller: usize, name: &DeviceName) {
        let Some(known) = self.controllers[controller].clone() else {
            return;
        };
        let fleet = &known.fleet;
        let Some(number) = (0..DEVICES).find(|n| device(*n) == *name) else {
            return;
        };
        let Some((assignment, versions)) = fleet.assignment(name) else {
            return;
        };
        let manifests = versions.into_iter().map(|signed| {
            let manifest = serde_json::from_slice(&signed.payload);
            manifest.expect("what was published has a manifest")
        });
        let key = (number, assignment.generation);
        self.is_the_only_one(&key, &assignment);
        let before = self.signed.get(&key);
        if before.is_none_or(|before| !before.sent) {
            let signed = Signed {
                manifests: manifests.collect(),
                digest: digest(&assignment),
                sent: fleet.stream(name).is_some(),
                assignment,
            };
            self.signed.insert(key, Arc::new(signed));
        }
    }

    /// Sends a device that has just attached what it lacks, as the driver does once the stream is
    /// known.
    pub(super) fn push(&mut self, controller: usize) {
        let Some(known) = self.controllers[controller].clone() else {
            return;
        };
        let fleet = &known.fleet;
        for number in 0..DEVICES {
            let name = device(number);
            let has = self.devices[number].generation();
            let record = fleet.devices().get(&name);
            if record.is_some_and(|r| r.generation > has) && fleet.stream(&name).is_some() {
                self.sign(controller, &name);
            }
        }
    }

    /// A message reaches the controller of its stream.
    pub(super) fn hear(&mut self, number: usize, message: usize, dies: bool) {
        let Some((controller, stream)) = self.stream(number) else {
            return;
        };
        let Some(message) = self.under_way[number].get(message).cloned() else {
            return;
        };
        let name = device(number);
        self.job(controller, dies, |fleet, now| {
            let heard = match &message.what {
                Up::Report(observation) => {
                    fleet.report(now, &name, stream, (**observation).clone())
                }
                Up::Window(window) => fleet.telemetry(now, &name, stream, vec![(**window).clone()]),
            };
            heard.expect("the stream is the present one");
        });
    }

    /// A controller looks at its deadlines.
    pub(super) fn look(&mut self, controller: usize, dies: bool) {
        self.job(controller, dies, |fleet, now| fleet.tick(now));
    }

    /// An operator takes the newest rollout back.
    pub(super) fn abort(&mut self, controller: usize) {
        self.job(controller, false, |fleet, now| {
            let newest = fleet.rollouts().keys().next_back().cloned();
            if let Some(newest) = newest {
                let anna = name::<ActorName>("anna");
                // Refused when it is over.
                let _ = fleet.steer_rollout(now, &anna, &newest, SteerVerb::Abort);
            }
        });
    }
}
