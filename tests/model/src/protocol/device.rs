//! A device: its reconciler over a disk, with downloads and runners that answer at once.

use super::world::{Up, World, digest};
use super::{NEW, Protocol};
use crate::fixtures::{RUNTIME, TARGET, device, observation, version, window};
use sandpiper_core::assignment::Generation;
use sandpiper_core::digest::Digest;
use sandpiper_core::fleet::StreamId;
use sandpiper_core::reconcile::{DeviceEffect, DeviceEvent, DeviceState, Reconciler, Refusal};
use sandpiper_core::telemetry::{FailureKind, Observation, TelemetryWindow};
use sandpiper_core::time::Millis;
use std::collections::VecDeque;
use std::sync::Arc;

/// A device.
#[derive(Debug, Clone)]
pub(super) struct Device {
    machine: Arc<Reconciler>,
    /// What its disk holds.
    kept: Arc<DeviceState>,
    /// The stream that it has open, with its controller.
    pub(super) stream: Option<(usize, StreamId)>,
    /// The newest generation that it has told anybody.
    told: Generation,
    /// Windows, one of each generation under which something was served.
    pub(super) windows: Vec<TelemetryWindow>,
    digest: Digest,
}

/// How a device comes through the effects of an event.
enum Ended {
    Quiet,
    Cut,
}

impl Device {
    pub(super) fn new(number: usize) -> Self {
        let state = DeviceState::default();
        Self {
            machine: Arc::new(machine(number, state.clone())),
            kept: Arc::new(state),
            stream: None,
            told: Generation::default(),
            windows: Vec::new(),
            digest: Digest::of(b""),
        }
    }

    pub(super) fn generation(&self) -> Generation {
        self.machine.state().generation
    }

    pub(super) fn state(&self) -> &DeviceState {
        self.machine.state()
    }

    pub(super) fn kept(&self) -> &DeviceState {
        &self.kept
    }

    pub(super) fn told(&self) -> Generation {
        self.told
    }

    pub(super) fn tells(&mut self, generation: Generation) {
        self.told = self.told.max(generation);
        self.digest = digest(&self.view());
    }

    /// What tells its state from others, since it last changed.
    pub(super) fn digest(&self) -> &Digest {
        &self.digest
    }

    pub(super) fn observation(&self) -> Observation {
        observation(self.generation(), self.machine.statuses())
    }

    /// What tells its state from others: downloads and runners follow from what it keeps.
    fn view(&self) -> impl serde::Serialize + use<> {
        let brief = |state: &DeviceState| {
            let slots = state.models.values().map(|slot| {
                let name = |v: &Option<sandpiper_core::reconcile::SlotVersion>| {
                    v.as_ref().map(|v| v.version().clone())
                };
                let failed: Vec<_> = slot.failed.iter().map(|f| f.code).collect();
                let names = [&slot.active, &slot.previous, &slot.pending].map(name);
                (names, failed, slot.failure.is_some())
            });
            (
                state.generation,
                state.assignment.clone(),
                slots.collect::<Vec<_>>(),
            )
        };
        let windows: Vec<_> = self.windows.iter().map(|w| w.sequence).collect();
        let told = (self.told, windows, format!("{:?}", self.machine.statuses()));
        (brief(self.state()), brief(&self.kept), told)
    }

