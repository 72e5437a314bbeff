//! Cards that were copied: two devices with one identity displace each other's stream for ever.
//!
//! A number of a start (`boot_id`) is made anew whenever an agent starts. A device that was merely
//! started again shows a new number and never an older one. With two cards under way the numbers
//! take turns: one that was displaced by another start and attaches again has been alive all along.

use super::Refused;
use super::outbox::ToDevice;
use super::state::Fleet;
use crate::event::Severity;
use crate::mutants::{self, Mutant};
use crate::names::DeviceName;
use crate::time::Millis;
use std::collections::VecDeque;

/// Returns of displaced starts, without a new one between, that prove two cards. One is not
/// enough: a hello that was under way when the power went may arrive after that of the next start,
/// which then returns as well.
const RETURNS: u32 = 3;
/// Starts remembered of a device: of more cards with one identity two are as good as all.
const STARTS: usize = 4;

/// Starts of one device's agent that attached, the latest last.
#[derive(Debug, Clone, Default)]
pub(super) struct Starts {
    seen: VecDeque<u64>,
    returns: u32,
}

impl Starts {
    /// A start attaches: whether two cards must be under way.
    fn attaches(&mut self, boot_id: u64) -> bool {
        let place = self.seen.iter().position(|seen| *seen == boot_id);
        match place {
            Some(place) if place + 1 == self.seen.len() => return false,
            Some(place) => {
                self.seen.remove(place);
                self.returns += 1;
            }
            None => self.returns = 0,
        }
        if self.seen.len() == STARTS {
            self.seen.pop_front();
        }
        self.seen.push_back(boot_id);
        self.returns >= RETURNS && !mutants::is(Mutant::TrustClones)
    }
}

impl Fleet {
    /// Takes note of a start that attaches. When two cards must be under way neither is heard any
    /// more: nobody knows which of them is the device.
    ///
    /// # Errors
    /// [`Refused::Denied`] when the device is in quarantine now.
    pub(super) fn attaches(
        &mut self,
        now: Millis,
        name: &DeviceName,
        boot_id: u64,
    ) -> Result<(), Refused> {
        let starts = self.starts.entry(name.clone()).or_default();
        if !starts.attaches(boot_id) {
            return Ok(());
        }
        self.starts.remove(name);
        if let Some(record) = self.devices.get_mut(name) {
            record.quarantined = Some(now);
        }
        self.keep_device(name);
        let text = format!(
            "two cards use the identity of this device: neither is heard until one is wiped and `sandpiper release {name}` was said; both go on serving"
        );
        let subject = format!("device/{name}");
        let severity = Severity::Warning;
        self.tell(now, severity, subject, "controller", "Quarantined", text);
        if let Some(live) = self.live.remove(name) {
            let reason = "two cards use the identity of this device".to_owned();
            let last = ToDevice::Disconnect {
                reason,
                retry: false,
            };
            self.out.send.push((live.id, last));
        }
        self.admit(name)
    }

    /// Lets a device out of quarantine: an operator has seen to it that one card is left. It gets
    /// what its deployments stand at.
    ///
    /// # Errors
    /// [`Refused::NotFound`], or [`Refused::Conflict`] for one that is not in quarantine.
    pub fn release_device(
        &mut self,
        now: Millis,
        actor: &str,
        name: &DeviceName,
    ) -> Result<(), Refused> {
        if self.device(name)?.quarantined.is_none() {
            let text = format!("device `{name}` is not in quarantine");
            return Err(Refused::Conflict(text));
        }
        if let Some(record) = self.devices.get_mut(name) {
            record.quarantined = None;
        }
        self.starts.remove(name);
        self.keep_device(name);
        let (subject, text) = (format!("device/{name}"), "heard again".to_owned());
        self.tell(now, Severity::Info, subject, actor, "Released", text);
        self.catch_up(now, name);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proves(attached: &[u64]) -> bool {
        let mut starts = Starts::default();
        attached.iter().any(|boot_id| starts.attaches(*boot_id))
    }

    #[test]
    fn two_cards_take_turns_and_one_that_is_started_again_does_not() {
        assert!(proves(&[1, 2, 1, 2, 1]));
        assert!(!proves(&[1, 1, 1, 2, 2, 3, 4, 5, 6, 7, 7]));
        // A hello of the start before arrives late.
        assert!(!proves(&[1, 2, 1, 2, 2, 3, 2, 3, 3]));
        // Three cards.
        assert!(proves(&[1, 2, 3, 1, 2, 3]));
    }
}
