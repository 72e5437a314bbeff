//! The agent's own program: performs what the core's updater decides.

use super::{Driver, Input};
use crate::clock;
use crate::words::chain;
use sandpiper_core::digest::ArtefactRef;
use sandpiper_core::reconcile::DeviceEvent;
use sandpiper_core::update::{Models, StageFailure, UpdateEffect, UpdateEvent};

impl Driver {
    pub(super) fn update(&mut self, event: UpdateEvent) {
        let effects = self.updater.handle(clock::counted(), event);
        self.updates.extend(effects);
        while let Some(effect) = self.updates.pop_front() {
            if !self.perform_update(&effect) {
                // Whatever follows waits for it, until the next look.
                self.updates.push_front(effect);
                break;
            }
        }
        let status = Some(self.updater.status());
        let changed = self
            .observation
            .send_if_modified(|o| std::mem::replace(&mut o.agent, status) != o.agent);
        if changed {
            self.show();
        }
    }

    /// Whether it was done.
    fn perform_update(&mut self, effect: &UpdateEffect) -> bool {
        match effect {
            UpdateEffect::Persist => {
                let saved = self.programs.save(self.updater.record());
                if let Err(error) = &saved {
                    let why = chain(error);
                    tracing::error!("what became of an update cannot be written down: {why}");
                }
                return saved.is_ok();
            }
            UpdateEffect::Fetch(artefact) => self.fetcher.request(vec![*artefact]),
            UpdateEffect::StopFetch(artefact) => self.fetcher.stop(&[*artefact]),
            UpdateEffect::Stage(artefact) => self.stage(*artefact),
            UpdateEffect::Collect => {
                if let Err(error) = self.programs.collect(&self.updater.live()) {
                    tracing::warn!("old programs of the agent stay on the disk: {error}");
                }
                self.updater.collected();
                self.collect();
            }
            UpdateEffect::Restart => {
                let why = self.updater.status().why.unwrap_or_default();
                tracing::warn!("another program of the agent takes over {why}");
                self.restarts = true;
            }
        }
        true
    }

    /// Copies it on a thread that may block: a slow card takes seconds.
    fn stage(&self, artefact: ArtefactRef) {
        let (programs, depot) = (self.programs.clone(), self.depot.clone());
        let (arch, inputs) = (self.profile.borrow().arch, self.inputs.clone());
        tokio::spawn(async move {
            let job = move || programs.stage(&depot, artefact, arch);
            let staged = match tokio::task::spawn_blocking(job).await {
                Ok(done) => done.map_err(StageFailure::from),
                Err(error) => Err(StageFailure::Disk(format!(
                    "a job on the disk did not finish ({error})"
                ))),
            };
            // The agent stops when nobody listens.
            let _ = inputs.send(Input::Staged(artefact, staged)).await;
        });
    }

    /// An answer about a program of the agent; `None` when it is about something else.
    pub(super) fn update_fetched(&self, event: &DeviceEvent) -> Option<UpdateEvent> {
        let ours = |a: &ArtefactRef| self.updater.needed_in_depot() == Some(a.digest);
        match event {
            DeviceEvent::Fetched(artefact) if ours(artefact) => {
                Some(UpdateEvent::Fetched(*artefact))
            }
            DeviceEvent::FetchFailed {
                artefact, message, ..
            } if ours(artefact) => Some(UpdateEvent::FetchFailed(*artefact, message.clone())),
            _ => None,
        }
    }

    /// Tells the updater of the models, and of the order that the accepted assignment holds.
    pub(super) fn tell_updater(&mut self) {
        let assignment = self.machine.state().assignment.as_ref();
        let order = assignment.and_then(|a| a.agent.clone());
        // What is written down with the assignment counts once it is written.
        if self.backlog.is_empty() && order != self.ordered {
            self.ordered.clone_from(&order);
            self.update(UpdateEvent::Ordered(order));
        }
        let statuses = self.machine.statuses();
        let serving = statuses.iter().filter(|s| s.serving.is_some());
        let models = Models {
            assigned: statuses.iter().map(|s| s.model.clone()).collect(),
            serving: serving.map(|s| s.model.clone()).collect(),
            busy: !self.guests.starting.is_empty() || !self.backlog.is_empty(),
        };
        if self.models.as_ref() != Some(&models) {
            self.models = Some(models.clone());
            self.update(UpdateEvent::Models(models));
        }
    }
}
