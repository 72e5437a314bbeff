//! What a job leaves to be done: first the writes, then the messages.

use super::devices::StreamId;
use super::journal::Writes;
use sandpiper_core::names::DeviceName;
use sandpiper_proto::convert::{FromController, ResourceKind};
use serde::Serialize;
use std::collections::BTreeSet;

/// Something that operators watch has changed or is gone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Changed {
    /// Its kind.
    pub kind: ResourceKind,
    /// Its name.
    pub name: String,
}

/// Effects of one job. A job may touch every device of the fleet, so nothing here is searched
/// through for what is there already.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) writes: Writes,
    pub(super) send: Vec<(DeviceName, StreamId, FromController)>,
    /// Devices whose assignment is to be sent, as it is when the writes are durable.
    pub(super) assigned: BTreeSet<DeviceName>,
    pub(super) changed: BTreeSet<Changed>,
}

impl Outbox {
    /// Queues a record. A later one for the same key replaces it.
    pub(super) fn keep<T: Serialize>(&mut self, key: Vec<u8>, value: &T) {
        let json = serde_json::to_vec(value).expect("records have text keys, so they have JSON");
        self.writes.insert(key, Some(json));
    }

    /// Queues the end of a record.
    pub(super) fn delete(&mut self, key: Vec<u8>) {
        self.writes.insert(key, None);
    }

    pub(super) fn changed(&mut self, kind: ResourceKind, name: impl std::fmt::Display) {
        let name = name.to_string();
        self.changed.insert(Changed { kind, name });
    }
}