    /// Performs effects in order until nothing is left, or until the power goes after so many.
    fn perform(
        &mut self,
        bad: bool,
        now: Millis,
        event: DeviceEvent,
        cut: Option<usize>,
        refusals: &mut Vec<Refusal>,
    ) -> Ended {
        let machine = Arc::make_mut(&mut self.machine);
        let mut effects: VecDeque<_> = machine.handle(now, event).into();
        let mut done = 0;
        while let Some(effect) = effects.pop_front() {
            if cut == Some(done) {
                return Ended::Cut;
            }
            done += 1;
            match effect {
                DeviceEffect::Persist => self.kept = Arc::new(machine.state().clone()),
                DeviceEffect::Fetch { artefacts, .. } => {
                    for artefact in artefacts {
                        effects.extend(machine.handle(now, DeviceEvent::Fetched(artefact)));
                    }
                }
                DeviceEffect::StartRunner {
                    model,
                    version: started,
                    variant,
                    ..
                } => {
                    let event = match bad && started == version(NEW) {
                        true => DeviceEvent::RunnerFailed {
                            model,
                            version: started,
                            variant,
                            kind: FailureKind::SelfTest,
                            message: "the golden outputs differ".to_owned(),
                        },
                        false => DeviceEvent::RunnerReady {
                            model,
                            version: started,
                            variant,
                        },
                    };
                    effects.extend(machine.handle(now, event));
                }
                DeviceEffect::Refuse(refusal) => refusals.push(refusal),
                DeviceEffect::Switch { .. }
                | DeviceEffect::StopRunner { .. }
                | DeviceEffect::StopFetch { .. }
                | DeviceEffect::Collect
                | DeviceEffect::Report => {}
            }
        }
        match cut {
            // There were fewer effects.
            Some(_) => Ended::Cut,
            None => Ended::Quiet,
        }
    }
}

fn machine(number: usize, state: DeviceState) -> Reconciler {
    let runtimes = [RUNTIME.to_owned()].into();
    Reconciler::new(state, vec![TARGET], runtimes, device(number))
}

impl World {
    /// An assignment reaches a device, perhaps one that it is not for.
    pub(super) fn receive(
        &mut self,
        protocol: &Protocol,
        number: usize,
        key: (usize, Generation),
        cut: Option<usize>,
    ) {
        let Some(signed) = self.signed.get(&key).cloned() else {
            return;
        };
        let (assignment, manifests) = (signed.assignment.clone(), signed.manifests.clone());
        let event = DeviceEvent::Assigned(assignment, manifests);
        let (bad, now) = (protocol.bad[number], self.now());
        let mut refusals = Vec::new();
        match self.devices[number].perform(bad, now, event, cut, &mut refusals) {
            Ended::Quiet => self.serve(number),
            Ended::Cut => self.reboot(protocol, number),
        }
        let old = |r: &Refusal| matches!(r, Refusal::Older { .. } | Refusal::Conflict(_));
        self.happened.refused |= refusals.iter().any(old);
        self.check_device(number);
    }

    /// The power of a device goes and comes.
    pub(super) fn cut(&mut self, protocol: &Protocol, number: usize) {
        self.reboot(protocol, number);
        self.check_device(number);
    }

    fn reboot(&mut self, protocol: &Protocol, number: usize) {
        let (bad, now) = (protocol.bad[number], self.now());
        let device = &mut self.devices[number];
        device.stream = None;
        let state = DeviceState::clone(&device.kept);
        device.machine = Arc::new(machine(number, state));
        device.perform(bad, now, DeviceEvent::Tick, None, &mut Vec::new());
        self.serve(number);
    }

    /// It serves one inference under every assignment, and tells how it is.
    fn serve(&mut self, number: usize) {
        let observation = self.devices[number].observation();
        let generation = observation.generation;
        let serving = observation.models.first().and_then(|s| s.serving.as_ref());
        let served = (1..=NEW).find(|n| serving.is_some_and(|s| s.version == version(*n)));
        if let Some(served) = served
            && self.truth.served.insert((number, served, generation))
        {
            // Numbers rise with the generation, of which each has one window.
            let window = window(served, generation, generation.0, 1);
            self.devices[number].windows.push(window.clone());
            self.says(number, Up::Window(Box::new(window)));
        }
        if self.devices[number].stream.is_some() {
            self.devices[number].tells(generation);
            self.says(number, Up::Report(Box::new(observation)));
        }
        let device = &mut self.devices[number];
        device.digest = digest(&device.view());
    }
}
