//! Everything the controller knows: the fleet, and what is the controller's alone.

use super::journal::{self, Fenced};
use super::refusals::Refusals;
use super::token::{TOKENS, TokenRecord};
use crate::store::{Store, StoreError};
use sandpiper_core::assignment::AssignmentBundle;
use sandpiper_core::fleet::{Fleet, Outbox, StreamId};
use sandpiper_core::names::DeviceName;
use sandpiper_core::signed::Purpose;
use sandpiper_core::telemetry::Hello;
use sandpiper_core::time::Millis;
use sandpiper_proto::convert::FromController;
use sandpiper_transport::pki::Ca;
use sandpiper_transport::signing::{SigningKey, VerifyingKeys};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;

use super::FleetError;

/// Messages waiting for one device. Only assignments and acknowledgements are sent, so a queue
/// that is full belongs to a device that does not read; its stream is closed.
const STREAM_QUEUE: usize = 32;

/// The keys that the controller acts with.
#[derive(Debug)]
pub struct Authority {
    /// Issues certificates.
    pub ca: Ca,
    /// Signs assignments.
    pub assignment: SigningKey,
    /// Whose versions are genuine.
    pub publishers: VerifyingKeys,
}

/// Why the state cannot be loaded.
pub type LoadError = sandpiper_core::fleet::LoadError<StoreError>;

/// All state. Jobs change it and never block; what they leave to be done is in the fleet's outbox.
pub struct State {
    /// What decides.
    pub(crate) fleet: Fleet,
    pub(super) authority: Arc<Authority>,
    pub(super) tokens: BTreeMap<String, TokenRecord>,
    pub(super) senders: BTreeMap<StreamId, mpsc::Sender<FromController>>,
    pub(super) refusals: Refusals,
}

impl State {
    /// Takes the store over and reads everything from it.
    ///
    /// # Errors
    /// [`LoadError`].
    pub fn load(store: &dyn Store, authority: Arc<Authority>) -> Result<Self, LoadError> {
        // First of all: whoever acted on the store before cannot write to it any more.
        let term = journal::take_over(store).map_err(LoadError::Store)?;
        let fenced = Fenced {
            store,
            expect: Some(term.row()),
        };
        journal::recover(&fenced).map_err(LoadError::Store)?;
        let mut fleet = Fleet::load(|prefix| store.range(prefix))?;
        fleet.lead(term);
        let rows = store.range(TOKENS).map_err(LoadError::Store)?;
        let tokens = rows.into_iter().map(|(key, value)| {
            let token: TokenRecord =
                serde_json::from_slice(&value).map_err(|source| LoadError::Record {
                    key: String::from_utf8_lossy(&key).into_owned(),
                    source,
                })?;
            Ok((token.id.clone(), token))
        });
        Ok(Self {
            fleet,
            authority,
            tokens: tokens.collect::<Result<_, LoadError>>()?,
            senders: BTreeMap::new(),
            refusals: Refusals::default(),
        })
    }

    pub(super) fn take_outbox(&mut self) -> Outbox {
        self.fleet.take_outbox()
    }

    /// A device opened its stream: its number, and what it is to be sent.
    ///
    /// # Errors
    /// [`FleetError::Refused`].
    pub fn attach(
        &mut self,
        now: Millis,
        name: &DeviceName,
        hello: Hello,
    ) -> Result<(StreamId, mpsc::Receiver<FromController>), FleetError> {
        let old = self.fleet.stream(name).and_then(|id| self.senders.get(&id));
        let old_reads = old.is_some_and(|sender| !sender.is_closed());
        let id = self.fleet.attach(now, name, hello, old_reads)?;
        let (sender, receiver) = mpsc::channel(STREAM_QUEUE);
        self.senders.insert(id, sender);
        Ok((id, receiver))
    }

    /// A stream ended.
    pub fn detach(&mut self, now: Millis, name: &DeviceName, id: StreamId) {
        self.senders.remove(&id);
        self.fleet.detach(now, name, id);
    }

    /// The assignment of a device, signed, with the versions it names.
    pub(super) fn bundle(&self, device: &DeviceName) -> Option<AssignmentBundle> {
        let (assignment, versions) = self.fleet.assignment(device)?;
        let payload =
            serde_json::to_vec(&assignment).expect("assignments have text keys, so they have JSON");
        Some(AssignmentBundle {
            assignment: self.authority.assignment.sign(Purpose::Assignment, payload),
            versions: versions.into_iter().cloned().collect(),
            agent: self.fleet.agent_of(device).cloned(),
        })
    }
}
