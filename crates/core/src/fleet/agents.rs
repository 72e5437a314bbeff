//! Releases of the agent, and which device shall run which.

use super::record::PublishedAgent;
use super::state::Fleet;
use super::{Refused, keys};
use crate::event::Severity;
use crate::names::DeviceName;
use crate::policy::Selector;
use crate::signed::Signed;
use crate::time::Millis;
use crate::update::{AgentOrder, AgentRelease, AgentStatus, AgentVersion, UpdatePhase};
use crate::view::{AgentOrdersDoc, Kind, PassedByDoc};

/// Most releases of one fleet: years of them, and each is a few hundred bytes.
pub const MAX_RELEASES: usize = 1000;

/// Whom an order is for.
#[derive(Debug, Clone, PartialEq)]
pub enum OrderedDevices {
    /// This one.
    One(DeviceName),
    /// All with these labels.
    Matching(Selector),
}

impl Fleet {
    /// Releases by version.
    pub fn agents(&self) -> &std::collections::BTreeMap<AgentVersion, PublishedAgent> {
        &self.agents
    }

    /// Takes a release that was admitted to the catalogue.
    ///
    /// # Errors
    /// [`Refused::Conflict`] when the version exists with another content, [`Refused::Full`].
    pub fn publish_agent(
        &mut self,
        now: Millis,
        actor: &str,
        published: PublishedAgent,
    ) -> Result<(), Refused> {
        let version = published.release.version.clone();
        if let Some(old) = self.agents.get(&version) {
            return if old.signed.payload == published.signed.payload {
                Ok(())
            } else {
                let text = format!("agent {version} is published already: releases never change");
                Err(Refused::Conflict(text))
            };
        }
        if self.agents.len() >= MAX_RELEASES {
            let text = format!("the fleet has {MAX_RELEASES} releases of the agent already");
            return Err(Refused::Full(text));
        }
        let archs = published.release.binaries.keys();
        let archs: Vec<String> = archs.map(ToString::to_string).collect();
        self.out.keep(keys::agent(&version), &published);
        self.out.changed(Kind::AgentReleases, &version);
        self.agents.insert(version.clone(), published);
        let subject = format!("agent-release/{version}");
        let text = format!("release {version} of the agent for {}", archs.join(", "));
        self.tell(now, Severity::Info, subject, actor, "Published", text);
        Ok(())
    }

    /// Orders devices to run a release, or the program that is installed on them. Every order is a
    /// new one, also for a release that was ordered before.
    ///
    /// # Errors
    /// [`Refused::NotFound`]; of a device that was named itself also why it is passed by.
    pub fn order_agents(
        &mut self,
        now: Millis,
        actor: &str,
        version: Option<&AgentVersion>,
        devices: &OrderedDevices,
    ) -> Result<AgentOrdersDoc, Refused> {
        let release = match version {
            None => None,
            Some(version) => {
                let found = self.agents.get(version);
                let found = found.ok_or_else(|| Refused::not_found("agent-release", version))?;
                Some(found.release.clone())
            }
        };
        let chosen: Vec<DeviceName> = match devices {
            OrderedDevices::One(name) => vec![self.device(name)?.name.clone()],
            OrderedDevices::Matching(selector) => {
                let all = self.devices.values();
                let all = all.filter(|d| selector.matches(&d.labels));
                all.map(|d| d.name.clone()).collect()
            }
        };
        let mut doc = AgentOrdersDoc {
            version: version.cloned(),
            ordered: Vec::new(),
            passed_by: Vec::new(),
        };
        for device in chosen {
            match self.cannot_run(&device, release.as_ref()) {
                Some(why) if matches!(devices, OrderedDevices::One(_)) => {
                    return Err(Refused::Conflict(format!("device {device} {why}")));
                }
                Some(why) => doc.passed_by.push(PassedByDoc { device, why }),
                None => {
                    self.order_agent(now, actor, &device, release.clone());
                    doc.ordered.push(device);
                }
            }
        }
        Ok(doc)
    }

    fn cannot_run(&self, device: &DeviceName, release: Option<&AgentRelease>) -> Option<String> {
        let record = self.devices.get(device)?;
        if record.revoked_by.is_some() {
            return Some("was revoked".to_owned());
        }
        let Some(profile) = &record.profile else {
            return Some("has not reported what it is yet".to_owned());
        };
        let told = record.observation.as_ref().and_then(|o| o.agent.as_ref());
        if told.is_none() {
            let runs = &profile.agent_version;
            return Some(format!(
                "runs agent {runs}, which cannot update itself: install a newer package on it"
            ));
        }
        let release = release?;
        let arch = profile.arch;
        (!release.binaries.contains_key(&arch)).then(|| {
            let version = &release.version;
            format!("is {arch}, for which release {version} has no program")
        })
    }

    fn order_agent(
        &mut self,
        now: Millis,
        actor: &str,
        device: &DeviceName,
        release: Option<AgentRelease>,
    ) {
        let Some(record) = self.devices.get_mut(device) else {
            return;
        };
        // A device remembers which order it has settled, also when it joined another fleet since.
        let told = record.observation.as_ref().and_then(|o| o.agent.as_ref());
        let last = record.agent.as_ref().map_or(0, |o| o.number);
        let number = last.max(told.map_or(0, |t| t.order)).saturating_add(1);
        let what = match &release {
            Some(release) => format!("agent {} is wanted", release.version),
            None => "the installed agent is wanted".to_owned(),
        };
        record.agent = Some(AgentOrder { number, release });
        self.renumber(now, device);
        let subject = format!("device/{device}");
        self.tell(now, Severity::Info, subject, actor, "AgentOrdered", what);
    }

    /// The release that a device's assignment names, as its publisher signed it.
    pub fn agent_of(&self, device: &DeviceName) -> Option<&Signed> {
        let order = self.devices.get(device)?.agent.as_ref()?;
        Some(&self.agents.get(order.version()?)?.signed)
    }

    /// A device whose agent did not know of orders when it took its assignment, and does now, gets
    /// it anew.
    pub(super) fn remind_of_agent(&mut self, now: Millis, device: &DeviceName) {
        let Some(record) = self.devices.get(device) else {
            return;
        };
        let Some(seen) = &record.observation else {
            return;
        };
        let wanted = record.agent.as_ref().map_or(0, |o| o.number);
        let knows = seen.agent.as_ref().is_none_or(|told| told.order >= wanted);
        if !knows && seen.generation == record.generation {
            self.renumber(now, device);
        }
    }

    /// Tells operators how an order ended.
    pub(super) fn agent_told(
        &mut self,
        now: Millis,
        device: &DeviceName,
        before: Option<&AgentStatus>,
        told: Option<&AgentStatus>,
    ) {
        let Some(told) = told else {
            return;
        };
        if before.is_some_and(|b| (b.phase, b.order, &b.why) == (told.phase, told.order, &told.why))
        {
            return;
        }
        let (severity, reason) = match told.phase {
            Some(UpdatePhase::Confirmed) => (Severity::Info, "AgentUpdated"),
            Some(UpdatePhase::FellBack) => (Severity::Warning, "AgentFellBack"),
            Some(UpdatePhase::Refused) => (Severity::Warning, "AgentRefused"),
            Some(UpdatePhase::Replaced) => (Severity::Warning, "AgentReplaced"),
            _ => return,
        };
        let running = format!("agent {} runs", told.running);
        let text = match &told.why {
            Some(why) => format!("{running}: {why}"),
            None => running,
        };
        let subject = format!("device/{device}");
        self.tell(now, severity, subject, device.as_str(), reason, text);
    }
}
